"""One module a documented example; each imports refimpl and its data set, never another plugin."""
