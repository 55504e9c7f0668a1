"""Every check of refimpl, asked of this example."""

from refimpl.conformance import parametrize_with_checks


@parametrize_with_checks("legendre-sine")
def test_legendre_sine(check):
    """The check's question, asked; its measurements are the answer."""
    check()
