"""refimpl_examples is async; make it a plain def"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="hook-is-async",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
async def refimpl_examples():
    return [EXAMPLE]
