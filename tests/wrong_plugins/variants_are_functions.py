"""variants-are-functions: variants[0] must be Variant, found function"""

from refimpl import DataSet, Example, Facts, Protocol, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="variants-are-functions",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(steps,),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
