"""Compares a run in a narrow precision (bfloat16, float16) with its oracle, step by step.

A narrow run soon leaves the oracle's path: the first update of an adaptive optimizer is ± its rate,
by the sign of each gradient, and the sign of a gradient that is smaller than its rounding error
means nothing. So every step starts from the oracle's parameters again, and its output, loss and
gradients are compared. Weights that were cast once and kept are then seen in the second step. Of an
update only its size means something: one that was skipped is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from math import hypot
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from refimpl.contract import Step, Variant
from refimpl.parity.rounding import Rounded, moved, under
from refimpl.training.ladder import shared_name
from refimpl.training.loop import steps_of
from refimpl.training.problem import Problem
from refimpl.training.trajectories import Observation, bare_name, observe

Array = NDArray[Any]

STEPS = 3
"""How many steps are compared."""

SEEN = 100.0
"""An update is looked for where it should be so many times as large as rounding."""


def restarted(
    variant: Variant,
    problem: Problem,
    oracle: Iterable[list[Observation]],
    draws: Callable[[dict[str, Array]], dict[str, Array]] = lambda values: values,
) -> Iterator[list[Observation]]:
    """The steps of a run whose parameters are set to the oracle's after each of its steps.

    ``draws`` may move the values that they are set to.
    """
    for expected, step in zip(oracle, steps_of(variant, problem), strict=False):
        yield observe(variant, step)
        values = {name: value.numpy() for name, value in parameters(expected).items()}
        _set(variant, step, draws(values))


def draw(
    variant: Variant,
    problem: Problem,
    oracle: Iterable[list[Observation]],
    number: int,
    precision: torch.dtype,
    products_in: torch.dtype | None,
) -> Iterator[list[Observation]]:
    """The same for a draw: in float64, with every result moved as if it were rounded."""
    mode = Rounded(number, precision, products_in)
    start = partial(moved, precision=precision, number=number)
    return restarted(variant, under(variant, mode, problem, number), oracle, start)


def _set(variant: Variant, step: Step, values: Mapping[str, Array]) -> None:
    with torch.no_grad():
        for name, own in step.parameters.items():
            shared, transposed = shared_name(variant, bare_name(name))
            value = torch.from_numpy(values[shared])
            own.copy_((value.T if transposed else value).reshape(own.shape))


def parameters(step: Iterable[Observation]) -> dict[str, Tensor]:
    """The parameters after a step."""
    return {seen.name: seen.value for seen in step if seen.kind == "parameter"}


@dataclass
class Updates:
    """The sizes of a run's updates, next to those of the oracle and of draws.

    In a narrow precision a unit may be saturated, so that its gradient and a whole update are 0;
    then those of a draw are too. ``start`` are the parameters before the first step. ``unit`` is
    the candidate's rounding unit: an update of parameters that are narrow themselves may be rounded
    away.
    """

    start: Mapping[str, Tensor]
    oracle: list[list[Observation]]
    unit: float
    sizes: list[float] = field(default_factory=list)
    drawn: list[list[float]] = field(default_factory=list)

    @property
    def positions(self) -> list[Mapping[str, Tensor]]:
        """The oracle's parameters before the first step, and after each."""
        return [self.start, *map(parameters, self.oracle)]

    def of_candidate(self, run: Iterable[list[Observation]]) -> Iterator[list[Observation]]:
        """The run's steps; the size of each one's update is noted."""
        return self._noted(run, self.sizes)

    def of_draw(self, run: Iterable[list[Observation]]) -> Iterator[list[Observation]]:
        """The same for a draw."""
        self.drawn.append([])
        return self._noted(run, self.drawn[-1])

    def _noted(
        self, run: Iterable[list[Observation]], sizes: list[float]
    ) -> Iterator[list[Observation]]:
        for step, started_from in zip(run, self.positions, strict=False):
            sizes.append(_distance(parameters(step), started_from))
            yield step

    def skipped(self) -> str:
        """The first update that is too small to be one, in words, if there is one."""
        for number, (size, (before, after)) in enumerate(
            zip(self.sizes, pairwise(self.positions), strict=False), start=1
        ):
            drawn = [sizes[number - 1] for sizes in self.drawn if len(sizes) >= number]
            expected = min([_distance(after, before), *drawn])
            lost = self.unit * _distance(before, None)
            if size <= lost and expected > SEEN * lost:
                return (
                    f"step {number}: the update changes the parameters by {size:.3g}, which is "
                    f"rounding, where {expected:.3g} is expected"
                )
        return ""


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor] | None) -> float:
    """The Euclidean distance of two sets of parameters, or the length of one."""
    parts = (
        value if other is None else value - other[name].reshape(value.shape)
        for name, value in one.items()
    )
    return hypot(*(float(part.norm()) for part in parts))
