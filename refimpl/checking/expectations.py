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

    gpu = "NVIDIA H200"       # the device's name; * stands for anything
    capability = "==9.0"      # of a CUDA device
    cudnn = "==9.19.*"        # likewise cuda, rocm, onednn, mkl
    link = "https://…"        # a report, or a reproducer

What is expected to fail must fail: a check that passes despite an entry is a failure, and so is an
entry in force that matches no check of the run.

With ``kernel = "aten::mm"`` (or a layer: ``"LSTM"``) an entry is a *known deviation* of that
kernel. It needs no example and no check. A failure is excused only if the same check passes once
that kernel is computed in float64 on the CPU: so it excuses nothing else. It must be met with: a
whole run on its device and versions in which it excuses nothing is a failure, and so is one check
that it names, if that passes.
"""

from __future__ import annotations

import difflib
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from refimpl import environment
from refimpl.checking import brought
from refimpl.checking.brought import strange_keys
from refimpl.composition import is_device, parts_of
from refimpl.data import TIERS
from refimpl.errors import RefimplError
from refimpl.reading import why

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
    is a tier. ``file`` is the file with the entry. ``gpu`` is the device's name, ``capability`` its
    compute capability; ``cuda`` to ``mkl`` are conditions on versions of libraries. ``kernel``
    makes it a known deviation; ``link`` says where it is reported, or what reproduces it.
    """

    example: str | None
    check: str | None
    reason: str
    variant: str | None = None
    torch: str | None = None
    python: str | None = None
    device: str | None = None
    data: str | None = None
    file: Path = Path()
    gpu: str | None = None
    capability: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    rocm: str | None = None
    onednn: str | None = None
    mkl: str | None = None
    kernel: str | None = None
    link: str | None = None

    @property
    def in_force(self) -> bool:
        """Whether its conditions on versions hold in this process."""
        here = environment.libraries()
        return (
            _admits(self.torch, version("torch"))
            and _admits(self.python, platform.python_version())
            and all(_admits(getattr(self, key), here.get(name)) for key, name in LIBRARIES.items())
        )

    @property
    def deviation(self) -> str:
        """The known deviation that it is, as results and headers name it."""
        return ": ".join(dict.fromkeys((self.of, str(self.kernel))))

    @property
    def of(self) -> str:
        """What deviates, with its version: ``cuDNN 9.19``; else the kernel's name."""
        here = environment.libraries()
        for key, name in LIBRARIES.items():
            if getattr(self, key) is not None and name in here:
                return f"{name} {here[name].removesuffix('.0')}"
        return self.kernel or ""

    def matches(self, cell: Cell) -> bool:
        """Whether it is about this cell, whether or not it is in force."""
        return self.names(cell) and self.could_match(cell)

    def names(self, cell: Cell) -> bool:
        """Whether the cell has its example, check and variant, on any device and tier."""
        variant = cell.subject.variant.name if cell.subject.variant else None
        return (
            self.example in (None, cell.subject.example.name)
            and self.check in (None, cell.check.name)
            and self.variant in (None, variant)
        )

    def could_match(self, cell: Cell) -> bool:
        """Whether the cell is on the device and the tier that the entry is about."""
        execution = cell.subject.execution
        kind = execution.device.partition(":")[0]
        there = {*parts_of(execution.name), execution.device, kind}
        on_it = self.device is None or there.issuperset(parts_of(self.device))
        if self.gpu is not None:
            on_it = on_it and fnmatch(environment.device_name(execution.device), self.gpu)
        if self.capability is not None:
            found = environment.capability(execution.device)
            on_it = on_it and _admits(self.capability, found)
        return self.data in (None, cell.subject.tier) and on_it

    def __str__(self) -> str:
        named = (self.kernel, self.example, self.variant, self.check)
        about = " · ".join(part for part in named if part)
        return f"{about} ({self.reason})"


KEYS = tuple(f.name for f in fields(ExpectedFailure) if f.name != "file")
REQUIRED = ("example", "check", "reason")
OF_A_KERNEL = ("kernel", "reason", "link")
"""What an entry about a kernel must say; it need not name an example or a check."""

LIBRARIES = {
    "cudnn": "cuDNN", "cuda": "CUDA", "rocm": "ROCm", "onednn": "oneDNN", "mkl": "MKL",
}  # fmt: skip
"""Conditions on libraries, and what each is called, the one that most says first."""

VERSIONS = ("torch", "python", "capability", *LIBRARIES)


def _admits(specifier: str | None, found: str | None) -> bool:
    if specifier is None:
        return True
    return found is not None and SpecifierSet(specifier).contains(found, prereleases=True)


# --- reading -------------------------------------------------------------------------------------


def beside(source: Source) -> Path | None:
    """The file of expected failures that a plugin brings, or ``None`` if it brings none."""
    return brought.beside(source, FILE)


@cache
def read(path: Path) -> tuple[ExpectedFailure, ...]:
    """The entries of a file.

    Raises :class:`ExpectationsError`, which names the file and the entry, if it is not TOML, an
    entry lacks a key or has an unknown one, or a condition is invalid.
    """
    try:
        content = brought.content(path)
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
    return ExpectedFailure(**{"example": None, "check": None, **raw}, file=path)


def _wrong(raw: Any) -> Iterator[str]:
    if not isinstance(raw, dict):
        yield f"write it under [[{TABLE}]], found {raw!r}"
        return
    yield from strange_keys(raw, KEYS)
    for key in OF_A_KERNEL if "kernel" in raw else REQUIRED:
        if key not in raw:
            yield f"it has no {key}"
    for key, value in raw.items():
        if not isinstance(value, str) or not value.strip():
            yield f"{key} must be a non-empty text, found {value!r}"
    if isinstance(kernel := raw.get("kernel"), str) and not _can_be_repaired(kernel):
        yield (
            f"kernel = {kernel!r} is no kernel of this torch and no layer; write it like "
            "'aten::convolution_backward' or 'LSTM'"
        )
    for key in VERSIONS:
        try:
            SpecifierSet(raw.get(key, ""))
        except InvalidSpecifier:
            yield f"{key} = {raw[key]!r} is not a version condition; write it like '>=2.6'"
    if raw.get("data", TIERS[0]) not in TIERS:
        yield f"data = {raw['data']!r} is not a tier; there are: {', '.join(TIERS)}"


def _can_be_repaired(kernel: str) -> bool:
    from refimpl.parity.repair import can_be_repaired

    return can_be_repaired(kernel)


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
        if entry.example not in (None, *examples):
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
    own = [e for e in entries if e.in_force and e.matches(cell)]
    entry = next((e for e in own if e.kernel is None), None)
    if entry is None and result.outcome == "passed":  # one of a kernel may name a check, too
        entry = next((e for e in own if e.example is not None and e.check is not None), None)
    if entry is None and result.outcome == "failed":
        return _excused(result, cell, [e for e in own if e.kernel is not None])
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


def _excused(result: Result, cell: Cell, deviations: Sequence[ExpectedFailure]) -> Result:
    """A failure, or that it is one of known deviations and of nothing else.

    The check is made again with one of the kernels put right, and if that does not do, with all.
    """
    from refimpl.checking.checks import run_check
    from refimpl.parity.repair import repaired

    sets = [[each] for each in deviations] + ([[*deviations]] if len(deviations) > 1 else [])
    for each in sets:
        names = [str(entry.kernel) for entry in each]
        right = repaired(cell.subject.execution, names)
        again = run_check(replace(cell, subject=replace(cell.subject, execution=right)))
        if again.outcome == "passed":
            of = "; ".join(f"{entry.of}: {entry.reason} ({entry.link})" for entry in each)
            return replace(
                result, outcome="xfailed", reason=f"known deviation of {of}: {result.reason}",
                deviations=tuple(entry.deviation for entry in each),
            )  # fmt: skip
    if not deviations:
        return result
    names_said = ", ".join(dict.fromkeys(str(entry.kernel) for entry in deviations))
    return replace(result, reason=f"{result.reason}; it fails with {names_said} put right too")


def must_be_met(
    entries: Iterable[ExpectedFailure], cells: Sequence[Cell], examples: Collection[str]
) -> list[str]:
    """The known deviations that this run of ``cells`` must meet with, if they still hold.

    An entry of one example must be met where that example is run; one of any example only where all
    of them are, for which ``examples`` is empty. ``cells`` must be all that they have.
    """
    return sorted(
        {
            entry.deviation
            for entry in entries
            if entry.kernel is not None and entry.in_force
            and (not examples or entry.example in examples)
            and any(entry.matches(c) and not c.subject.execution.missing() for c in cells)
        }
    )  # fmt: skip


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
        if entry.example is None or entry.check is None:
            continue  # one of a kernel: whether it is reached shows only when it fails
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
    near = difflib.get_close_matches(entry.check or "", checks, n=1)
    if near:
        return f"did you mean the check {near[0]!r}?"
    return f"the example's checks are: {', '.join(checks)}"
