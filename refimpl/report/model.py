"""The content of the report: columns, rows and cells, and the findings drawn from them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from refimpl.checking.checks import Outcome, Result
from refimpl.report.changes import Since, moved, since
from refimpl.report.columns import Column
from refimpl.report.findings import Finding, findings
from refimpl.report.history import History, histories
from refimpl.report.plots import COLOURS, Drawn, Plot, Series, Strips, plot, strips
from refimpl.report.rerun import options_in, rerun_command
from refimpl.report.verdict import ERRATA, number_of, sentence, subject
from refimpl.training.curves import Curve

WORDS: Mapping[str, str] = {
    "passed": "passed",
    "failed": "failed",
    "skipped": "skipped",
    "xfailed": "failed as expected",
    "incomplete": "incomplete",
    "absent": "not run",
    "unreadable": "unreadable",
}
"""How outcomes and states are called."""

WORST_FIRST: tuple[Outcome, ...] = ("failed", "xfailed", "skipped", "passed")

BUDGET = "budget"

CellState = Literal["failed", "partial", "passed", "skipped", "absent"]
VerdictState = Literal["failed", "incomplete", "passed"]


# --- the matrix ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableCell:
    """One example in one environment."""

    anchor: str
    column: Column
    results: tuple[Result, ...]
    example: str
    base: TableCell | None = None

    @cached_property
    def telling(self) -> tuple[Result, ...]:
        """Its results that differ from those of the environment before it by what means anything.

        The others are shown there.
        """
        if self.base is None:
            return self.results
        shown = {result.id: result for result in self.base.results}
        return tuple(r for r in self.results if r.id not in shown or not _same(shown[r.id], r))

    def anchor_of(self, result: Result) -> str:
        """Where a result is shown: the same in every report, but for the environment."""
        if self.base is not None and result.id not in {r.id for r in self.telling}:
            return check_anchor(result)
        return check_anchor(result, "" if self.base is None else f".in-{slug(self.column.label)}")

    def again(self, result: Result) -> str:
        """The command that repeats one of its checks."""
        return rerun_command([result], options_in(self.column.header))

    @property
    def outcomes(self) -> Counter[str]:
        """How many checks passed, failed, were skipped, failed as expected."""
        return Counter(result.outcome for result in self.results)

    @property
    def state(self) -> CellState:
        """``partial`` if its run died: what passed so far does not count as a pass."""
        if self.outcomes["failed"]:
            return "failed"
        if not self.results:
            return "absent"
        if not all(run.complete for run in self.column.runs) or self.not_checked:
            return "partial"
        return "passed" if self.outcomes["passed"] + self.outcomes["xfailed"] else "skipped"

    @property
    def not_checked(self) -> bool:
        """Whether a check of this example has no record in a run that had to make it."""
        missed = (key for run in self.column.runs for key in run.not_checked)
        return any(key.startswith(f"{self.example}/") for key in missed)

    @property
    def why_absent(self) -> str:
        """Why it is empty."""
        if not self.column.runs:
            return "not run" if self.column.expected else "unreadable"
        if any(not run.complete for run in self.column.runs):
            return "not reached"
        return "not selected"

    @property
    def seconds(self) -> float:
        """How long its checks took."""
        return sum(result.seconds for result in self.results)

    @property
    def by_variant(self) -> Mapping[str, list[Result]]:
        """Its results that are shown, those of one variant together, what failed first."""
        groups: dict[str, list[Result]] = defaultdict(list)
        for result in self.telling:
            groups[result.variant].append(result)
        ordered = {name: sorted(own, key=_worst_first) for name, own in groups.items()}
        return dict(
            sorted(ordered.items(), key=lambda item: (_worst_first(item[1][0])[0], item[0]))
        )


def check_anchor(result: Result, where: str = "") -> str:
    """The anchor of a check, made of its id alone, so that bookmarks survive other runs."""
    parts = result.id.split("/")
    plain = [part if part == "-" else slug(part) for part in parts]
    odd = hashlib.sha256(result.id.encode()).hexdigest()[:8] if plain != parts else ""
    return f"check.{'.'.join(plain)}{odd and '-'}{odd}{where}"


def _same(one: Result, other: Result) -> bool:
    """Whether two answers to a check differ in nothing that means anything."""
    texts = [
        [
            (m.what, None if isinstance(m.measured, float) else m.measured, m.holds)
            for m in r.measurements
        ]
        for r in (one, other)
    ]
    return (
        one.outcome == other.outcome
        and (one.outcome == "failed" or one.reason == other.reason)
        and texts[0] == texts[1]
        and not any(moved(one, other))
    )


def _worst_first(result: Result) -> tuple[int, str, str]:
    return WORST_FIRST.index(result.outcome), result.check, result.execution


@dataclass(frozen=True)
class Row:
    """One example in all environments."""

    anchor: str
    example: str
    title: str
    document: str
    origin: str
    cells: tuple[TableCell, ...]
    plots: tuple[Plot, ...]
    legend: tuple[Key, ...]

    @property
    def shared_lines(self) -> bool:
        """Whether a drawing has a line that is of several colours of the legend."""
        return any(line.colour is None for plot in self.plots for line in plot.lines)


@dataclass(frozen=True)
class Key:
    """What a colour stands for in the drawings of an example."""

    colour: int
    dashed: bool
    name: str


# --- findings ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A finding, the environments that have it, the command to repeat it, and links to its checks.

    ``growth`` is how the error of one of its comparisons grew.
    """

    anchor: str
    finding: Finding
    columns: tuple[str, ...]
    again: str
    checks: tuple[tuple[Result, str], ...]
    growth: Plot | None


@dataclass(frozen=True)
class FirstDivergence:
    """Where a comparison first parted, and how the error grew up to there."""

    column: str
    result: Result
    where: str
    growth: Plot | None


@dataclass(frozen=True)
class Reason:
    """Why checks were skipped, or were expected to fail, and which."""

    reason: str
    results: tuple[tuple[str, Result], ...]

    @property
    def examples(self) -> list[str]:
        """The examples it is about."""
        return sorted({result.example for _, result in self.results})

    @property
    def columns(self) -> list[str]:
        """The environments it is about."""
        return list(dict.fromkeys(column for column, _ in self.results))

    @property
    def checks(self) -> list[tuple[Result, str]]:
        """Each check once, and its environments if these are not all."""
        where: dict[str, list[str]] = defaultdict(list)
        first = {result.id: result for _, result in reversed(self.results)}
        for column, result in self.results:
            where[result.id].append(column)
        every = self.columns
        return [(first[i], "" if own == every else ", ".join(own)) for i, own in where.items()]


@dataclass(frozen=True)
class ErratumRow:
    """Something a document says that no longer holds, in each environment.

    ``found`` has, for each column with runs, what the document is there (right or wrong) and
    whether that was expected; ``None`` where it was not tried.
    """

    example: str
    name: str
    says: str
    today: str
    since: str
    found: tuple[tuple[str, bool] | None, ...]


@dataclass(frozen=True)
class Verdict:
    """The overall result: a state, a headline and a sentence."""

    state: VerdictState
    headline: str
    sentence: str


@dataclass(frozen=True)
class Report:
    """Everything that the page and the summary show."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    verdict: Verdict
    against: tuple[Column, ...]
    since: tuple[Since, ...]
    findings: tuple[Found, ...]
    parity: tuple[tuple[Column, Strips], ...]
    divergences: tuple[FirstDivergence, ...]
    skips: tuple[Reason, ...]
    expected_failures: tuple[Reason, ...]
    errata: tuple[ErratumRow, ...]
    data_differences: tuple[tuple[str, Mapping[str, list[str]]], ...]
    histories: tuple[History, ...] = ()

    @property
    def ran(self) -> tuple[Column, ...]:
        """The environments in which something was run."""
        return tuple(column for column in self.columns if column.runs)

    @property
    def absent(self) -> tuple[Column, ...]:
        """The expected environments in which nothing was run."""
        return tuple(column for column in self.columns if column.state == "absent")

    @cached_property
    def changed(self) -> frozenset[str]:
        """The ids of the checks that something changed in."""
        lines = (line for since in self.since for line in since.telling)
        return frozenset(result.id for line in lines for result in line.results)

    @property
    def outcomes(self) -> Counter[str]:
        """The outcomes of every check in every environment."""
        total: Counter[str] = Counter()
        for column in self.columns:
            total.update(result.outcome for result in column.results.values())
        return total

    @property
    def checks(self) -> int:
        """How many checks were answered."""
        return sum(self.outcomes.values())

    @property
    def what(self) -> str:
        """On which data, and by which refimpl."""
        tiers = dict.fromkeys(str(column.header.get("tier", "?")) for column in self.ran)
        versions = dict.fromkeys(str(c.environment.get("refimpl", "?")) for c in self.ran)
        return f"{' and '.join(tiers)} data, refimpl {' and '.join(versions)}"

    @property
    def started(self) -> tuple[str, str]:
        """When the first and the last of the runs began."""
        starts = sorted(str(run.header.get("started", "")) for c in self.columns for run in c.runs)
        return (starts[0], starts[-1]) if starts else ("", "")


def report(
    columns: Sequence[Column], against: Sequence[Column] = (), history: Sequence[Column] = ()
) -> Report:
    """The report of these environments, compared with earlier ones."""
    rows = tuple(_rows(columns))
    found = tuple(_findings(columns, rows))
    return Report(
        columns=tuple(columns),
        rows=rows,
        verdict=_verdict(columns, found),
        against=tuple(against),
        since=since(_others(columns, against), against),
        findings=found,
        parity=tuple(_parity(columns)),
        divergences=tuple(_divergences(columns)),
        skips=tuple(_reasons(columns, "skipped")),
        expected_failures=tuple(_reasons(columns, "xfailed")),
        errata=tuple(_errata([column for column in columns if column.runs])),
        data_differences=tuple(_data_differences(columns)),
        histories=histories([*history, *columns]),
    )


def _others(columns: Sequence[Column], against: Sequence[Column]) -> list[Column]:
    """The columns that are not of the very runs that they are compared with."""
    earlier = {run.header.get("run") for column in against for run in column.runs}
    return [c for c in columns if not earlier & {run.header.get("run") for run in c.runs}]


# --- rows ----------------------------------------------------------------------------------------


def _rows(columns: Sequence[Column]) -> Iterator[Row]:
    names = sorted({result.example for column in columns for result in column.results.values()})
    taken = _Anchors()
    for name in names:
        about = _first(column.header.get("documents", {}).get(name) for column in columns) or {}
        place = " · ".join(str(about[key]) for key in ("document", "section") if about.get(key))
        anchor = taken.of(f"example.{slug(name)}")
        cells = tuple(_cells(anchor, name, columns))
        curves = tuple(_learning_curves(cells))
        yield Row(
            anchor,
            name,
            str(about.get("title", "")),
            place,
            str(_first(c.header.get("plugins", {}).get(name) for c in columns) or ""),
            cells,
            tuple(_drawings(curves)),
            tuple(_legend(curves)),
        )


class _Anchors:
    """Anchors, each given out once: names that look alike as an anchor are numbered."""

    def __init__(self) -> None:
        self.given: Counter[str] = Counter()

    def of(self, anchor: str) -> str:
        self.given[anchor] += 1
        return f"{anchor}-{self.given[anchor]}" if self.given[anchor] > 1 else anchor


def _cells(anchor: str, example: str, columns: Sequence[Column]) -> Iterator[TableCell]:
    base: TableCell | None = None
    taken = _Anchors()
    for column in columns:
        own = tuple(r for r in column.results.values() if r.example == example)
        at = taken.of(f"{anchor}.in-{slug(column.label)}")
        cell = TableCell(at, column, own, example, base)
        yield cell
        base = base or (cell if own else None)


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value), None)


def slug(text: str) -> str:
    """A text as a part of an anchor: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


# --- curves --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ResultCurve:
    """A curve, its result and column, and the name that its colour has in the legend."""

    column: Column
    result: Result
    curve: Curve
    key: str

    @property
    def name(self) -> str:
        """The variant, and the environment where there are several."""
        return self.key if self.key == self.result.variant else f"{self.result.variant}, {self.key}"


def _learning_curves(cells: Sequence[TableCell]) -> Iterator[_ResultCurve]:
    """The learning curves of an example, distinguished by environment, or else by variant."""
    found = [
        (cell.column, result, curve)
        for cell in cells
        for result in cell.results
        for curve in result.curves
        if curve.along == "epoch"
    ]
    several = len({column.label for column, _, _ in found}) > 1
    for column, result, curve in found:
        yield _ResultCurve(column, result, curve, column.label if several else result.variant)


def _colours(curves: Sequence[_ResultCurve]) -> dict[str, int]:
    return {key: n for n, key in enumerate(dict.fromkeys(each.key for each in curves))}


def _legend(curves: Sequence[_ResultCurve]) -> Iterator[Key]:
    for key, colour in _colours(curves).items():
        yield Key(colour % COLOURS, colour >= COLOURS, key)


def _drawings(curves: Sequence[_ResultCurve]) -> Iterator[Plot]:
    """One drawing for each figure."""
    colours = _colours(curves)
    for what in dict.fromkeys(each.curve.what for each in curves):
        own = [each for each in curves if each.curve.what == what]
        series = [_series(each.name, each.curve, colours[each.key]) for each in own]
        band = _first(_band(each.curve) for each in own)
        target = _first(_target(each.result, what) for each in own)
        drawing = plot(Drawn(what, "epoch", series, band, target))
        if drawing is not None:
            yield drawing


def _series(name: str, curve: Curve, colour: int) -> Series:
    return Series((name,), tuple(float(at) for at in curve.at), curve.values, colour)


def _band(curve: Curve) -> tuple[Sequence[float], Sequence[float], Sequence[float]] | None:
    if not curve.low or not curve.high:
        return None
    return tuple(float(at) for at in curve.at), curve.low, curve.high


def _target(result: Result, what: str) -> tuple[float, float] | None:
    """The range in which a check wants a figure to end."""
    for measured in result.measurements:
        if measured.what == what and measured.low is not None and measured.high is not None:
            return float(measured.low), float(measured.high)
    return None


# --- findings ------------------------------------------------------------------------------------


def _findings(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[Found]:
    """The findings of every environment; shared ones are listed once, the widest first."""
    found: dict[str, list[tuple[Column, Finding]]] = defaultdict(list)
    for column in columns:
        for finding in findings(column.results.values()):
            found[finding.sentence].append((column, finding))
    anchors = {
        (c.column.label, r.id): c.anchor_of(r) for row in rows for c in row.cells for r in c.results
    }
    widest = sorted(found.values(), key=lambda own: -max(len(f.results) for _, f in own))
    for number, own in enumerate(widest, start=1):
        column, finding = max(own, key=lambda pair: len(pair[1].results))
        yield Found(
            f"finding-{number}",
            finding,
            tuple(dict.fromkeys(where.label for where, _ in own)),
            rerun_command(finding.results, options_in(column.header)),
            tuple((r, anchors[column.label, r.id]) for r in finding.results),
            next(filter(None, map(_growth, finding.results)), None),
        )


def _parity(columns: Sequence[Column]) -> Iterator[tuple[Column, Strips]]:
    """The errors over their budgets of each environment that has any."""
    for column in columns:
        ratios: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for result in column.results.values():
            for measured in result.measurements:
                if measured.unit == BUDGET:
                    name = f"{result.variant} · {result.check} · {result.execution}"
                    ratios[result.example].append((name, float(measured.measured)))
        if ratios:
            yield column, strips(dict(sorted(ratios.items())))


def _divergences(columns: Sequence[Column]) -> Iterator[FirstDivergence]:
    for column in columns:
        for result in sorted(column.results.values(), key=lambda r: r.id):
            for measured in result.measurements:
                if measured.where:
                    yield FirstDivergence(column.label, result, measured.where, _growth(result))


def _growth(result: Result) -> Plot | None:
    curve = next((c for c in result.curves if c.along == "step"), None)
    if curve is None or len(curve.values) < 2:
        return None
    return plot(Drawn(curve.what, "step", [_series(result.variant, curve, 0)], limit=1.0))


def _reasons(columns: Sequence[Column], outcome: Outcome) -> Iterator[Reason]:
    """The reasons of what was skipped or was expected to fail, the most frequent first."""
    by_reason: dict[str, list[tuple[str, Result]]] = defaultdict(list)
    for column in columns:
        for result in column.results.values():
            if result.outcome == outcome:
                by_reason[result.reason].append((column.label, result))
    for reason, own in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])):
        yield Reason(reason, tuple(own))


def _errata(columns: Sequence[Column]) -> Iterator[ErratumRow]:
    stated: dict[tuple[str, str], Mapping[str, Any]] = {}
    found: dict[tuple[str, str], dict[str, tuple[str, bool]]] = defaultdict(dict)
    for column in columns:
        for example, about in column.header.get("documents", {}).items():
            for erratum in about.get("errata", ()):
                stated[example, str(erratum.get("name"))] = erratum
        for result in column.results.values():
            for measured in result.measurements if result.check == ERRATA else ():
                key = (result.example, measured.what)
                found[key][column.label] = (str(measured.measured), measured.holds)
    for example, name in sorted(stated.keys() | found.keys()):
        about = stated.get((example, name), {})
        yield ErratumRow(
            example,
            name,
            str(about.get("says", "")),
            str(about.get("today", "")),
            str(about.get("since", "")),
            tuple(found[example, name].get(column.label) for column in columns),
        )


def _data_differences(
    columns: Sequence[Column],
) -> Iterator[tuple[str, Mapping[str, list[str]]]]:
    """Data sets of one tier that are not the same everywhere: digest, and where it was found."""
    seen: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for column in columns:
        for named in sorted({r.data + f" {r.tier}" for r in column.results.values() if r.data}):
            name, digest, tier = named.rsplit(" ", 2)
            seen[f"{name} ({tier})"][digest].append(column.label)
    yield from ((name, dict(own)) for name, own in sorted(seen.items()) if len(own) > 1)


# --- the verdict ---------------------------------------------------------------------------------


def _verdict(columns: Sequence[Column], found: Sequence[Found]) -> Verdict:
    """The sentence of one environment, or how many of several do what the documents say."""
    states = Counter(column.state for column in columns)
    ran = [column for column in columns if column.runs]
    rest = [f"{states[s]} {WORDS[s]}" for s in ("incomplete", "unreadable", "absent") if states[s]]
    failed = bool(states["failed"] or states["unreadable"])
    state: VerdictState = "failed" if failed else "incomplete" if rest or not ran else "passed"
    if len(ran) == 1:
        column = ran[0]
        results = list(column.results.values())
        says = sentence(column.header, results, all(run.complete for run in column.runs))
        if column.state == "failed" and not found:
            says = f"{subject(column.header)}: the run failed. {column.why}."
        headline, _, more = says.partition(": ")
    else:
        good = states["passed"]
        headline = f"torch does what the documents say in {good} of {len(ran)} environments"
        counts: Counter[str] = sum((_outcomes(column) for column in ran), Counter())
        more = f"{number_of(len(found), 'finding')}; {counted(counts)}."
    if len(rest) > (states["incomplete"] > 0 and len(ran) == 1):
        more = f"{more} Of {number_of(len(columns), 'environment')}: {', '.join(rest)}."
    return Verdict(state, headline, more)


def _outcomes(column: Column) -> Counter[str]:
    return Counter(result.outcome for result in column.results.values())


def counted(outcomes: Mapping[str, int]) -> str:
    """``2 failed, 50 passed, 3 skipped``."""
    order = ("failed", "passed", "xfailed", "skipped")
    told = [f"{outcomes[name]:,} {WORDS[name]}" for name in order if outcomes.get(name)]
    return ", ".join(told) or "no check"
