"""refimpl_examples looks like a hook but is not marked; put @hookimpl above it (from refimpl import
hookimpl)
"""

from refimpl import Exact, Example

EXAMPLE = Example(
    name="unmarked-hook",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


def refimpl_examples():
    return [EXAMPLE]
