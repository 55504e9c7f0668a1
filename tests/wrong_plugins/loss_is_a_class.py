"""loss-is-a-class: variant 'script' has a loss that is a class, MSELoss; make one: MSELoss()"""

from torch.nn import MSELoss

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="loss-is-a-class",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    loss=MSELoss,
    variants=(Variant("script", steps, start=start),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
