"""the example's name 'nameInCamel Case' is not in kebab-case; write it 'name-in-camel-case'"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="nameInCamel Case",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
