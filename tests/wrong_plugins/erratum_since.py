"""erratum-since: erratum 'gone' has since='torch 2.6', which is not a version requirement; write it
like 'torch>=2.6'
"""

from refimpl import Erratum, Example, hookimpl

EXAMPLE = Example(
    name="erratum-since",
    title="t",
    document="d",
    section="s",
    errata=(Erratum("gone", "says", "today", "torch 2.6", bool),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
