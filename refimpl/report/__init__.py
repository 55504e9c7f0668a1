"""One page, and one summary, out of the results files of many runs. Imports no torch."""
