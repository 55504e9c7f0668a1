"""Every check of refimpl, of each of these examples."""

from refimpl.conformance import parametrize_with_checks


@parametrize_with_checks(
    "everyday-gan",
    "everyday-vae",
    "everyday-char-lstm",
    "everyday-transformer",
    "everyday-siamese",
    "everyday-detection",
    "everyday-reinforce",
    "everyday-forecast",
    "recipe-early-stopping",
    "recipe-k-fold",
    "recipe-ragged-rows",
    "recipe-sparse-gradients",
    "recipe-stream",
    "recipe-frozen-layers",
    "recipe-own-loop",
    "recipe-changed-gradients",
    "recipe-exempt",
)
def test_everyday(check):
    """The check's question; its measurements are the answer."""
    check()
