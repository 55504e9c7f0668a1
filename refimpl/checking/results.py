"""The results file: JSON Lines with a header, a record for each check, and a footer.

Schema 2. Every line is an object with ``"$report_type"``:

``header``
    ``schema``, ``run`` (an id), ``process``, ``started`` (UTC), ``tier``, ``device``, ``reseed``,
    ``cells`` (the keys of all checks to be made), ``examples``
    selected, ``environment``, ``workers``, ``data`` (digests), ``documents``, ``plugins`` (origin
    of each example) and ``problems`` of plugins.
``check``
    the fields of :class:`refimpl.checking.checks.Result`; its key is example, variant, check,
    execution and tier, never pytest's node id, which differs between a checkout and a wheel.
``footer``
    ``run``, ``exit_status``, ``seconds``, ``peak_mib``, the counts of outcomes, and ``digest``: the
    sha256 of all lines before it.

A file without a footer is from a run that died: :func:`read` reads it as incomplete, and nothing
takes it for a pass.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from refimpl.checking.checks import VERDICTS, Measurement, Outcome, Result
from refimpl.composition import CPU, named_in_results, parts_of
from refimpl.errors import RefimplError
from refimpl.reading import Shape, ShapeError, parsed, plain_text, shaped, why
from refimpl.tiers import TIERS, Tier

SCHEMA = 2
HEADER, CHECK, FOOTER = "header", "check", "footer"
KINDS = (HEADER, CHECK, FOOTER)

NOT_IN_JSON = ("nan", "inf", "-inf")
"""How the numbers that JSON does not have stand in the file."""


class ResultsError(RefimplError):
    """The file is not a results file, is damaged, or has another schema."""


@dataclass(frozen=True)
class Environment:
    """The shape of a header's ``environment``."""

    python: str = ""
    refimpl: str = ""
    platform: str = ""
    packages: dict[str, str | None] = field(default_factory=dict)
    threads: int | None = None
    precision: dict[str, str] = field(default_factory=dict)
    cuda: str | None = None
    libraries: dict[str, str] = field(default_factory=dict)
    driver: str | None = None
    clocks: str | None = None
    devices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Workers:
    """The shape of a header's ``workers``."""

    count: int = 0
    threads: int | None = None
    gpus: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Document:
    """The shape of what a header says of each example."""

    title: str = ""
    document: str = ""
    section: str = ""
    errata: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Header:
    """The shape of a header, as far as anyone reads it."""

    run: str
    tier: Tier
    schema: int
    started: str = ""
    device: str = ""
    reseed: int = 0
    examples: list[str] = field(default_factory=list)
    only: dict[str, list[str]] = field(default_factory=dict)
    cells: list[str] | None = None
    process: int = 0
    environment: Environment = field(default_factory=Environment)
    capabilities: dict[str, str] = field(default_factory=dict)
    deviations: list[str] = field(default_factory=list)
    workers: Workers = field(default_factory=Workers)
    data: dict[str, str] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Footer:
    """The shape of a footer."""

    run: str
    exit_status: int
    digest: str
    seconds: float = 0.0
    peak_mib: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    xfailed: int = 0
    cells: list[str] | None = None


@dataclass(frozen=True)
class Results:
    """A run, as read from its results file."""

    path: Path
    header: Mapping[str, Any]
    checks: tuple[Result, ...]
    footer: Mapping[str, Any] | None

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return self.footer is not None

    @property
    def outcomes(self) -> Counter[str]:
        """How many checks there are of each outcome."""
        return Counter(result.outcome for result in self.checks)

    @property
    def expected(self) -> tuple[str, ...] | None:
        """The keys of the checks that the run had to make; ``None`` if the file does not say."""
        given = self.header.get("cells") or (self.footer or {}).get("cells")
        return tuple(map(_key_today, given)) if given else None

    @cached_property
    def not_checked(self) -> tuple[str, ...]:
        """The keys of the checks that have no record, whatever the reason."""
        there = {result.id for result in self.checks}
        return tuple(key for key in self.expected or () if key not in there)

    @property
    def not_run(self) -> tuple[str, ...]:
        """The examples that were asked for by name, and of which every check was skipped."""
        run = {r.example for r in self.checks if r.outcome != "skipped" and r.check not in VERDICTS}
        return tuple(name for name in self.header.get("examples", ()) if name not in run)

    @property
    def passed(self) -> bool:
        """Whether the run is complete, every check has a record, and nothing failed.

        Some check must have passed, and some of every example that was asked for by name have run.
        """
        return (
            self.footer is not None
            and self.footer["exit_status"] == 0
            and self.outcomes["failed"] == 0
            and not self.why_not_passed
        )

    @property
    def why_not_passed(self) -> str:
        """Why a run in which no check failed is no pass all the same; empty if there is no reason.

        A run without its end has none: it is incomplete.
        """
        if self.footer is None:
            return ""
        if self.expected is None:
            return f"{self.path.name} does not say which checks were to be made"
        if missed := self.not_checked:
            more = f" and {len(missed) - 1:,} more" if len(missed) > 1 else ""
            count = f"{len(missed):,} of {len(self.expected):,} checks were not run"
            return f"{count}: {missed[0]}{more}"
        if self.outcomes["failed"]:
            return ""
        if self.not_run:
            return f"no check of {', '.join(self.not_run)} was run: all of them were skipped"
        if not self.answered:
            return f"no check passed in {self.path.name}"
        if self.answered == (here := len(elsewhere(self.header, self.checks))):
            device = self.header["device"]
            return f"nothing was checked on {device}: {here:,} checks passed, all on the CPU"
        if gone := not_met(self.header, self.checks):
            return (
                f"{self.path.name}: the known deviation {gone[0]} was not met with, though its "
                "device and versions are these; remove its entry"
            )
        if status := self.footer["exit_status"]:
            return f"{self.path.name}: pytest ended with status {status}"
        return ""

    @property
    def answered(self) -> int:
        """How many checks ended as they should, without those that judge a plugin as a whole."""
        return sum(
            result.outcome in ("passed", "xfailed") and result.check not in VERDICTS
            for result in self.checks
        )


def elsewhere(header: Mapping[str, Any], results: Iterable[Result]) -> list[Result]:
    """What passed on the CPU in a run on another device: facts are computed there on any."""
    if header.get("device", CPU.name) == CPU.name:
        return []
    return [
        r for r in results
        if r.outcome in ("passed", "xfailed") and r.check not in VERDICTS
        and parts_of(r.execution)[0] == CPU.name
    ]  # fmt: skip


def not_met(header: Mapping[str, Any], results: Iterable[Result]) -> list[str]:
    """The known deviations that a complete run had to meet with, and did not."""
    met = {name for result in results for name in result.deviations}
    return [name for name in header.get("deviations") or () if name not in met]


def _key_today(key: str) -> str:
    """A key with the name that its execution has today."""
    *before, execution, tier = key.split("/")
    return "/".join((*before, named_in_results(execution), tier))


def part_of(path: Path) -> Path:
    """Where the results of a run are until it has come to its end."""
    return path.with_name(path.name + ".part")


def result_from(record: Mapping[str, Any]) -> Result:
    """A result from its record. Fields that this version does not know are ignored.

    Raises :class:`~refimpl.reading.ShapeError` if it is no record of a check, or says that it
    passed without a measurement, or with one that does not hold.
    """
    result = shaped(_with_numbers(record), Result)
    result = replace(result, execution=named_in_results(result.execution))
    if fault := next(_faults(result), ""):
        raise ShapeError(fault)
    return result


def _with_numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with NaN and the infinities, which are text in the file, as numbers."""
    numbers = dict(record)
    measured = ("low", "high", "resolution", "place")
    for many, names in (("measurements", measured), ("curves", ("values", "low", "high"))):
        if isinstance(record.get(many), list):
            numbers[many] = [
                {k: _number(v) if k in names else v for k, v in own.items()}
                if isinstance(own, dict)
                else own
                for own in record[many]
            ]
    return numbers


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(own) for own in value]
    if isinstance(value, dict):  # a place, whose two values may be any number
        return {k: _number(own) if k in ("found", "expected") else own for k, own in value.items()}
    return float(value) if isinstance(value, str) and value in NOT_IN_JSON else value


def _faults(result: Result) -> Iterator[str]:
    """What of a result contradicts itself."""
    if not all((result.example, result.variant, result.check, result.execution)):
        yield f"{result.id} has an empty name"
    if result.tier not in TIERS:
        yield f"tier: {result.tier!r} is not one of {', '.join(TIERS)}"
    if not 0 <= result.seconds < math.inf:
        yield f"seconds: {result.seconds} is no duration"
    if result.outcome == "passed" and not result.measurements:
        yield f"{result.id} passed, and has no measurement"
    for measurement in result.measurements:
        if result.outcome == "passed" and not measurement.holds:
            yield f"{result.id} passed, and {measurement.what!r} does not hold"
        if measurement.holds and _is_outside(measurement):
            yield f"{result.id}: {measurement.what!r} holds, and is outside its limit"
    if result.outcome in ("skipped", "xfailed") and not result.reason:
        yield f"{result.id} is {result.outcome} without a reason"
    for curve in result.curves:
        lengths = {len(curve.at), len(curve.values), len(curve.low), len(curve.high)} - {0}
        if len(lengths) != 1 or len(curve.at) != len(curve.values):
            yield f"{result.id}: the curve of {curve.what!r} has not one value for each place"


def _is_outside(measurement: Measurement) -> bool:
    """Whether a number is outside its limit; where another rule decides, the limit says so."""
    low, high = measurement.low, measurement.high
    at_most = f"≤ {high:.6g}" if high is not None and low is None else None
    between = f"{low:.10g} … {high:.10g}" if high is not None and low is not None else None
    if measurement.limit not in (at_most, between):
        return False
    value = _number(measurement.measured)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return True
    return not (-math.inf if low is None else low) <= value <= (math.inf if high is None else high)


def read(path: Path) -> Results:
    """Read a results file; one without a footer is read as incomplete.

    Raises :class:`ResultsError`, which names the line, if one does not follow the schema (except
    for a last line that was cut short) or contradicts itself, if a check is recorded twice, if
    there is more than one run, or if the footer's counts are not those of the checks.
    """
    try:
        content = plain_text(path)
    except (OSError, ShapeError) as error:
        raise ResultsError(f"{path} cannot be read as a results file: {why(error)}") from error
    lines = list(_lines(path, content))
    if not lines or lines[0].kind != HEADER:
        raise ResultsError(f"{path} is not a results file of refimpl: it begins with no header")
    header = lines[0].record
    if header.get("schema") != SCHEMA or isinstance(header.get("schema"), bool):
        raise ResultsError(
            f"{path} has results schema {header.get('schema')!r}, this refimpl reads {SCHEMA}"
        )
    lines[0].shaped(Header)
    checks = tuple(line.result() for line in lines if line.kind == CHECK)
    _require_unique(path, checks)
    return Results(path, header, checks, _footer(path, content, lines, checks))


@dataclass(frozen=True)
class _Line:
    """One record and where it is."""

    path: Path
    number: int
    record: Mapping[str, Any]

    @property
    def kind(self) -> Any:
        return self.record.get("$report_type")

    def shaped(self, shape: type[Shape]) -> Shape:
        try:
            return shaped(self.record, shape)
        except ShapeError as error:
            raise self.damaged(error) from error

    def result(self) -> Result:
        try:
            return result_from(self.record)
        except ShapeError as error:
            raise self.damaged(error) from error

    def damaged(self, error: ShapeError) -> ResultsError:
        kind = f"a damaged {self.kind} record" if self.kind in KINDS else "a damaged record"
        return ResultsError(f"{self.path}, line {self.number}: {kind}: {error}")


def _footer(
    path: Path, content: str, lines: Sequence[_Line], checks: Iterable[Result]
) -> Mapping[str, Any] | None:
    kinds = [line.kind for line in lines]
    if kinds.count(HEADER) > 1 or FOOTER in kinds[:-1]:
        raise ResultsError(f"{path} has more than one run in it, or something after its end")
    if kinds[-1] != FOOTER:
        return None
    lines[-1].shaped(Footer)
    footer = lines[-1].record
    if footer["run"] != lines[0].record["run"]:
        raise ResultsError(f"{path} begins with one run and ends with another")
    found = Counter(result.outcome for result in checks)
    for outcome in get_args(Outcome):
        if footer.get(outcome, 0) != found[outcome]:
            raise ResultsError(
                f"{path} counts {footer.get(outcome, 0)} {outcome} but has {found[outcome]}: "
                "lines of it are lost"
            )
    if footer["digest"] != digest_of(content):
        raise ResultsError(f"{path} does not have the digest that it states: it was changed")
    return footer


def digest_of(content: str) -> str:
    """The digest that the footer states: that of every line before it."""
    before, _, _ = content.rstrip("\n").rpartition("\n")
    return hashlib.sha256(f"{before}\n".encode()).hexdigest()


def _lines(path: Path, content: str) -> Iterator[_Line]:
    whole, _, cut_short = content.rpartition("\n")
    lines = whole.split("\n") if whole else []
    for number, line in enumerate([*lines, *([cut_short] if cut_short else [])], start=1):
        try:
            record = parsed(line)
        except ShapeError as error:
            if number > len(lines):
                return  # cut short while it was written, as the missing footer shows
            raise ResultsError(f"{path}, line {number}: {error}") from error
        if not isinstance(record, dict):
            raise ResultsError(f"{path}, line {number}: not an object")
        yield _Line(path, number, record)


def _require_unique(path: Path, checks: Iterable[Result]) -> None:
    twice = [key for key, count in Counter(c.id for c in checks).items() if count > 1]
    if twice:
        raise ResultsError(f"{path} has {twice[0]} more than once")
