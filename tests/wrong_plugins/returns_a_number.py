"""refimpl_examples returned an int; return a list of Examples"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="returns-a-number",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    return len(EXAMPLE.values)
