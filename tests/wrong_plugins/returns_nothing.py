"""refimpl_examples returned nothing; return a list of Examples"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="returns-nothing",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    EXAMPLE.variant
