"""no-protocol: variant 'script' has no protocol; set it on the variant or on its example"""

from refimpl import DataSet, Example, Facts, Variant, hookimpl


def steps(problem):
    yield from ()


def start(rng):
    return {}


EXAMPLE = Example(
    name="no-protocol",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    facts=Facts(parameters=1),
    variants=(Variant("script", steps, start=start),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
