"""refimpl_examples is a list, not a function; write def refimpl_examples(): return ..., and mark
it with @hookimpl
"""

from refimpl import Exact, Example

EXAMPLE = Example(
    name="hook-is-a-list",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)

refimpl_examples = [EXAMPLE]
