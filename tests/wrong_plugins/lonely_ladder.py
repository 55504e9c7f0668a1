"""lonely-ladder: ladder 'rungs' has one variant, so it is compared with nothing; use the same
ladder name in all its variants, or leave it out
"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="lonely-ladder",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", steps, start=start, ladder="rungs"),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
