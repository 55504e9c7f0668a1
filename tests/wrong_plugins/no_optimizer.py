"""no-optimizer: variant 'module' has no optimizer; give it optimizer="""

from refimpl import DataSet, Example, Facts, ModuleVariant, Protocol, Variant, hookimpl


EXAMPLE = Example(
    name="no-optimizer",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    loss=max,
    variants=(ModuleVariant("module", build=dict),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
