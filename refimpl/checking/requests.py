"""What a run is requested to check, and how."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from refimpl.tiers import Tier

ALL = "all"
"""The name that stands for every execution."""

DEFAULT_PARTS = ("", "f64", "bf16", "channels-last", "ensemble")
"""What the device of a run is combined with; each takes well under a second for each variant."""


def default_executions(device: str) -> tuple[str, ...]:
    """The executions that a run on this device compares with the oracle, if none is named."""
    return tuple(f"{device}+{part}" if part else device for part in DEFAULT_PARTS)


@dataclass(frozen=True)
class Request:
    """What to check, and how: the suite's options of the same names.

    No ``examples`` means all of them; no ``executions`` means :func:`default_executions`, and
    ``"all"`` among them every one. ``variants``, ``checks`` and ``cells`` (keys of results)
    leave out everything else; empty, they leave out nothing.
    """

    examples: Sequence[str] = ()
    tier: Tier = "stand-in"
    device: str = "cpu"
    executions: Sequence[str] = ()
    reseed: int = 0
    expected_failures: Sequence[Path] = ()
    variants: Sequence[str] = ()
    checks: Sequence[str] = ()
    cells: Collection[str] = ()

    def wants(self, variant: str, check: str, key: str) -> bool:
        """Whether a check of the requested examples is requested too."""
        wanted = ((self.variants, variant), (self.checks, check), (self.cells, key))
        return all(not names or name in names for names, name in wanted)

    @property
    def only(self) -> dict[str, list[str]]:
        """What the run is restricted to, besides examples; empty if it is not."""
        parts = {"variants": self.variants, "checks": self.checks, "cells": self.cells}
        return {name: sorted(own) for name, own in parts.items() if own}
