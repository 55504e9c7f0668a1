"""duplicate-value: values has 'sum' twice; give each a different name"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="duplicate-value",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", list, []), Exact("sum", list, [])),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
