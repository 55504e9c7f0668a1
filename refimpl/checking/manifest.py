"""The manifest: the committed list of checks that each example of this distribution must get.

If a check silently stopped applying (a fact was lost, a file was not installed), the run would stay
green although it proves less. ``fixtures/manifest.json`` lists, for each variant of each example,
its checks and their tiers. A run that lacks one of them fails. New checks are accepted; they are
required once ``refimpl manifest --update`` has added them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

from refimpl.checking.checks import Cell
from refimpl.composition import question_of
from refimpl.contract import Execution
from refimpl.data import Tier
from refimpl.errors import RefimplError
from refimpl.reading import ShapeError, decoded, plain_text, why
from refimpl.writing import write_text

Manifest: TypeAlias = Mapping[str, Mapping[str, tuple[Tier, ...]]]
"""``example/variant`` → check (with the execution, for checks about executions) → tiers."""


class ManifestError(RefimplError):
    """The manifest cannot be read."""


def path() -> Path:
    """The path of the manifest, found by the name of the package that contains it."""
    return Path(str(files("refimpl.fixtures"))) / "manifest.json"


def read(file: Path) -> Manifest:
    """The manifest in ``file``. Raises :class:`ManifestError` if it is damaged."""
    restore = "restore it, or: refimpl manifest --update"
    try:
        manifest = decoded(plain_text(file), dict[str, dict[str, tuple[Tier, ...]]])
    except (OSError, ShapeError) as error:
        raise ManifestError(f"{file.name} cannot be read ({why(error)}); {restore}") from error
    empty = [subject for subject, checks in manifest.items() if not all([checks, *checks.values()])]
    if not manifest or empty:
        named = f"no checks of {empty[0]}" if empty else "no checks"
        raise ManifestError(f"{file.name} names {named}; {restore}")
    return manifest


def made_of(cells: Iterable[Cell]) -> Manifest:
    """The manifest that lists these cells, which are of both tiers."""
    made: dict[str, dict[str, list[Tier]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        subject, check = key(cell)
        made[subject][check].append(cell.subject.tier)
    return {
        subject: {check: tuple(sorted(tiers)) for check, tiers in sorted(checks.items())}
        for subject, checks in sorted(made.items())
    }


def write(manifest: Manifest, file: Path) -> None:
    """Write a manifest with a paragraph for each variant, so that diffs are easy to read."""
    record = {subject: {c: list(t) for c, t in own.items()} for subject, own in manifest.items()}
    lines = [
        f" {json.dumps(subject)}: {{\n"
        + ",\n".join(f"  {json.dumps(check)}: {json.dumps(tiers)}" for check, tiers in own.items())
        + "\n }"
        for subject, own in record.items()
    ]
    write_text(file, "{\n" + ",\n".join(lines) + "\n}\n")


def key(cell: Cell) -> tuple[str, str]:
    """``example/variant`` and check, with the execution only if the check is about executions.

    The execution is named without its device: every device gets the same questions.
    """
    subject = cell.subject
    variant = subject.variant.name if subject.variant else "-"
    about = f":{question_of(subject.execution)}" if cell.check.about == "execution" else ""
    return f"{subject.example.name}/{variant}", f"{cell.check.name}{about}"


def lacking(
    manifest: Manifest,
    example: str,
    cells: Iterable[Cell],
    tier: Tier,
    executions: Iterable[Execution],
) -> list[str]:
    """The checks of an example that are in the manifest but not in a run, as text.

    ``executions`` are those that the run compares; checks of others are not missed.
    """
    compared, there = set(map(question_of, executions)), {key(cell) for cell in cells}
    missed = [
        f"{check} of {subject}"
        for subject, checks in manifest.items()
        if subject.partition("/")[0] == example
        for check, tiers in checks.items()
        if tier in tiers and (subject, check) not in there
        if ":" not in check or check.partition(":")[2] in compared
    ]
    return sorted(missed)
