"""NameError: name 'Layer' is not defined; write from refimpl import Layer"""

from refimpl import Example, Facts, hookimpl

FACTS = Facts(layers=(Layer("linear", "Linear", (-1, 1), 2),))  # noqa: F821


@hookimpl
def refimpl_examples():
    return [Example("name-not-imported", "t", "d", "s", facts=FACTS)]
