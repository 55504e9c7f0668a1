"""Which calls of torch the examples make, and how many of them were judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from refimpl.composition import CPU
from refimpl.contract import Example
from refimpl.parity.judged_steps import judged
from refimpl.requirements import missing


@dataclass
class Reached:
    """One kernel: how often the examples call it, and its furthest error over its bound."""

    kernel: str
    examples: list[str]
    judged: int = 0
    unjudged: int = 0
    worst: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def reached(examples: Iterable[Example]) -> list[Reached]:
    """Every kernel that the first steps of the examples reach on the CPU, by its name."""
    found: dict[str, Reached] = {}
    for example in examples:
        for variant in example.variants:
            if not variant.trains or variant.numpy or missing(variant.needs):
                continue
            judge = judged(variant, CPU, "stand-in")
            for kernel in sorted({*judge.judged, *judge.unjudged}):
                own = found.setdefault(kernel, Reached(kernel, []))
                own.judged += judge.judged[kernel]
                own.unjudged += judge.unjudged[kernel]
                if example.name not in own.examples:
                    own.examples.append(example.name)
                if kernel in judge.worst:
                    own.worst = max(own.worst, judge.worst[kernel])
    return sorted(found.values(), key=lambda row: row.kernel)
