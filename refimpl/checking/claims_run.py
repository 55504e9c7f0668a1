"""The ledgers of the loaded plugins, and what a run says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from refimpl.checking import claims
from refimpl.checking.checks import Cell, Check, Result, cells, run_check
from refimpl.checking.claims import Judged, Ledger
from refimpl.checking.results import read as read_results
from refimpl.checking.warned import collected
from refimpl.composition import CPU
from refimpl.contract import Example, Execution
from refimpl.data import TIERS
from refimpl.loading.registry import Registry
from refimpl.names import unknown

WITHOUT_TRAINING = (
    "exact-values", "documented-failures", "errata", "parameter-count", "layer-table",
    "state-dict-keys", "summary-sizes", "output-shape",
)  # fmt: skip
"""The checks that need at most one step of an example."""


@dataclass(frozen=True)
class Chosen:
    """An example and its ledger."""

    example: Example
    ledger: Ledger
    executions: tuple[Execution, ...]


def chosen(loaded: Registry, names: Sequence[str]) -> list[Chosen]:
    """The named examples, or those of the named documents; all that bring a ledger, if none is.

    Raises :class:`~refimpl.errors.UnknownNameError` if a name is neither, and
    :class:`~refimpl.checking.claims.ClaimsError` if a ledger is invalid.
    """
    others = tuple(registered.value for registered in loaded.executions.values())
    everything = [
        Chosen(registered.value, claims.ledger_of(registered), others)
        for _, registered in sorted(loaded.examples.items())
    ]
    known = [each.example.name for each in everything]
    documents = sorted({each.example.document for each in everything})
    for name in names:
        if name not in (*known, *documents):
            raise unknown(f"there is no document or example {name!r}", name, [*documents, *known])
    return [
        each
        for each in everything
        if (not names and each.ledger.claims)
        or {each.example.name, each.example.document} & set(names)
    ]


def faults(ledgers: Sequence[Chosen], checks: Sequence[Check]) -> list[str]:
    """What is wrong with the ledgers."""
    return [
        fault
        for each in ledgers
        for fault in claims.faults(each.example, each.ledger, _applied(each, checks))
    ]


def _applied(each: Chosen, checks: Sequence[Check]) -> set[tuple[str, str]]:
    """The checks that an example gets on either tier, each with its variant or the empty text."""
    return {
        (cell.check.name, cell.subject.variant.name if cell.subject.variant else "")
        for tier in TIERS
        for cell in cells(each.example, checks, CPU, tier, each.executions)
    }


def stated(ledgers: Sequence[Chosen]) -> list[Judged]:
    """Each claim and what its plugin says of it."""
    return [line for each in ledgers for line in claims.stated(each.example, each.ledger)]


def judged(
    ledgers: Sequence[Chosen], checks: Sequence[Check], results: Path | None
) -> list[Judged]:
    """Each claim and its verdict by a run's results, or by running what needs no training."""
    if results is not None:
        found: Sequence[Result] = read_results(results).checks
    else:
        with collected():  # what is asserted on purpose makes torch warn
            found = [run_check(cell) for each in ledgers for cell in _cheap(each, checks)]
    return [line for each in ledgers for line in claims.judged(each.example, each.ledger, found)]


def _cheap(each: Chosen, checks: Sequence[Check]) -> Iterator[Cell]:
    """The cells that the ledger needs and that need no training."""
    needed = {claim.check for claim in each.ledger.claims} & set(WITHOUT_TRAINING)
    return cells(each.example, [c for c in checks if c.name in needed], CPU, "stand-in")
