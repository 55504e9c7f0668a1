"""variant-name-with-blank: a variant's name 'by hand' is not in kebab-case; write it 'by-hand'"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="variant-name-with-blank",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("by hand", steps, start=start),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
