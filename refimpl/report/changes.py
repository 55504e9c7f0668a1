"""What is different from an earlier run, the worst first.

A line says in words what changed; checks that changed for one cause share a line.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import median
from typing import Literal, get_args

from refimpl.checking.checks import Measurement, Result
from refimpl.checking.warned import Warned
from refimpl.report.columns import Column
from refimpl.report.findings import findings, listed
from refimpl.report.verdict import ERRATA, number_of

Kind = Literal[
    "no longer holds",
    "not checked any more",
    "holds again",
    "new or other failure",
    "figure moved",
    "new warning",
    "slower",
    "checked now",
    "not run this time",
]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""What can become of a check, the worst first."""

BAD: tuple[Kind, ...] = ("no longer holds", "not checked any more", "new or other failure")
ON_PURPOSE: tuple[Kind, ...] = ("checked now", "not run this time")
"""Kinds that follow from what was requested, and say nothing about torch."""

TITLES: Mapping[Kind, str] = {
    "no longer holds": "No longer holds",
    "not checked any more": "Not checked any more",
    "holds again": "Holds again",
    "new or other failure": "New or other failures",
    "figure moved": "Figures that moved beyond their resolution",
    "new warning": "New or stronger warnings",
    "slower": "Slower by more than noise",
    "checked now": "Checked now, not before",
    "not run this time": "Not run this time, on purpose",
}

NAMED: Mapping[Kind, int] = {"no longer holds": 3, "new or other failure": 2, "new warning": 1}
"""How many lines of a kind are spelt out in the sentence about what changed."""

BINS = 20
"""A figure with a range moved if it moved by more than one of so many parts of the range."""

RELATIVE = 1e-6
"""A figure without a range or a resolution moved if its six digits did."""

STRENGTH = ("PendingDeprecationWarning", "DeprecationWarning", "FutureWarning")
"""How near the end of a deprecated feature is."""

LIKE = 0.6
"""Two warnings of one file whose texts are so much alike are one warning."""

NOISE = 4.0
"""A check is slower if its time grew by so many times the typical deviation of all of them."""

SECONDS, FACTOR = 2.0, 1.5
"""And by at least this much: less is noticed by nobody."""


@dataclass(frozen=True)
class Line:
    """One thing that changed: in words, the figure, and the checks that show it.

    ``brief`` says it in a few words, for a sentence about all that changed.
    """

    kind: Kind
    says: str
    figure: str = ""
    results: tuple[Result, ...] = ()
    brief: str = ""


@dataclass(frozen=True)
class Since:
    """What changed in one column since the earlier one that it is compared with.

    ``causes`` are the other seeds and versions that may be behind it.
    """

    column: str
    earlier: str
    causes: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def counts(self) -> Counter[Kind]:
        """How many lines of each kind, the worst kind first."""
        return Counter(line.kind for line in self.lines)

    @property
    def by_kind(self) -> Mapping[Kind, list[Line]]:
        """The lines, by kind, the worst first."""
        found = {kind: [line for line in self.lines if line.kind == kind] for kind in KINDS}
        return {kind: own for kind, own in found.items() if own}

    @property
    def telling(self) -> list[Line]:
        """The lines that are not just a matter of what was requested."""
        return [line for line in self.lines if line.kind not in ON_PURPOSE]

    @property
    def sentence(self) -> str:
        """What changed, in a sentence; the worst is named."""
        if not self.telling:
            return "Nothing changed."
        told = []
        for kind, lines in self.by_kind.items():
            if kind not in ON_PURPOSE:
                named = [line.brief or line.says for line in lines[: NAMED.get(kind, 0)]]
                names = f" ({'; '.join(named)})" if named else ""
                told.append(f"{len(lines):,} {plural(kind, len(lines))}{names}")
        return f"Changed: {', '.join(told)}."


def plural(kind: Kind, count: int) -> str:
    """``2 figures moved``, ``1 no longer holds``."""
    if count == 1:
        return kind
    return {
        "no longer holds": "no longer hold",
        "holds again": "hold again",
        "new or other failure": "new or other failures",
        "figure moved": "figures moved",
        "new warning": "new warnings",
    }.get(kind, kind)


def since(now: Sequence[Column], then: Sequence[Column]) -> tuple[Since, ...]:
    """What changed in each column that has an earlier one to be compared with."""
    pairs = ((column, counterpart(column, then)) for column in now if column.runs)
    return tuple(_since(new, old) for new, old in pairs if old is not None)


def counterpart(column: Column, earlier: Sequence[Column]) -> Column | None:
    """The earlier column most like this one: of its device and tier, then seeds, torch, Python.

    The latest of them where several are as like. ``None`` where none is of its device and tier.
    """
    candidates = [
        other
        for other in earlier
        if other.runs and all(_fact(other, k) == _fact(column, k) for k in ("device", "tier"))
    ]

    def likeness(other: Column) -> tuple[object, ...]:
        return (
            other.reseed == column.reseed,
            torch_of(other) == torch_of(column),
            _minor(other) == _minor(column),
            str(other.header.get("started", "")),
        )

    return max(candidates, key=likeness, default=None)


def _fact(column: Column, key: str) -> object:
    return column.header.get(key)


def torch_of(column: Column) -> str:
    """The version of torch that a column was measured with, without its build."""
    found = str(column.environment.get("packages", {}).get("torch") or "?")
    return found.partition("+")[0]


def _minor(column: Column) -> list[str]:
    return str(column.environment.get("python", "")).split(".")[:2]


def _since(new: Column, old: Column) -> Since:
    makers = (
        _errata, _no_longer, _not_checked, _again, _failures, _moved, _warnings, _slower,
        _requested,
    )  # fmt: skip
    lines = [line for make in makers for line in make(new, old)]
    ordered = sorted(lines, key=lambda line: KINDS.index(line.kind))
    return Since(new.label, old.label, tuple(_causes(new, old)), tuple(ordered))


# --- what holds and what fails -------------------------------------------------------------------


def _both(new: Column, old: Column) -> Iterator[tuple[Result, Result]]:
    """The checks that both have: before and after."""
    for key, after in new.results.items():
        if key in old.results:
            yield old.results[key], after


def _errata(new: Column, old: Column) -> Iterator[Line]:
    """Statements of the documents that are right with one of the two and wrong with the other."""
    for before, after in _both(new, old):
        if after.check != ERRATA:
            continue
        was = {m.what: str(m.measured) for m in before.measurements}
        for measured in after.measurements:
            found = (was.get(measured.what), str(measured.measured))
            if found in (("right", "wrong"), ("wrong", "right")):
                gone = found[1] == "wrong"
                says = (
                    f"{measured.what}: holds with torch {torch_of(old)}, gone with {torch_of(new)}"
                    if gone
                    else f"{measured.what}: holds again with torch {torch_of(new)}"
                )
                expected = "an erratum that the plugin lists" if measured.holds else after.reason
                kind: Kind = "no longer holds" if gone else "holds again"
                yield Line(kind, f"{says} ({after.example})", expected, (after,), says)


def _no_longer(new: Column, old: Column) -> Iterator[Line]:
    """Checks that passed and fail now, those of one cause together."""
    lost = {
        after.id
        for before, after in _both(new, old)
        if before.outcome == "passed" and after.outcome == "failed"
    }
    for finding in findings(new.results.values()):
        own = tuple(result for result in finding.results if result.id in lost)
        if own:
            yield Line(
                "no longer holds", f"{finding.sentence} ({finding.extent})", finding.figure, own
            )
    for before, after in _both(new, old):
        if before.outcome == "passed" and after.outcome == "xfailed":
            yield Line("no longer holds", f"{_name(after)}: expected", after.reason, (after,))


def _again(new: Column, old: Column) -> Iterator[Line]:
    """Checks that failed and pass now, those of one example together."""
    won: dict[str, list[Result]] = defaultdict(list)
    for before, after in _both(new, old):
        if before.outcome in ("failed", "xfailed") and after.outcome == "passed":
            won[after.example].append(after)
    for example, own in sorted(won.items()):
        yield Line("holds again", f"{example}: {_some(own)}", "", tuple(own))


def _failures(new: Column, old: Column) -> Iterator[Line]:
    """Failures that were not there, or that were other ones, those of one cause together."""
    earlier = {finding.sentence for finding in findings(old.results.values())}
    for finding in findings(new.results.values()):
        own = tuple(
            result
            for result in finding.results
            if result.id not in old.results
            or old.results[result.id].outcome in ("skipped", "xfailed")
            or (old.results[result.id].outcome == "failed" and finding.sentence not in earlier)
        )
        if own:
            says = f"{finding.sentence} ({finding.extent})"
            yield Line("new or other failure", says, finding.figure, own)


# --- what was checked ----------------------------------------------------------------------------


def _not_checked(new: Column, old: Column) -> Iterator[Line]:
    """Checks that should have been made, and were not: skipped now, or gone."""
    skipped: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for before, after in _both(new, old):
        if before.outcome != "skipped" and after.outcome == "skipped":
            skipped[after.example, after.reason].append(after)
    for (example, reason), own in sorted(skipped.items()):
        yield Line("not checked any more", f"{example}: {_some(own)}", reason, tuple(own))
    gone: dict[str, list[Result]] = defaultdict(list)
    for key, before in old.results.items():
        if key not in new.results and _requested_in(new, before):
            gone[before.example].append(before)
    cut = [run.path.name for run in new.runs if not run.complete]
    if cut and gone:
        missing = tuple(result for own in gone.values() for result in own)
        says = f"{listed(cut)} ends early: {number_of(len(missing), 'check')} of before are missing"
        yield Line("not checked any more", says, "", missing)
        return
    for example, own in sorted(gone.items()):
        yield Line("not checked any more", f"{example}: {_some(own)}", "", tuple(own))


def _requested(new: Column, old: Column) -> Iterator[Line]:
    """What only one of the two was requested to check."""
    added: dict[str, list[Result]] = defaultdict(list)
    for key, after in new.results.items():
        before = old.results.get(key)
        if after.outcome in ("passed", "xfailed") and (
            before is None or before.outcome == "skipped"
        ):
            added[after.example].append(after)
    for example, own in sorted(added.items()):
        yield Line("checked now", f"{example}: {_some(own)}", "", tuple(own))
    left_out = Counter(
        before.example
        for key, before in old.results.items()
        if key not in new.results and not _requested_in(new, before)
    )
    for example, count in sorted(left_out.items()):
        yield Line("not run this time", f"{example}: {number_of(count, 'check')}")


def _requested_in(column: Column, result: Result) -> bool:
    """Whether a column's runs were requested to make this check."""
    return any(_requests(run.header, result) for run in column.runs)


def _requests(header: Mapping[str, object], result: Result) -> bool:
    only = header.get("only") or {}
    assert isinstance(only, Mapping)
    wanted: tuple[tuple[object, str], ...] = (
        (header.get("examples"), result.example),
        (only.get("variants"), result.variant),
        (only.get("checks"), result.check),
        (only.get("cells"), result.id),
    )
    return all(not names or name in names for names, name in wanted)  # type: ignore[operator]


# --- figures, warnings, seconds ------------------------------------------------------------------


def moved(before: Result, after: Result) -> Iterator[tuple[float, Measurement, Measurement]]:
    """Each figure that moved by more than its resolution: by how much of it, before and after."""
    was = _numbers(before.measurements)
    for what, now in _numbers(after.measurements).items():
        if what in was:
            values = float(was[what].measured), float(now.measured)
            by = abs(values[1] - values[0]) / _resolution(now, values)
            if by > 1 and f"{values[0]:.6g}" != f"{values[1]:.6g}":
                yield by, was[what], now


def _moved(new: Column, old: Column) -> Iterator[Line]:
    """Figures that moved by more than their resolution, the furthest first."""
    found: list[tuple[float, Line]] = []
    for before, after in _both(new, old):
        for by, was, now in moved(before, after):
            says = f"{_name(after)}: {now.what} {was.measured:.6g} → {now.measured:.6g}"
            found.append((by, Line("figure moved", says, now.limit, (after,))))
    yield from (line for _, line in sorted(found, key=lambda pair: -pair[0]))


def _numbers(measurements: Sequence[Measurement]) -> Mapping[str, Measurement]:
    """The finite figures of a check that are no counts or statements."""
    return {
        m.what: m
        for m in measurements
        if isinstance(m.measured, float) and math.isfinite(m.measured)
    }


def _resolution(measured: Measurement, values: tuple[float, float]) -> float:
    """By how much a figure must move to mean anything.

    What a measurement says of itself; an error within its budget means nothing; else a part of
    the range, or the digits shown.
    """
    if measured.resolution is not None:
        return max(measured.resolution, 1e-300)
    if measured.unit == "budget":
        return 1.0
    if measured.low is not None and measured.high is not None and measured.high > measured.low:
        return (measured.high - measured.low) / BINS
    return max(RELATIVE * max(map(abs, values)), 1e-300)


def warnings_of(results: Iterable[Result]) -> dict[Warned, list[Result]]:
    """Each warning once, with the checks that raised it."""
    found: dict[Warned, list[Result]] = defaultdict(list)
    for result in results:
        for warned in result.warnings:
            found[warned].append(result)
    return found


def _warnings(new: Column, old: Column) -> Iterator[Line]:
    """Warnings that were not raised before in any check, or that became stronger."""
    earlier = warnings_of(old.results.values())
    ordered = sorted(
        warnings_of(new.results.values()).items(),
        key=lambda pair: (-_strength(pair[0]), len(pair[0].text), pair[0]),
    )
    for warned, own in ordered:
        alike = [other for other in earlier if _alike(warned, other)]
        if warned.category in (other.category for other in alike):
            continue
        was = max(alike, key=_strength, default=None)
        if was is not None and _strength(was) > _strength(warned):
            continue
        became = f"{was.category} → {warned.category}" if was else warned.category
        where = f"{warned.origin}, in {own[0].example}"
        brief = f"{became}: {warned.text.partition('. ')[0].rstrip('.')}"
        yield Line("new warning", f"{became}: {warned.text}", where, tuple(own), brief)


def _alike(one: Warned, other: Warned) -> bool:
    return one.text == other.text or (
        one.origin == other.origin and SequenceMatcher(None, one.text, other.text).ratio() >= LIKE
    )


def _strength(warned: Warned) -> int:
    return STRENGTH.index(warned.category) if warned.category in STRENGTH else -1


def _slower(new: Column, old: Column) -> Iterator[Line]:
    """Checks that took longer than the spread of all of them explains, on the same machine."""
    if _machine(new) != _machine(old):
        return
    # What fails is looked at longer, to say why.
    pairs = [
        (b, a)
        for b, a in _both(new, old)
        if min(b.seconds, a.seconds) >= 0.2 and b.outcome == a.outcome == "passed"
    ]
    if len(pairs) < 10:
        return  # too few to know the noise by
    grew = [math.log(after.seconds / before.seconds) for before, after in pairs]
    middle = median(grew)
    deviation = median(abs(value - middle) for value in grew)
    for (before, after), value in sorted(zip(pairs, grew, strict=True), key=lambda p: -p[1]):
        usual = before.seconds * math.exp(middle)
        far = value - middle > max(NOISE * deviation, math.log(FACTOR))
        if far and after.seconds - usual > SECONDS:
            says = f"{_name(after)}: {before.seconds:.1f} s → {after.seconds:.1f} s"
            yield Line("slower", says, f"the others took {math.exp(middle):.2g} times as long")


def _machine(column: Column) -> tuple[object, ...]:
    workers = column.header.get("workers") or {}
    own = (column.environment.get(name) for name in ("machine", "cpus", "platform"))
    return (*own, workers.get("count"), workers.get("threads"))


# --- causes --------------------------------------------------------------------------------------


def _causes(new: Column, old: Column) -> Iterator[str]:
    """``name before → after`` for the seeds and for each version, where they are others.

    And the earlier files that end early: what they lack seems new.
    """
    for run in old.runs:
        if not run.complete:
            yield f"{run.path.name} ends early"
    if new.reseed != old.reseed:
        yield f"reseed {old.reseed} → {new.reseed}"
    now, then = _all_versions(new), _all_versions(old)
    for name in sorted(now.keys() | then.keys(), key=lambda name: (name != "torch", name)):
        if now.get(name) != then.get(name):
            yield f"{name} {then.get(name) or 'none'} → {now.get(name) or 'none'}"


def _all_versions(column: Column) -> dict[str, str | None]:
    environment = column.environment
    own = {name: environment.get(name) for name in ("python", "refimpl", "cuda")}
    return {**environment.get("packages", {}), **own}


def _name(result: Result) -> str:
    parts = (result.example, result.variant, result.check)
    return " · ".join(part for part in parts if part != "-")


def _some(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(r.check for r in results))
    told = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return f"{number_of(len(results), 'check')} ({told})"
