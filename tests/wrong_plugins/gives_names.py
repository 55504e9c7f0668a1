"""refimpl_examples returned a str where an Example is expected; make it with Example(...)"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="gives-names",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE.name]
