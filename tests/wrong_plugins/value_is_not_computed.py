"""value-is-not-computed: values['sum'].compute must be callable, found int 2"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="value-is-not-computed", title="t", document="d", section="s", values=(Exact("sum", 2, 2),)
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
