"""refimpl_examples wraps other hooks; mark it with a plain @hookimpl"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="hook-wrapper",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl(hookwrapper=True)
def refimpl_examples():
    yield
