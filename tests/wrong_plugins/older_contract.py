"""written for contract 0, this refimpl needs 1 or newer; state contract=1"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="older-contract",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
    contract=0,
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
