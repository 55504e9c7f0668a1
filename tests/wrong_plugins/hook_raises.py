"""KeyError: 'scratch'"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="hook-raises",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    raise KeyError("scratch")
