"""digits-of-nothing: figure 'loss' has digits but no documented number; give both"""

from refimpl import DataSet, Example, Facts, Figure, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="digits-of-nothing",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1, figures=(Figure("loss", None, digits=2),)),
    variants=(Variant("script", steps, start=start),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
