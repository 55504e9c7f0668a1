"""more-trainable-than-all: trainable=2 is more than parameters=1; trainable parameters are counted
among all parameters
"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="more-trainable-than-all",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1, trainable=2),
    variants=(Variant("script", steps, start=start),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
