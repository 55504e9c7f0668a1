"""Checks, their results, and which of them an example must get."""
