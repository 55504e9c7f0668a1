"""Compares two runs of the same computation, step by step."""
