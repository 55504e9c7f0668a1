"""The documents' own data: downloads, digests and safe unpacking."""
