"""refimpl_executions returned an Example where an Execution is expected; make it with
Execution(...)
"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="execution-for-example",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_executions():
    return [EXAMPLE]
