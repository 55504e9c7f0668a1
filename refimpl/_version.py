"""The version of this distribution, kept apart so that the build can read it without imports."""

__version__ = "0.2.0"
