"""clip-of-zero: protocol has clip=0.0; it must be above 0"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


EXAMPLE = Example(
    name="clip-of-zero",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1, clip=0.0),
    facts=Facts(parameters=1),
    variants=(Variant("script", iter, start=dict),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
