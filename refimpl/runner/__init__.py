"""Runs the suite under pytest: options, workers, scheduling, results."""
