"""unknown-need: value 'sum' needs 'sktime', which refimpl does not know; there are: cuda,
torchvision, torchtext, tensorboard, ray
"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="unknown-need",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2, needs="sktime"),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
