"""no-loss: variant 'module' has no steps, and no loss for a loop of the framework's; give it
steps=, or loss="""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


EXAMPLE = Example(
    name="no-loss",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("module", build=dict, optimizer=dict),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
