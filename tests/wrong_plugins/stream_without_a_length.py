"""stream-without-a-length: variant 'script' has a stream 'none' without a length; give length=, the
number of batches in an epoch"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


EXAMPLE = Example(
    name="stream-without-a-length",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", batches=iter),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", iter, start=dict),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
