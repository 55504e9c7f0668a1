"""seed-of-baselines: variant 'script' has seed=1002; checks would run seeds of the baselines; use
at most 801, or at least 2000
"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


def script(problem):
    """Trains nothing."""
    yield from ()


EXAMPLE = Example(
    name="seed-of-baselines",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", script, build=dict, seed=1002),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
