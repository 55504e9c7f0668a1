"""ImportError: cannot import name 'Exampel' from 'refimpl'; did you mean 'Example'?"""

from refimpl import Exampel, hookimpl


@hookimpl
def refimpl_examples():
    return [Exampel()]
