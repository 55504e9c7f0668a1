"""refimpl_examples returned one Example, not a list; put brackets around it: return [example]"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="returns-one-example",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    return EXAMPLE
