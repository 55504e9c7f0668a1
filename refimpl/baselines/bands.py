"""Does this outcome belong to those of the baseline? Answered with two declared error rates.

The test assumes nothing about the shape of a figure's distribution, only that a fresh run of an
unchanged program is one more draw from the distribution of the baseline. Then every order of n
baseline runs and k fresh ones is equally likely, and the probability that the k fresh runs are all
below the lowest of the n is ``1 / C(n + k, k)``; likewise for all above the highest.

The rule, fixed before any run: the first fresh run passes if it lies between the lowest and the
highest of the baseline. If it does not, further seeds are run, and the figure fails only if all
``k`` fresh runs lie outside on the same side. ``k`` is the smallest for which ``2 / C(n + k, k)``
is at most the α of one figure. Ties only make a false alarm rarer.

The same rule applies to a range stated beforehand. Of the baseline's own ``n`` runs, ``r`` may lie
below it; the probability that all fresh runs do too is then ``C(r + k, k) / C(n + k, k)``, so ``k``
grows with ``r``. If more than half of the baseline lies outside on one side, the program does not
end in the range, and no run is needed to say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from refimpl.baselines.committed import Metric

ALPHA = 3e-5
"""The highest false-alarm rate of one figure: under 1 % for a sweep of three hundred of them."""

POWER = 0.99
"""The probability that a change of :attr:`Band.detects` fails the check."""

FEWEST_RUNS = 5
"""A baseline with fewer runs has no bounds."""

TAIL = 0.2
"""The share of the runs from which the tail beyond the outermost run is estimated."""

Side = Literal["inside", "below", "above"]

Floats = NDArray[Any]


@dataclass(frozen=True)
class Band:
    """Where a figure of a fresh run should lie, and the error rates of that limit.

    ``fresh`` is k: how many runs in a row must lie outside on one side for a failure. ``alpha``
    is the probability that an unchanged program fails. ``detects`` is the shift of the whole
    distribution, in the figure's own unit, that fails with probability :data:`POWER`. ``below``
    and ``above`` count the baseline's own runs that lie outside a stated range, or diverged.
    """

    low: float
    high: float
    runs: int
    fresh: int
    alpha: float
    detects: float
    below: int = 0
    above: int = 0

    @property
    def typical(self) -> bool:
        """Whether at most half of the baseline's runs lie outside on either side."""
        return 2 * max(self.below, self.above) <= self.runs

    def side(self, value: float) -> Side:
        """Where a value lies; NaN counts as infinite."""
        (value,) = _ordered([value])
        if value < self.low:
            return "below"
        return "inside" if value <= self.high else "above"


def band(values: Sequence[float], metric: Metric, alpha: float = ALPHA) -> Band:
    """The band of one figure from the final values of a baseline.

    If the runs differ by less than the metric's resolution, each end of the band moves outwards by
    the shortfall. If some runs diverged but most did not, those lie outside the band, and more
    fresh runs must lie outside before a figure fails.
    Raises ``ValueError`` for fewer values than :data:`FEWEST_RUNS`.
    """
    _require_enough(values)
    low, high = extremes(np.array(_converged(values)), metric.resolution)
    return stated(float(low), float(high), values, alpha)


def stated(low: float, high: float, values: Sequence[float], alpha: float = ALPHA) -> Band:
    """A range that was stated beforehand, and how the runs of a baseline lie about it.

    Raises ``ValueError`` for fewer values than :data:`FEWEST_RUNS`.
    """
    _require_enough(values)
    values = _ordered(values)
    below, above = sum(v < low for v in values), sum(v > high for v in values)
    half = len(values) // 2  # with more, no practical number of runs is enough
    fresh = fresh_needed(len(values), alpha, min(below, half), min(above, half))
    return Band(
        low,
        high,
        len(values),
        fresh,
        false_alarm(len(values), fresh, below, above),
        detectable(values, low, high, fresh),
        below,
        above,
    )


def _converged(values: Sequence[float]) -> list[float]:
    """The finite values if they are at least half of all; else all values. In ascending order."""
    ordered = _ordered(values)
    finite = [value for value in ordered if math.isfinite(value)]
    return finite if 2 * len(finite) >= len(ordered) else ordered


def extremes(values: Floats, resolution: float) -> tuple[Floats, Floats]:
    """The lowest and the highest along the last axis, at least ``resolution`` apart.

    If they are closer than the ``resolution``, each is moved outwards by the shortfall.
    """
    low, high = values.min(axis=-1), values.max(axis=-1)
    with np.errstate(invalid="ignore"):  # the difference of two infinities is NaN
        short = np.nan_to_num(np.maximum(0.0, resolution - (high - low)), posinf=0.0)
    return low - short, high + short


def fails(sides: Iterator[Side], fresh: int) -> bool | None:
    """The rule, applied in turn to the sides on which fresh runs lie; takes no more than it needs.

    ``None`` if they run out before there is an answer.
    """
    first = next(sides, None)
    if first is None or first == "inside":
        return None if first is None else False
    for _ in range(fresh - 1):
        side = next(sides, None)
        if side != first:
            return None if side is None else False
    return True


def false_alarm(runs: int, fresh: int, below: int = 0, above: int = 0) -> float:
    """The probability that ``fresh`` runs all fall outside on one side without a change.

    ``below`` and ``above`` of the ``runs`` before them did.
    """
    orders = sum(comb(outside + fresh, fresh) for outside in (below, above))
    return orders / comb(runs + fresh, fresh)


@cache
def fresh_needed(runs: int, alpha: float, below: int = 0, above: int = 0) -> int:
    """The fewest fresh runs for which :func:`false_alarm` is at most ``alpha``.

    No number is enough if all the ``runs`` lie on one side.
    """
    fresh = 1
    while false_alarm(runs, fresh, below, above) > alpha:
        fresh += 1
    return fresh


def detectable(
    values: Sequence[float], low: float, high: float, fresh: int, power: float = POWER
) -> float:
    """The shift of ``values`` that takes all ``fresh`` runs out of a range with this power.

    That needs the quantile that one run stays under with probability ``power ** (1 / fresh)``,
    which lies beyond most samples. So the tail is continued as an exponential whose mean excess
    is that of the outermost :data:`TAIL` of the runs, which errs on the safe side for a normal
    one. Returns the larger of the two directions.
    """
    values = _ordered(values)
    if math.isinf(values[-1]):
        return math.inf
    share = 1 - power ** (1 / fresh)
    down = _quantile(values, share) - low
    up = high + _quantile([-value for value in values], share)
    return max(down, up)


def _require_enough(values: Sequence[float]) -> None:
    if len(values) < FEWEST_RUNS:
        raise ValueError(
            f"{len(values)} runs are too few for a baseline; at least {FEWEST_RUNS} are needed"
        )


def quantile_of(value: float, values: Sequence[float]) -> float:
    """The share of ``values`` below ``value``, with ties counted half."""
    below = sum(v < value for v in values)
    ties = sum(v == value for v in values)
    return (below + ties / 2) / len(values)


def _quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of runs exceeds, extrapolated beyond the sample if necessary."""
    ordered = sorted(values)
    start = len(ordered) - max(2, math.ceil(TAIL * len(ordered)))
    threshold, tail = ordered[start - 1], ordered[start:]
    excess = sum(value - threshold for value in tail) / len(tail)
    beyond = threshold + excess * math.log(len(tail) / len(ordered) / share)
    return max(beyond, ordered[-1])


def _ordered(values: Sequence[float]) -> list[float]:
    """The values in ascending order; NaN counts as infinite, since the run diverged."""
    return sorted(math.inf if math.isnan(value) else value for value in values)
