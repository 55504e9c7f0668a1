"""refimpl_examples returned the class Example instead of an instance; call it: Example(...)"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="gives-the-class",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    return [Example]
