"""The two tiers of data: generated stand-ins, and the documents' own."""

from __future__ import annotations

from typing import Literal, TypeAlias

Tier: TypeAlias = Literal["stand-in", "real"]
TIERS: tuple[Tier, ...] = ("stand-in", "real")
