"""TypeError: Example.__init__() missing 1 required positional argument: 'section'"""

from refimpl import Example, hookimpl

EXAMPLE = Example(name="missing-argument", title="t", document="d")


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
