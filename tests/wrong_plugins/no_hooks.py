"""has no hooks, so it provides nothing; define refimpl_examples() and mark it with @hookimpl"""

from refimpl import Exact, Example

EXAMPLE = Example(
    name="no-hooks", title="t", document="d", section="s", values=(Exact("sum", lambda: 1 + 1, 2),)
)
