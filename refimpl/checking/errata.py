"""Errata: statements of the documents that no longer hold, tried on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from packaging.requirements import Requirement

from refimpl.contract import Erratum, Example
from refimpl.requirements import missing


@dataclass(frozen=True)
class Tried:
    """An erratum and the result of trying it. ``holds`` is ``None`` if it could not be tried."""

    example: str
    name: str
    says: str
    today: str
    since: str
    found: str
    holds: bool | None
    expected: bool
    skipped: str = ""

    @property
    def as_expected(self) -> bool:
        """Whether the document is right or wrong here, as the erratum's version predicts."""
        return self.holds is None or self.holds is self.expected

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "as_expected": self.as_expected}


def tried(example: Example) -> Iterator[Tried]:
    """Each erratum of an example, tried here."""
    for erratum in example.errata:
        yield attempt(example.name, erratum)


def _holds(erratum: Erratum) -> bool:
    try:
        found = erratum.holds()
    except erratum.raises:
        return False
    return bool(erratum.raises) or bool(found)


def attempt(example: str, erratum: Erratum) -> Tried:
    """Try one erratum: the document must be wrong if ``since`` is met, and right otherwise."""
    requirement = Requirement(erratum.since)
    lacking = missing(erratum.needs)
    found = "" if lacking else version(requirement.name)
    broken = not lacking and requirement.specifier.contains(found, prereleases=True)
    return Tried(
        example,
        erratum.name,
        erratum.says,
        erratum.today,
        erratum.since,
        f"{requirement.name} {found}".strip(),
        holds=None if lacking else _holds(erratum),
        expected=not broken,
        skipped=lacking or "",
    )
