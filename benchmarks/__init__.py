"""Side-by-side timings, each against the loop as the document writes it."""
