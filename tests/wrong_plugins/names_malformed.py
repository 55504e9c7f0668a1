"""names-malformed: variant 'script' maps 'lin.weight' to 'transposed weights', which are not both
names of parameters; write it like {'lin.weight': 'weights.T'}
"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="names-malformed",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", steps, start=start, names={"lin.weight": "transposed weights"}),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
