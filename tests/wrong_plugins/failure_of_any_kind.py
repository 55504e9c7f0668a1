"""failure-of-any-kind: failure 'anything' accepts any Exception, so a typing error would pass; name
a more specific exception, or give match=
"""

from refimpl import Example, Failure, hookimpl

EXAMPLE = Example(
    name="failure-of-any-kind",
    title="t",
    document="d",
    section="s",
    failures=(Failure("anything", list, Exception),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
