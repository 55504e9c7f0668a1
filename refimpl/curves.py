"""Curves that a check hands over for a report to draw: how a figure went in the course of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from refimpl.training import History

POINTS = 200
"""How many points of a curve are kept at the most: a report is no wider."""


@dataclass(frozen=True)
class Curve:
    """How one figure went.

    ``values`` has one number for each epoch or step of ``at``, which counts from 1. ``low`` and
    ``high`` are the band in which it should have gone, a number for each value, or are empty
    where nothing bounds it.
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
    low: Sequence[float] = (),
    high: Sequence[float] = (),
) -> Curve:
    """A curve of at most :data:`POINTS` of these values, the first and the last among them."""
    at = _kept(len(values))

    def kept(numbers: Sequence[float]) -> tuple[float, ...]:
        return tuple(float(numbers[number - 1]) for number in at) if len(numbers) else ()

    return Curve(what, kept(values), at, along, kept(low), kept(high))


def learning_curves(history: History) -> Iterator[Curve]:
    """Every figure of a run, epoch by epoch; none where it has one epoch only."""
    if len(history.epochs) > 1:
        for metric in history.epochs[-1].metrics:
            yield curve(metric, history.curve(metric))


def _kept(count: int) -> tuple[int, ...]:
    """At most :data:`POINTS` of the numbers from 1 to ``count``, evenly spread."""
    if count <= POINTS:
        return tuple(range(1, count + 1))
    return tuple(1 + round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS))
