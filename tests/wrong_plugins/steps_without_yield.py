"""steps-without-yield: variant 'script' is trained by steps(), which yields nothing; yield
Step(loss, ...) after each update
"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def steps(problem):
    for _ in problem.batches():
        pass


def start(rng):
    return {}


EXAMPLE = Example(
    name="steps-without-yield",
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
