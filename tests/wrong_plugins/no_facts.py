"""no-facts: states no facts, so there is nothing to check; give it facts, values, failures or
errata
"""

from refimpl import Example, hookimpl

EXAMPLE = Example(
    name="no-facts",
    title="t",
    document="d",
    section="s",
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
