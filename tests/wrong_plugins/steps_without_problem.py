"""steps-without-problem: variant 'script' has steps that cannot be called with a problem; its
signature is steps(problem)
"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps():
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="steps-without-problem",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", steps, start=start),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
