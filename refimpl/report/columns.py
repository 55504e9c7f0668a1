"""The columns of the matrix: environments, each with the runs that were made in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from packaging.version import InvalidVersion, Version

from refimpl.checking.checks import Result
from refimpl.checking.results import Results, ResultsError, read
from refimpl.errors import RefimplError

State = Literal["passed", "failed", "incomplete", "absent", "unreadable"]

SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Column:
    """One environment: Python, torch, device, tier and seeds, with everything run there.

    ``label`` is unique among the columns; ``names`` are the names of its files, which for a cell of
    the tox matrix is the cell's. ``trouble`` says why there are no runs, if there are none.
    """

    label: str
    names: tuple[str, ...]
    runs: tuple[Results, ...] = ()
    trouble: str = ""
    expected: bool = False

    @property
    def header(self) -> Mapping[str, Any]:
        """The header of its first run, empty where there is none."""
        return self.runs[0].header if self.runs else {}

    @property
    def environment(self) -> Mapping[str, Any]:
        """What its results were measured on."""
        found: Mapping[str, Any] = self.header.get("environment", {})
        return found

    @property
    def reseed(self) -> int:
        """What was added to the seed of each of its runs."""
        return _reseed(self.header)

    @cached_property
    def results(self) -> Mapping[str, Result]:
        """Every answer, by the id of its cell."""
        return {result.id: result for run in self.runs for result in run.checks}

    @property
    def state(self) -> State:
        """``passed`` only where every run came to its end and nothing in it failed."""
        if not self.runs:
            return "absent" if self.expected else "unreadable"
        if any(run.outcomes["failed"] for run in self.runs):
            return "failed"
        if any(not run.complete or run.not_checked for run in self.runs):
            return "incomplete"
        return "passed" if all(run.passed for run in self.runs) else "failed"

    @property
    def why(self) -> str:
        """The reason for the state, if it is not that checks failed."""
        if self.trouble:
            return self.trouble
        cut = [run.path.name for run in self.runs if not run.complete]
        if cut:
            return f"{', '.join(cut)} has no footer: the run died or is still running"
        return "; ".join(run.why_not_passed for run in self.runs if run.why_not_passed)

    @property
    def seconds(self) -> float:
        """How long its runs took, as far as they came to their end."""
        return sum(float(run.footer.get("seconds", 0.0)) for run in self.runs if run.footer)

    @property
    def order(self) -> tuple[Any, ...]:
        """Python, then torch, then device and tier, oldest run first."""
        return (
            not self.runs,
            _version(self.environment.get("python", "0")),
            _version(self.environment.get("packages", {}).get("torch") or "0"),
            str(self.header.get("device", "")),
            str(self.header.get("tier", "")),
            str(self.header.get("started", "")),
            self.names if self.runs else (),  # what was expected stands as it was given
        )


def columns(paths: Iterable[Path], expected: Sequence[str] = ()) -> tuple[Column, ...]:
    """The environments of these results files, and those that were expected and have none.

    A folder stands for the results files in it. Runs of one environment with different checks share
    a column; if they have a check in common, each gets its own. Raises :class:`ResultsError` if no
    file can be read at all, and :class:`RefimplError` if a path does not exist.
    """
    files = list(results_files(paths))
    found: list[Column] = []
    troubles: list[Column] = []
    for path in files:
        try:
            _place(found, read(path))
        except ResultsError as error:
            troubles.append(Column(path.stem, (path.stem,), trouble=str(error)))
    if troubles and not found and not expected:
        raise ResultsError(troubles[0].trouble)
    present = {path.stem for path in files}
    absent = [
        Column(name, (name,), trouble=f"no results file {name}{SUFFIX}", expected=True)
        for name in dict.fromkeys(expected)
        if name not in present
    ]
    return tuple(_distinct(sorted([*found, *troubles, *absent], key=lambda c: c.order)))


def columns_of(runs: Iterable[Results]) -> tuple[Column, ...]:
    """The environments of these runs."""
    found: list[Column] = []
    for run in runs:
        _place(found, run)
    return tuple(_distinct(sorted(found, key=lambda column: column.order)))


def names_meant(patterns: Iterable[str]) -> list[str]:
    """The names in texts such as ``py3{10,11}-torch26, lint``, where braces list alternatives."""
    words = (word for pattern in patterns for word in re.split(r"[\s,]+(?![^{}]*\})", pattern))
    return list(dict.fromkeys(name for word in words if word for name in _alternatives(word)))


def _alternatives(word: str) -> Iterator[str]:
    parts = [part.split(",") for part in re.split(r"[{}]", word)]
    yield from map("".join, product(*parts))


def results_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The results files that these paths name, each once, those of a folder by name."""
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise RefimplError(f"there is no results file {path}")
        inside = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        for file in inside:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _place(found: list[Column], run: Results) -> None:
    """Add a run to the column of its environment, or make one for it."""
    own = {check.id for check in run.checks}
    for number, column in enumerate(found):
        if _environment_key(column.runs[0]) == _environment_key(run) and own.isdisjoint(
            column.results
        ):
            found[number] = replace(
                column, names=(*column.names, run.path.stem), runs=(*column.runs, run)
            )
            return
    found.append(Column(_label(run), (run.path.stem,), (run,)))


def _environment_key(run: Results) -> str:
    """Everything of the environment that may change a result."""
    environment = {k: v for k, v in run.header.get("environment", {}).items() if k != "threads"}
    header = run.header
    return json.dumps([environment, header.get("device"), header.get("tier"), _reseed(header)])


def _reseed(header: Mapping[str, Any]) -> int:
    found: int = header.get("reseed", 0)
    return found


def _label(run: Results) -> str:
    environment = run.header.get("environment", {})
    python = ".".join(str(environment.get("python", "?")).split(".")[:2])
    torch = environment.get("packages", {}).get("torch") or "?"
    parts = [f"Python {python}", f"torch {torch}", str(run.header.get("device", "?"))]
    if run.header.get("tier") == "real":
        parts.append("real data")
    if by := _reseed(run.header):
        parts.append(f"reseed {by}")
    return " · ".join(parts)


def _distinct(found: Sequence[Column]) -> Iterator[Column]:
    """The columns; those with the same label are distinguished by time, or else by file."""
    for column in found:
        alike = [other for other in found if other.label == column.label]
        if len(alike) == 1:
            yield column
            continue
        starts = [moment(other.header.get("started", "")) for other in alike]
        telling = len(set(starts)) == len(starts) and all(starts)
        tail = moment(column.header["started"]) if telling else ", ".join(column.names)
        yield replace(column, label=f"{column.label} · {tail}")


def moment(started: str) -> str:
    """A time as it stands in a header, to the minute: ``2026-11-21 02:03``."""
    return str(started)[:16].replace("T", " ")


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")
