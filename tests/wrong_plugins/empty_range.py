"""empty-range: figure 'loss' has real=(0.5, 0.3), which contains no number; a range is (low, high)"""

from refimpl import DataSet, Example, Facts, Figure, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="empty-range",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1, figures=(Figure("loss", 0.4, real=(0.5, 0.3)),)),
    variants=(Variant("script", steps, start=start),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
