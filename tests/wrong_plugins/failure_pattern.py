"""failure-pattern: failure 'leaf' has match='leaf (', which is not a regular expression: missing ),
unterminated subpattern at position 5; write it as for re.search
"""

from refimpl import Example, Failure, hookimpl

EXAMPLE = Example(
    name="failure-pattern",
    title="t",
    document="d",
    section="s",
    failures=(Failure("leaf", list, RuntimeError, "leaf ("),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
