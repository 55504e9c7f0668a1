"""refimpl_exampels is not a hook of refimpl; did you mean 'refimpl_examples'?"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="unknown-hook",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_exampels():
    return [EXAMPLE]
