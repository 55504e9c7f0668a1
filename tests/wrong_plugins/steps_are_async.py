"""steps-are-async: variant 'script' has async steps; make it a plain generator"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


async def steps(problem):
    yield problem


def start(rng):
    return {}


EXAMPLE = Example(
    name="steps-are-async",
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
