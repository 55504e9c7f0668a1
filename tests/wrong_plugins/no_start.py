"""no-start: variant 'script' has no start to draw; give it start= or build=, from which other seeds
draw their start
"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    yield from ()


EXAMPLE = Example(
    name="no-start",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", steps),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
