"""module-with-steps: variant 'module' has steps that are never run; make it a Variant"""

from refimpl import DataSet, Example, Facts, ModuleVariant, Protocol, Variant, hookimpl


EXAMPLE = Example(
    name="module-with-steps",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    loss=max,
    variants=(ModuleVariant("module", iter, build=dict, optimizer=dict),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
