"""ZeroDivisionError: division by zero"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="hook-breaks-off",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    yield EXAMPLE
    raise ZeroDivisionError("division by zero")
