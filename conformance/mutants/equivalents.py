"""Mutants that are not a bug where they are planted, listed as data with their reasons.

An entry reads::

    [[equivalent]]
    example = "my-example"
    mutant = "loss-arguments-swapped"
    reason = "the squared error is the same either way"

    # a condition
    variant = "script"

An entry must be true: the run fails if its mutant is killed after all, or if it matches no mutant.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refimpl.errors import RefimplError
from refimpl.names import unknown
from refimpl.reading import plain_text, require_shallow, why

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = "equivalent"
REQUIRED = ("example", "mutant", "reason")
KEYS = (*REQUIRED, "variant")
OWN = Path(__file__).with_name("equivalent.toml")


class EquivalentsError(RefimplError):
    """A list of equivalent mutants is not valid."""


@dataclass(frozen=True)
class Equivalent:
    """One entry: this mutant of this example has no observable effect."""

    example: str
    mutant: str
    reason: str
    variant: str | None = None
    file: Path = Path()

    def matches(self, example: str, variant: str, mutant: str) -> bool:
        """Whether it is about this mutant of this variant."""
        return (self.example, self.mutant) == (example, mutant) and self.variant in (None, variant)

    def __str__(self) -> str:
        about = " · ".join(part for part in (self.example, self.variant, self.mutant) if part)
        return f"{self.file.name}: the entry for {about} ({self.reason})"


def read(path: Path, mutants: Collection[str]) -> tuple[Equivalent, ...]:
    """The entries of a file.

    Raises :class:`EquivalentsError` if it is not TOML or an entry has a missing or unknown key, and
    :class:`~refimpl.errors.UnknownNameError` for an unknown mutant.
    """
    try:
        content = tomllib.loads(plain_text(path))
        require_shallow(content)
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise EquivalentsError(f"{path} cannot be read as TOML: {why(error)}") from error
    entries = content.get(TABLE, [])
    if content.keys() - {TABLE} or not isinstance(entries, list):
        raise EquivalentsError(f"{path}: write each entry under [[{TABLE}]]")
    return tuple(_entry(path, number, raw, mutants) for number, raw in enumerate(entries, start=1))


def _entry(path: Path, number: int, raw: Any, mutants: Collection[str]) -> Equivalent:
    wrong = next(_wrong(raw), None)
    if wrong is not None:
        raise EquivalentsError(f"{path}, entry {number}: {wrong}")
    if raw["mutant"] not in mutants:
        raise unknown(f"{path}: there is no mutant {raw['mutant']!r}", raw["mutant"], mutants)
    return Equivalent(**raw, file=path)


def _wrong(raw: Any) -> Iterator[str]:
    if not isinstance(raw, dict):
        yield f"write it under [[{TABLE}]], found {raw!r}"
        return
    for key in sorted(raw.keys() - set(KEYS)):
        yield f"unknown key {key!r}; there are: {', '.join(KEYS)}"
    for key in REQUIRED:
        if key not in raw:
            yield f"it has no {key}"
    for key, value in raw.items():
        if not isinstance(value, str) or not value.strip():
            yield f"{key} must be a non-empty text, found {value!r}"


def gathered(files: Iterable[Path], mutants: Collection[str]) -> tuple[Equivalent, ...]:
    """The entries of the suite's own list and of other files."""
    return tuple(entry for path in (OWN, *files) for entry in read(path, mutants))
