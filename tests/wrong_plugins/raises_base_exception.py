"""Stop: here and now"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="raises-base-exception",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]


class Stop(BaseException):
    pass


raise Stop("here\nand now")
