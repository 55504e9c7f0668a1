"""The suite: what is asked of every example, and the pytest tests that ask it."""
