"""Claims: what a document states, where that is asserted, and what became of it here.

A plugin brings its ledger in TOML, as it brings expected failures: ``claims.toml`` in the folder of
a plugin that is a package, ``NAME.claims.toml`` beside one that is a module ``NAME.py``::

    [[claim]]
    section = "1-1"
    says = "the net has 651 parameters"
    kind = "exact"
    figure = 651
    check = "parameter-count"

    [[claim]]
    section = "6-3"
    says = "500 updates take 5.409 s on the CPU"
    kind = "timing"
    figure = "5.409 s"
    unchecked = "the time of another machine"

    [[own]]
    check = "exact-values"
    what = "least-squares plane, by SciPy"
    why = "a second witness of the optimum"

A claim names the ``check`` that asserts it and, where a check has many assertions, ``what`` of the
plugin it is: the name of an exact value, a failure or an erratum, or the metric of a figure. A
``variant`` narrows it, and a ``tier`` if only the real data shows it. A ``figure`` that is no text
must be what the plugin asserts, or lie in the range that it asserts on real data. An entry ``own``
lists an assertion that no document makes, and says why it is there. ``calls`` names the functions
that the document's expression calls, which the value of the plugin must call too, and what it gives
them: ``"view([0, 1, 2, 3], 2, 2)"``, where a list is a tensor's values, a tuple its shape and
``...`` anything. A layer may be named with its arguments, and an optimizer with its updates:
``"SGD(lr=0.01) * 500"``. If a plugin brings several examples, each entry names its ``example``; so
it does with ``document`` if that is not the example's.

A ledger is complete: every claim points at an assertion, and every assertion has a claim. Beside
its claims it has ``[[recipe]]``, of :mod:`refimpl.checking.recipes`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
from torch import nn, optim

from refimpl.checking import brought, recipes
from refimpl.checking.brought import strange_keys
from refimpl.checking.checks import Measurement, Result
from refimpl.checking.recipes import Recipe
from refimpl.contract import Erratum, Exact, Example, Facts, Failure, Figure
from refimpl.data import TIERS
from refimpl.errors import RefimplError
from refimpl.reading import why
from refimpl.records.stated import call_of, require_made_of
from refimpl.whereabouts import files_of

if TYPE_CHECKING:
    from refimpl.loading.registry import Registered

FILE = "claims.toml"

Kind = Literal[
    "exact", "shape", "table", "error", "figure", "picture", "timing", "prose", "setting"
]
KINDS: tuple[str, ...] = get_args(Kind)

Verdict = Literal[
    "holds",
    "within its band",
    "no longer holds",
    "not met",
    "FAILS",
    "not run",
    "not asserted",
    "not checkable",
]
SIGNS: Mapping[Verdict, str] = {
    "holds": "✓",
    "within its band": "~",
    "no longer holds": "✗",
    "not met": "≠",
    "FAILS": "‼",
    "not run": "?",
    "not asserted": "○",
    "not checkable": "–",
}
"""``not met``: a figure of a run that today's runs do not reach, for a reason that is known."""

ASSERTED_BY = {
    "exact-values": Exact,
    "documented-failures": Failure,
    "errata": Erratum,
    "reaches-documented-figures": Figure,
}
"""The checks that assert many statements, each of which has a name."""


Kept = TypeVar("Kept", "Claim", "Own", "Recipe")


class ClaimsError(RefimplError):
    """A ledger that is invalid."""


@dataclass(frozen=True)
class Claim:
    """One statement of a document, in our words, and where it is asserted or why it is not."""

    section: str
    says: str
    kind: Kind
    figure: Any = None
    check: str = ""
    what: str = ""
    variant: str = ""
    tier: str = ""
    unchecked: str = ""
    example: str = ""
    document: str = ""
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Own:
    """An assertion that no document makes."""

    check: str
    why: str
    what: str = ""
    variant: str = ""
    example: str = ""
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ledger:
    """What a file says."""

    claims: tuple[Claim, ...] = ()
    own: tuple[Own, ...] = ()
    recipes: tuple[Recipe, ...] = ()

    @property
    def entries(self) -> tuple[Claim | Own, ...]:
        """The claims, and the assertions that no document makes."""
        return (*self.claims, *self.own)


@dataclass(frozen=True)
class Assertion:
    """Something that an example asserts; ``expected`` is ``None`` if it is no single figure."""

    check: str
    variant: str
    what: str
    expected: Any
    source: Exact | Failure | Erratum | Figure | Facts

    def __str__(self) -> str:
        return " · ".join(part for part in (self.check, self.variant, self.what) if part)


# --- reading -------------------------------------------------------------------------------------


@cache
def read(path: Path) -> Ledger:
    """The ledger in a file. Raises :class:`ClaimsError`, which names the file and the entry."""
    try:
        found = brought.content(path)
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise ClaimsError(f"{path} cannot be read as TOML: {why(error)}") from error
    if strange := sorted(found.keys() - {"claim", "own", "recipe"}):
        raise ClaimsError(
            f"{path} has {', '.join(strange)}; write [[claim]], [[own]] or [[recipe]]"
        )
    return Ledger(
        tuple(_entries(path, "claim", found, Claim)),
        tuple(_entries(path, "own", found, Own)),
        tuple(_entries(path, "recipe", found, Recipe)),
    )


def _entries(path: Path, table: str, found: Mapping[str, Any], kind: type[Kept]) -> Iterator[Kept]:
    raw = found.get(table, [])
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        raise ClaimsError(f"{path}: write each entry under [[{table}]]")
    for number, entry in enumerate(raw, start=1):
        wrong = next(_wrong(entry, kind), None)
        if wrong is not None:
            raise ClaimsError(f"{path}, {table} {number}: {wrong}")
        listed = {k: tuple(v) for k, v in entry.items() if k != "figure" and isinstance(v, list)}
        yield kind(**{**entry, **listed})


_REQUIRED = {Claim: ("section", "says", "kind"), Own: ("check", "why"), Recipe: ("section",)}


def _wrong(entry: dict[str, Any], kind: type[Claim | Own | Recipe]) -> Iterator[str]:
    yield from strange_keys(entry, tuple(f.name for f in fields(kind)))
    for key in _REQUIRED[kind]:
        if key not in entry:
            yield f"it has no {key}"
    if kind is Recipe:
        yield from recipes.wrong(entry)
        return
    for key, value in entry.items():
        if key == "calls" and isinstance(value, list) and value:
            yield from _strange_calls(value)
            continue
        if key != "figure" and (not isinstance(value, str) or not value.strip()):
            yield f"{key} must be a non-empty text, found {value!r}"
    if kind is Own:
        return
    if entry["kind"] not in KINDS:
        yield f"kind = {entry['kind']!r} is no kind; there are: {', '.join(KINDS)}"
    if entry.get("tier", "real") not in TIERS:
        yield f"tier = {entry['tier']!r} is none; there are: {', '.join(TIERS)}"
    if ("check" in entry) == ("unchecked" in entry):
        yield "give either the check that asserts it, or unchecked = why none can"


def _strange_calls(calls: Sequence[Any]) -> Iterator[str]:
    """What a list of calls has that is neither a name, nor makes a layer or an optimizer."""
    for text in calls:
        if not isinstance(text, str) or not text.strip():
            yield f"calls has {text!r}, which is no name"
        elif "(" in text:
            what, _, times = text.partition(" * ")
            try:
                if times or not call_of(what):
                    require_made_of(what, optim if times else nn)
                int(times or 1)
            except ValueError as error:
                yield f"calls: {error}"


def ledger_of(registered: Registered[Example]) -> Ledger:
    """The part of a plugin's ledger that is about one of its examples; empty if it brings none.

    Raises :class:`ClaimsError` if the file is invalid.
    """
    path = brought.beside(registered.source, FILE)
    return Ledger() if path is None else _part(read(path), registered.value.name)


def beside(example: Example) -> Ledger:
    """The same, found beside the modules that the example's own functions are in."""
    paths = (brought.beside_module(module, FILE) for module in files_of(example))
    found = [_part(read(path), example.name) for path in paths if path is not None]
    return found[0] if found else Ledger()


def _part(ledger: Ledger, name: str) -> Ledger:
    def own(entry: Claim | Own | Recipe) -> bool:
        return entry.example in ("", name)

    return Ledger(
        tuple(filter(own, ledger.claims)),
        tuple(filter(own, ledger.own)),
        tuple(filter(own, ledger.recipes)),
    )


# --- assertions ----------------------------------------------------------------------------------


def assertions(example: Example) -> Iterator[Assertion]:
    """Everything that an example asserts of its document, by what its plugin states."""
    for value in example.values:
        yield Assertion("exact-values", "", value.name, value.expected, value)
    for failure in example.failures:
        yield Assertion("documented-failures", "", failure.name, failure.raises.__name__, failure)
    for erratum in example.errata:
        yield Assertion("errata", "", erratum.name, None, erratum)
    for variant in example.variants:
        if variant.facts is not None:
            yield from _of_facts(variant.name, variant.facts)


def _of_facts(variant: str, facts: Facts) -> Iterator[Assertion]:
    stated = (
        ("parameter-count", facts.parameters, facts.parameters),
        ("layer-table", facts.layers, None),
        ("state-dict-keys", facts.state_dict, list(facts.state_dict)),
        ("summary-sizes", facts.sizes, None),
        ("output-shape", facts.output, facts.output),
    )
    for check, fact, expected in stated:
        if fact:
            yield Assertion(check, variant, "", expected, facts)
    for figure in facts.figures:
        check = "reaches-documented-figures"
        yield Assertion(check, variant, figure.name, figure.documented, figure)


def _points_at(entry: Claim | Own, assertion: Assertion) -> bool:
    return (
        entry.check == assertion.check
        and entry.what == assertion.what
        and entry.variant in ("", assertion.variant)
    )


def asserted(claim: Claim, example: Example) -> list[Assertion]:
    """What a claim points at; empty for one that points at a check as a whole, or at none."""
    return [found for found in assertions(example) if _points_at(claim, found)]


def faults(example: Example, ledger: Ledger, checks: Collection[tuple[str, str]]) -> Iterator[str]:
    """What is wrong with a ledger, one line each.

    ``checks`` are the checks that the example gets, each with its variant or the empty text.
    """
    everything = list(assertions(example))
    for entry in ledger.entries:
        said = entry.says if isinstance(entry, Claim) else f"own assertion {entry.what!r}"
        who = f"{example.name}: {said!r}"
        if not entry.check:
            continue
        found = [each for each in everything if _points_at(entry, each)]
        whole = any(
            entry.check == name and entry.variant in ("", variant) for name, variant in checks
        )
        if not found and (entry.what or not whole):
            at = " · ".join(part for part in (entry.check, entry.variant, entry.what) if part)
            yield f"{who} points at {at}, which the plugin does not assert"
        elif not found and entry.check in ASSERTED_BY:
            yield f"{who} does not say what of {entry.check} asserts it"
        elif isinstance(entry, Claim):
            yield from (
                f"{who} is {entry.figure} in the ledger, and {each.expected} in the plugin"
                for each in found
                if not _same(entry.figure, each)
            )
    for each in everything:
        if not any(_points_at(entry, each) for entry in ledger.entries):
            yield (
                f"{example.name}: {each} has no claim; add what the document states, "
                "or list it as [[own]]"
            )


def _same(figure: Any, stated: Assertion) -> bool:
    """Whether the ledger's figure is the plugin's, if it is given as more than a text.

    A figure of a run may be that of another run in the document, which must lie in the same range.
    """
    if figure is None or isinstance(figure, str) or stated.expected is None:
        return True
    limits = stated.source.real if isinstance(stated.source, Figure) else None
    if limits is not None and limits[0] <= figure <= limits[1]:
        return True
    return bool(_plain(figure) == _plain(stated.expected))


def _plain(value: Any) -> Any:
    """Arrays and tuples as lists, which is what TOML has."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return value


# --- verdicts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """A claim and what became of it. ``because`` says since when, or why, if there is more."""

    claim: Claim
    example: str
    document: str
    verdict: Verdict
    because: str = ""
    found: str = ""

    @property
    def sign(self) -> str:
        """The verdict as one character."""
        return SIGNS[self.verdict]

    @property
    def at(self) -> str:
        """Where it is asserted."""
        parts = (self.example, self.claim.variant, self.claim.check, self.claim.what)
        return " · ".join(part for part in parts if part) if self.claim.check else ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        claim = {f.name: getattr(self.claim, f.name) for f in fields(Claim)}
        return {
            **claim, "example": self.example, "document": self.document,
            "verdict": self.verdict, "because": self.because, "found": self.found,
        }  # fmt: skip


def stated(example: Example, ledger: Ledger) -> Iterator[Judged]:
    """Each claim and what its plugin says of it; the same on every machine."""
    for claim in ledger.claims:
        verdict, because = _stated(claim, asserted(claim, example))
        yield Judged(claim, example.name, claim.document or example.document, verdict, because)


def _stated(claim: Claim, found: Sequence[Assertion]) -> tuple[Verdict, str]:
    if not claim.check:
        verdict: Verdict = "not asserted" if _is_left(claim) else "not checkable"
        return verdict, claim.unchecked
    for source in (each.source for each in found):
        if isinstance(source, Erratum):
            return "no longer holds", f"since {source.since}: {source.today}"
        if isinstance(source, Figure):
            if source.outside_because:
                return "not met", source.outside_because
            if source.digits is None and source.real is None and source.stand_in is None:
                return "not checkable", "the plugin gives it no range"
            if source.digits is None:
                return "within its band", ""
    return "holds", ""


def judged(example: Example, ledger: Ledger, results: Iterable[Result]) -> Iterator[Judged]:
    """Each claim and its verdict by the results of a run."""
    own = [result for result in results if result.example == example.name]
    for line in stated(example, ledger):
        yield _judged(line, own)


def _judged(line: Judged, results: Sequence[Result]) -> Judged:
    claim = line.claim
    if line.verdict in ("not asserted", "not checkable"):
        return line
    own = [
        result
        for result in results
        if result.check == claim.check
        and claim.variant in ("", result.variant)
        and claim.tier in ("", result.tier)
    ]
    run = [r for r in own if r.outcome != "skipped"]
    if not run:
        on = f" on {claim.tier} data" if claim.tier else ""
        return _as(line, "not run", own[0].reason if own else f"no result of {claim.check}{on}")
    measured = [m for r in run for m in r.measurements if _is_of(m, claim)]
    if claim.what and not measured and all(r.outcome == "passed" for r in run):
        return _as(line, "not run", _why_not_measured(claim))
    broken = [m.message for m in measured if not m.holds]
    if not claim.what or not measured:
        broken = [r.reason for r in run if r.outcome in ("failed", "xfailed")]
    if broken:
        return _as(line, "FAILS", broken[0])
    found = str(measured[0].measured) if claim.what and measured else ""
    if claim.check == "errata" and found == "right":
        return _as(line, "holds", f"no longer {line.because}", found)
    return _as(line, line.verdict, line.because, found)


def _why_not_measured(claim: Claim) -> str:
    if claim.check == "reaches-documented-figures":
        return "it has no range on this data"
    return "it needs a package or a device that is not here"


def _is_of(measurement: Measurement, claim: Claim) -> bool:
    """Whether a measurement is that of the claim; a failure's name is followed by its error."""
    if claim.check == "documented-failures":
        return measurement.what.startswith(f"{claim.what} raises ")
    return not claim.what or measurement.what == claim.what


def _as(line: Judged, verdict: Verdict, because: str, found: str = "") -> Judged:
    return Judged(line.claim, line.example, line.document, verdict, because, found)


def counts(lines: Sequence[Judged]) -> dict[str, int]:
    """How many statements there are, can be checked, are asserted, and of each verdict."""
    checkable = [line for line in lines if line.verdict != "not checkable"]
    asserted_ = [line for line in checkable if line.verdict != "not asserted"]
    by_verdict: dict[str, int] = {v: sum(line.verdict == v for line in lines) for v in SIGNS}
    return {
        "statements": len(lines), "checkable": len(checkable), "asserted": len(asserted_),
        **by_verdict,
    }  # fmt: skip


def _is_left(claim: Claim) -> bool:
    """Whether it could be asserted and is not; if not, nothing could ever check it."""
    return claim.unchecked.startswith(LEFT_TO_DO)


LEFT_TO_DO = "not yet"
"""How the reason of a claim begins that could be asserted and is not."""
