"""build-is-a-module: variant 'module' has a build that is a module, Linear; give a function that
makes a new module each time, such as build=Linear
"""

from torch.nn import Linear

from refimpl import DataSet, Example, Facts, ModuleVariant, Protocol, Variant, hookimpl


EXAMPLE = Example(
    name="build-is-a-module",
    title="t",
    document="d",
    section="s",
    data=DataSet("none", stand_in=list),
    protocol=Protocol(epochs=1, learning_rate=0.1),
    facts=Facts(parameters=1),
    loss=max,
    variants=(ModuleVariant("module", build=Linear(1, 1), optimizer=dict),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
