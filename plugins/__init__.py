"""One module per documented example; each imports refimpl and its data set, no other plugin."""
