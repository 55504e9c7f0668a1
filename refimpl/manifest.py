"""The manifest: which checks every example of this distribution must get, committed.

A check that silently stops applying (a fact that was lost, a file that was not installed) would
leave everything green with less behind it. ``fixtures/manifest.json`` has, for each variant of each
example, the checks it is asked on each tier; fewer than that fail the run. More do not, until
``refimpl manifest --update`` writes them down.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias, get_args

from refimpl.checking import Cell
from refimpl.data import Tier
from refimpl.errors import RefimplError

Manifest: TypeAlias = Mapping[str, Mapping[str, tuple[Tier, ...]]]
"""``example/variant`` → check (with the execution, for checks about executions) → tiers."""


class ManifestError(RefimplError):
    """The manifest cannot be read."""


def path() -> Path:
    """Where the manifest is, by the name of the package that carries it."""
    return Path(str(files("refimpl.fixtures"))) / "manifest.json"


def read(file: Path) -> Manifest:
    """The manifest as its file has it. Raises :class:`ManifestError` where it is damaged."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        manifest = {
            subject: {check: tuple(tiers) for check, tiers in checks.items()}
            for subject, checks in record.items()
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ManifestError(
            f"{file.name} cannot be read ({error}); restore it, or: refimpl manifest --update"
        ) from error
    for checks in manifest.values():
        for tiers in checks.values():
            if not tiers or not set(tiers) <= set(get_args(Tier)):
                raise ManifestError(f"{file.name} names tiers that there are not: {list(tiers)}")
    return manifest


def made_of(cells: Iterable[Cell]) -> Manifest:
    """The manifest that these cells, of both tiers, amount to."""
    made: dict[str, dict[str, list[Tier]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        subject, check = key(cell)
        made[subject][check].append(cell.subject.tier)
    return {
        subject: {check: tuple(sorted(tiers)) for check, tiers in sorted(checks.items())}
        for subject, checks in sorted(made.items())
    }


def write(manifest: Manifest, file: Path) -> None:
    """Write a manifest, a variant a paragraph, so that changes to it read well."""
    record = {subject: {c: list(t) for c, t in own.items()} for subject, own in manifest.items()}
    lines = [
        f" {json.dumps(subject)}: {{\n"
        + ",\n".join(f"  {json.dumps(check)}: {json.dumps(tiers)}" for check, tiers in own.items())
        + "\n }"
        for subject, own in record.items()
    ]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def key(cell: Cell) -> tuple[str, str]:
    """``example/variant`` and check; what the example is run on is not part of it."""
    subject = cell.subject
    variant = subject.variant.name if subject.variant else "-"
    about = f":{subject.execution.name}" if cell.check.about == "execution" else ""
    return f"{subject.example.name}/{variant}", f"{cell.check.name}{about}"


def lacking(
    manifest: Manifest, example: str, cells: Iterable[Cell], tier: Tier, executions: Iterable[str]
) -> list[str]:
    """The checks of an example that the manifest has and a run has not, in words.

    ``executions`` are those that the run was asked for; checks of others are not missed.
    """
    asked, there = set(executions), {key(cell) for cell in cells}
    missed = [
        f"{check} of {subject}"
        for subject, checks in manifest.items()
        if subject.partition("/")[0] == example
        for check, tiers in checks.items()
        if tier in tiers and (subject, check) not in there
        if ":" not in check or check.partition(":")[2] in asked
    ]
    return sorted(missed)
