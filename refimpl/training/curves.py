"""Curves that a check yields for a report to draw: how a figure changes during a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from refimpl.training.loop import History

POINTS = 200
"""The most points kept of a curve: a report is no wider."""


@dataclass(frozen=True)
class Curve:
    """How one figure changes.

    ``values`` has one number for each epoch or step of ``at``, which counts from 1. ``low`` and
    ``high`` are the band in which it should lie, one number for each value, or empty if it has no
    bounds.
    """

    what: str
    values: tuple[float, ...]
    at: tuple[int, ...]
    along: Literal["epoch", "step"] = "epoch"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def curve(
    what: str,
    values: Sequence[float],
    along: Literal["epoch", "step"] = "epoch",
    at: Sequence[int] = (),
    low: Sequence[float] = (),
    high: Sequence[float] = (),
) -> Curve:
    """A curve of at most :data:`POINTS` of these values, including the first and the last.

    They belong to the epochs or steps of ``at``; without it, to 1, 2, 3 and so on.
    """
    kept = evenly_spaced(len(values), POINTS)
    every = at or range(1, len(values) + 1)

    def thinned(numbers: Sequence[float]) -> tuple[float, ...]:
        return tuple(float(numbers[i]) for i in kept) if len(numbers) else ()

    return Curve(
        what, thinned(values), tuple(every[i] for i in kept), along, thinned(low), thinned(high)
    )


def learning_curves(history: History) -> Iterator[Curve]:
    """Every figure of a run that was measured at more than one epoch."""
    for metric in dict.fromkeys(name for record in history.epochs for name in record.metrics):
        measured = [
            (record.epoch, record.metrics[metric])
            for record in history.epochs
            if metric in record.metrics
        ]
        if len(measured) > 1:
            epochs, values = zip(*measured, strict=True)
            yield curve(metric, values, at=epochs)


def evenly_spaced(count: int, most: int) -> Sequence[int]:
    """At most ``most`` of the indices of ``count`` values, the first and the last included."""
    if count <= most:
        return range(count)
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
