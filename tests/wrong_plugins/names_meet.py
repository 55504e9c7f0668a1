"""names-meet: variant 'script' maps two parameters to 'w'; each has its own"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="names-meet",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", steps, start=start, names={"a": "w", "b": "w.T"}),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
