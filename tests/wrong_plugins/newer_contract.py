"""written for contract 3, this refimpl knows 2; upgrade refimpl"""

from refimpl.of_the_future import anything
from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="newer-contract",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
    contract=3,
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
