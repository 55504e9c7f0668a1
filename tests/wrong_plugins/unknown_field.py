"""TypeError: Example.__init__() got an unexpected keyword argument 'value'; did you mean 'values'?"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="unknown-field", title="t", document="d", section="s", value=(Exact("sum", lambda: 2, 2),)
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
