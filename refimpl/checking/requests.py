"""What a run is requested to check, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from refimpl.tiers import Tier

DEFAULT_EXECUTIONS = (
    "cpu",
    "cpu-f64",
    "cuda",
    "channels-last",
    "autocast-bf16",
    "data-parallel",
    "ensemble",
)
"""Executions that take well under a second for each variant; ``--execution`` adds others."""


@dataclass(frozen=True)
class Request:
    """What to check, and how: the suite's options of the same names.

    No ``examples`` means all of them; no ``executions`` means ``DEFAULT_EXECUTIONS``, and ``"all"``
    among them every one.
    """

    examples: Sequence[str] = ()
    tier: Tier = "stand-in"
    device: str = "cpu"
    executions: Sequence[str] = ()
    reseed: int = 0
    expected_failures: Sequence[Path] = ()
