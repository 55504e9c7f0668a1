"""data-of-nothing: variant 'script' has data 'none' without rows or batches; give it stand_in=
(rows), or batches= and length= (a stream)"""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


EXAMPLE = Example(
    name="data-of-nothing",
    title="t",
    document="d",
    section="s",
    data=DataSet("none"),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script", iter, start=dict),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
