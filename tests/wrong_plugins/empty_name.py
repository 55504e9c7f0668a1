"""the example's name is empty; give it a name such as 'titanic-dnn'"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="", title="t", document="d", section="s", values=(Exact("sum", lambda: 1 + 1, 2),)
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
