"""duplicate-variant: variants has 'script' twice; give each a different name"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="duplicate-variant",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", steps, start=start), Variant("script", steps, start=start)),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
