"""names-transposed-twice: variant 'script' maps 'weights.T', but .T belongs to the name it is
mapped to; write {'weights': 'lin.weight.T'}
"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="names-transposed-twice",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", steps, start=start, names={"weights.T": "lin.weight"}),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
