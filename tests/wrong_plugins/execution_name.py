"""the execution's name 'My GPU' is not in kebab-case; write it 'my-gpu'"""

from refimpl import Execution, hookimpl


@hookimpl
def refimpl_executions():
    return [Execution("My GPU", "a GPU of mine")]
