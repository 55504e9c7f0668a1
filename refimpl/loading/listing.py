"""The list of examples: from the plugins' sources, or by import if those do not suffice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from refimpl.loading.catalogue import entries
from refimpl.loading.refusal import Refusal


@dataclass(frozen=True)
class Listed:
    """A line of the list."""

    name: str
    title: str
    document: str
    section: str
    variants: tuple[str, ...]
    origin: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def listed(plugins: Sequence[str] = ()) -> list[Listed]:
    """Every valid example, by name."""
    return _gathered(tuple(plugins))[0]


def problems(plugins: Sequence[str] = ()) -> tuple[Refusal, ...]:
    """Every refused plugin or example that making the list has found."""
    return _gathered(tuple(plugins))[1]


@lru_cache(maxsize=1)
def _gathered(plugins: tuple[str, ...]) -> tuple[list[Listed], tuple[Refusal, ...]]:
    found = entries(plugins)
    if any(not entry.complete and entry.problem is None for entry in found):
        return _imported(plugins)
    lines = [
        Listed(e.name or "", e.title or "", e.document or "", e.section or "", e.variants or (),
               e.origin)
        for e in found if e.complete
    ]  # fmt: skip
    refused = tuple(entry.problem for entry in found if entry.problem is not None)
    return sorted(lines, key=lambda line: line.name), refused


def _imported(plugins: tuple[str, ...]) -> tuple[list[Listed], tuple[Refusal, ...]]:
    from refimpl.loading import registry

    loaded = registry.load(plugins)
    lines = [
        Listed(
            name,
            registered.value.title,
            registered.value.document,
            registered.value.section,
            tuple(variant.name for variant in registered.value.variants),
            registered.origin,
        )
        for name, registered in sorted(loaded.examples.items())
    ]
    return lines, loaded.problems
