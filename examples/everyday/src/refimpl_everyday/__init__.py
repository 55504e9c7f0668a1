"""Programs of the kinds that people really have, as examples for refimpl."""
