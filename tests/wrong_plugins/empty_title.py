"""empty-title: title is empty; say what the document calls it"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="empty-title",
    title=" ",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
