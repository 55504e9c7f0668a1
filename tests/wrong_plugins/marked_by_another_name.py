"""give_examples is not a hook of refimpl; did you mean 'refimpl_examples'?"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="marked-by-another-name",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def give_examples():
    return [EXAMPLE]
