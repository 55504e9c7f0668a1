"""A check's answer with what reports compare: its warnings, and what its variant is made of."""

from __future__ import annotations

from dataclasses import replace

from refimpl.checking.checks import Cell, Result, run_check
from refimpl.checking.warned import collected
from refimpl.training.ingredients import ingredients


def answered(cell: Cell) -> Result:
    """The answer to one check, with its warnings and with the ingredients of its variant."""
    with collected() as warned:
        result = run_check(cell)
        variant = cell.subject.variant
        ran = variant is not None and variant.trains and result.outcome != "skipped"
        uses = ingredients(variant, cell.subject.tier) if variant is not None and ran else ()
    return replace(result, warnings=tuple(warned), uses=uses)
