"""no-steps: variant 'script' has no steps; give it steps=, or make it a ModuleVariant"""

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
