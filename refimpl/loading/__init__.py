"""Finds plugins, reads them, validates them and keeps those that are in order."""
