"""A plugin that is in order; it trains nothing."""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="good",
    title="A good example",
    document="tests",
    section="1",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
