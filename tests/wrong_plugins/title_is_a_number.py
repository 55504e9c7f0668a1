"""title-is-a-number: title must be str, found int 3"""

from refimpl import Exact, Example, hookimpl

EXAMPLE = Example(
    name="title-is-a-number",
    title=3,
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, 2),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
