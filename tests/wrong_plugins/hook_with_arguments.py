"""refimpl_examples is called without arguments but takes (config, tier); remove them"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="hook-with-arguments",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples(config, tier):
    return [EXAMPLE]
