"""no-steps: variant 'script' has no steps, and no build or optimizer or loss for a loop of the
framework's; give it steps=, or build= and optimizer= and loss="""

from refimpl import DataSet, Example, Facts, Protocol, Variant, hookimpl


EXAMPLE = Example(
    name="no-steps",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    variants=(Variant("script"),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
