"""exempt-without-a-reason: variant 'script' is exempt from 'output-shape' without a reason; say why it
cannot apply"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


EXAMPLE = Example(
    name="exempt-without-a-reason",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", iter, start=dict, exempt={"output-shape": " "}),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
