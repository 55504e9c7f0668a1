"""refimpl_examples gave the class Example instead of an object of it; call it: Example(...)"""

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
