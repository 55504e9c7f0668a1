"""ModuleNotFoundError: No module named 'no_such_package'; install no_such_package"""

import no_such_package.part
from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="missing-module",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
