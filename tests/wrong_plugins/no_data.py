"""no-data: variant 'script' has no data; set it on the variant or on its example"""

from refimpl import Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="no-data",
    title="t",
    document="d",
    section="s",
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", steps, start=start),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
