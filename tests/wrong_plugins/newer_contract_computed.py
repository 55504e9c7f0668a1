"""written for contract 3, this refimpl knows 2; upgrade refimpl"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="newer-contract-computed",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
    contract=1 + 2,
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
