"""Committed results of many runs of each variant, and the limits that follow from them."""
