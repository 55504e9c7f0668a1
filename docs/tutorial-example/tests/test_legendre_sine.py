"""Runs every check of refimpl on this example."""

from refimpl.conformance import parametrize_with_checks


@parametrize_with_checks("legendre-sine")
def test_legendre_sine(check):
    """One check, with its measurements."""
    check()
