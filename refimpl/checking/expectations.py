"""Expected failures: data that says which check of which example fails, where, and why.

A plugin brings its own in TOML: ``expected-failures.toml`` in the folder of a plugin that is a
package, ``NAME.expected-failures.toml`` beside one that is a module ``NAME.py``. A run may bring
one too, for a device or a torch version under trial. An entry reads::

    [[expected-failure]]
    example = "my-example"
    check = "reaches-documented-figures"
    reason = "the optimizer divides by the batch size since then"

    # conditions; the entry is in force where all of them hold
    variant = "script"
    torch = ">=2.6"
    python = "<3.12"
    device = "cuda"
    data = "real"

What is expected to fail must fail: a check that passes despite an entry is a failure, and so is an
entry in force that matches no check of the run.
"""

from __future__ import annotations

import difflib
import platform
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from refimpl.composition import is_device, parts_of
from refimpl.data import TIERS
from refimpl.errors import RefimplError
from refimpl.reading import plain_text, require_shallow, why

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from refimpl.checking.checks import Cell, Result
    from refimpl.loading.discovery import Source
    from refimpl.loading.registry import Registry

FILE = "expected-failures.toml"
TABLE = "expected-failure"


class ExpectationsError(RefimplError):
    """A file of expected failures that is invalid."""


@dataclass(frozen=True)
class ExpectedFailure:
    """One entry. A condition that is ``None`` holds everywhere.

    ``torch`` and ``python`` are version specifiers such as ``">=2.6"``; ``device`` is a kind of
    device or the name of an execution, whose parts must all be among those of the cell's; ``data``
    is a tier. ``file`` is the file with the entry.
    """

    example: str
    check: str
    reason: str
    variant: str | None = None
    torch: str | None = None
    python: str | None = None
    device: str | None = None
    data: str | None = None
    file: Path = Path()

    @property
    def in_force(self) -> bool:
        """Whether its conditions on versions hold in this process."""
        return _admits(self.torch, version("torch")) and _admits(
            self.python, platform.python_version()
        )

    def matches(self, cell: Cell) -> bool:
        """Whether it is about this cell, whether or not it is in force."""
        return self.names(cell) and self.could_match(cell)

    def names(self, cell: Cell) -> bool:
        """Whether the cell has its example, check and variant, on any device and tier."""
        variant = cell.subject.variant.name if cell.subject.variant else None
        return (
            self.example == cell.subject.example.name
            and self.check == cell.check.name
            and self.variant in (None, variant)
        )

    def could_match(self, cell: Cell) -> bool:
        """Whether the cell is on the device and the tier that the entry is about."""
        execution = cell.subject.execution
        kind = execution.device.partition(":")[0]
        there = {*parts_of(execution.name), execution.device, kind}
        on_it = self.device is None or there.issuperset(parts_of(self.device))
        return self.data in (None, cell.subject.tier) and on_it

    def __str__(self) -> str:
        about = " · ".join(part for part in (self.example, self.variant, self.check) if part)
        return f"{about} ({self.reason})"


KEYS = tuple(f.name for f in fields(ExpectedFailure) if f.name != "file")
REQUIRED = ("example", "check", "reason")


def _admits(specifier: str | None, found: str) -> bool:
    return specifier is None or SpecifierSet(specifier).contains(found, prereleases=True)


# --- reading -------------------------------------------------------------------------------------


def beside(source: Source) -> Path | None:
    """The file of expected failures that a plugin brings, or ``None`` if it brings none."""
    if source.path is None:
        return None
    name = FILE if source.path.name == "__init__.py" else f"{source.path.stem}.{FILE}"
    path = source.path.with_name(name)
    return path if path.is_file() else None


@cache
def read(path: Path) -> tuple[ExpectedFailure, ...]:
    """The entries of a file.

    Raises :class:`ExpectationsError`, which names the file and the entry, if it is not TOML, an
    entry lacks a key or has an unknown one, or a condition is invalid.
    """
    try:
        content = tomllib.loads(plain_text(path))
        require_shallow(content)
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise ExpectationsError(f"{path} cannot be read as TOML: {why(error)}") from error
    strange = content.keys() - {TABLE}
    entries = content.get(TABLE, [])
    if strange or not isinstance(entries, list):
        found = sorted(strange) or [TABLE]
        raise ExpectationsError(
            f"{path} has {', '.join(found)}; write each entry under [[{TABLE}]]"
        )
    return tuple(_entry(path, number, raw) for number, raw in enumerate(entries, start=1))


def _entry(path: Path, number: int, raw: Any) -> ExpectedFailure:
    wrong = next(_wrong(raw), None)
    if wrong is not None:
        raise ExpectationsError(f"{path}, entry {number}: {wrong}")
    return ExpectedFailure(**raw, file=path)


def _wrong(raw: Any) -> Iterator[str]:
    if not isinstance(raw, dict):
        yield f"write it under [[{TABLE}]], found {raw!r}"
        return
    for key in sorted(raw.keys() - set(KEYS)):
        near = difflib.get_close_matches(key, KEYS, n=1)
        yield f"unknown key {key!r}; " + (
            f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(KEYS)}"
        )
    for key in REQUIRED:
        if key not in raw:
            yield f"it has no {key}"
    for key, value in raw.items():
        if not isinstance(value, str) or not value.strip():
            yield f"{key} must be a non-empty text, found {value!r}"
    for key in ("torch", "python"):
        try:
            SpecifierSet(raw.get(key, ""))
        except InvalidSpecifier:
            yield f"{key} = {raw[key]!r} is not a version condition; write it like '>=2.6'"
    if raw.get("data", TIERS[0]) not in TIERS:
        yield f"data = {raw['data']!r} is not a tier; there are: {', '.join(TIERS)}"


@dataclass(frozen=True)
class Gathered:
    """The entries of every plugin and of the run, and the faults found in files, by example."""

    entries: tuple[ExpectedFailure, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)


def gather(loaded: Registry, files: Iterable[Path] = ()) -> Gathered:
    """The entries of the plugins, each about its own examples, and those of the run's own files.

    A faulty file of a plugin is a problem of its examples. Raises :class:`ExpectationsError` if one
    of ``files`` is faulty.
    """
    entries = [entry for path in files for entry in read(path)]
    problems: dict[str, str] = {}
    owned: dict[Source, list[str]] = {}
    for name, registered in loaded.examples.items():
        owned.setdefault(registered.source, []).append(name)
    for source, names in owned.items():
        refused = [n for p in loaded.problems if p.origin == source.origin for n in p.examples]
        try:
            entries += _brought(source, [*names, *refused])
        except ExpectationsError as error:
            problems.update(dict.fromkeys(names, str(error)))
    return Gathered(tuple(entries), problems)


def _brought(source: Source, examples: Collection[str]) -> tuple[ExpectedFailure, ...]:
    """The entries that a plugin brings; one about another plugin's example is an error."""
    path = beside(source)
    entries = read(path) if path is not None else ()
    for entry in entries:
        if entry.example not in examples:
            raise ExpectationsError(
                f"{entry.file}: the entry for {entry.example!r} is not about an example of this "
                f"plugin, which has {', '.join(examples)}"
            )
    return entries


# --- judging -------------------------------------------------------------------------------------


def judged(result: Result, cell: Cell, entries: Iterable[ExpectedFailure]) -> Result:
    """A result adjusted to what was expected of its cell.

    An expected failure becomes ``xfailed``, with the entry's reason; an unexpected pass becomes a
    failure. A skip stays a skip.
    """
    entry = next((e for e in entries if e.in_force and e.matches(cell)), None)
    if entry is None or result.outcome == "skipped":
        return result
    if result.outcome == "failed":
        return replace(result, outcome="xfailed", reason=f"{entry.reason}: {result.reason}")
    return replace(
        result,
        outcome="failed",
        reason=f"passes, though {entry.file} expects it to fail ({entry.reason}); "
        "remove the entry, or narrow its conditions",
    )


def unmatched(
    entries: Iterable[ExpectedFailure], cells: Sequence[Cell], executions: Collection[str]
) -> Iterator[tuple[str, str]]:
    """The example and the fault, for each entry in force that matches no cell of a run.

    An entry is not reported if the run has nothing of its example, its tier or its device, nor if
    its check runs only on another device or tier: then its conditions do not hold here.
    ``executions`` are the names that a device may have besides those of torch's devices.
    """
    for entry in entries:
        own = [cell for cell in cells if cell.subject.example.name == entry.example]
        if not entry.in_force or any(entry.matches(cell) for cell in own):
            continue
        who = f"{entry.file}: the entry for {entry}"
        if not _is_device(entry.device, executions):
            known = ", ".join(sorted(executions))
            yield (
                entry.example,
                f"{who} has device {entry.device!r}, which is no device of torch nor {known}",
            )
        elif any(map(entry.could_match, own)) and not any(map(entry.names, own)):
            yield entry.example, f"{who} matches no check of this run; {_meant(entry, own)}"


def _is_device(name: str | None, executions: Collection[str]) -> bool:
    parts = () if name is None else parts_of(name)
    return all(part in executions or is_device(part) for part in parts)


def _meant(entry: ExpectedFailure, cells: Sequence[Cell]) -> str:
    """What the entry may have meant among its example's cells."""
    checks = sorted({cell.check.name for cell in cells})
    if entry.check in checks:
        variants_of = [cell.subject.variant for cell in cells if cell.check.name == entry.check]
        variants = dict.fromkeys(variant.name for variant in variants_of if variant is not None)
        return f"that check runs on {', '.join(variants) or 'the example as a whole'}"
    near = difflib.get_close_matches(entry.check, checks, n=1)
    if near:
        return f"did you mean the check {near[0]!r}?"
    return f"the example's checks are: {', '.join(checks)}"
