"""there is an example 'good' already, from file {GOOD}; give this one a different name"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="good", title="t", document="d", section="s", values=(Exact("sum", lambda: 1 + 1, 2),)
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
