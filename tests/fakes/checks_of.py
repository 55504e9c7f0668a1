"""Runs some checks of an example that may be wrong, and says which fail."""

from __future__ import annotations

from collections.abc import Iterable

from refimpl import Example
from refimpl.checking.checks import cells, run_check
from refimpl.conformance.checks import ALL
from refimpl.data import Tier
from refimpl.training.problem import CPU


def failing(example: Example, names: Iterable[str], tier: Tier = "stand-in") -> dict[str, str]:
    """The reason of each failure, by the check's name, in the order of the suite."""
    chosen = [check for check in ALL if check.name in names]
    found = {}
    for cell in cells(example, chosen, CPU, tier):
        result = run_check(cell)
        if result.outcome == "failed":
            found[cell.check.name] = result.reason
    return found
