"""Gradients on a device without float64: the slope of the loss in float32, with an honest bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.capabilities import lacks
from refimpl.checking.checks import Measurement, Subject, at_most, check
from refimpl.conformance.checks.gradients import (
    first_loss,
    first_step,
    gradients_of,
    held_rows,
    loss_of,
    off_the_kinks,
    unclipped,
    value_of,
)
from refimpl.contract import Variant
from refimpl.data import philox
from refimpl.training.problem import Problem, pose

WIDTHS = (0.1, 0.03, 0.01, 0.003, 0.001)
"""How far the parameters of one tensor are moved, as a Euclidean length."""

CLEAR = 0.02
"""A slope is judged if what may be wrong with it is at most so large a part of it."""

EPS = float(np.finfo(np.float32).eps)

HAIR = 3e-5
"""So close by, the bend of a loss is far below its rounding."""

MARGIN = 8
"""How many times the measured rounding of a loss a slope may be off by, over its width."""


def _without_float64(subject: Subject) -> bool:
    device = subject.execution.device
    return device != "cpu" and lacks(device, "float64") is not None


@check(
    "gradient-is-the-slope-in-float32",
    applies=_without_float64,
    reading="backward of a layer or of the loss is wrong on this device; each-kernel-is-right "
    "names the kernel",
)
def gradient_is_the_slope_in_float32(subject: Subject) -> Iterator[Measurement]:
    """Without float64: is each tensor's gradient the slope of the loss, to what float32 can tell?

    Along the gradient and a random direction at once. Rounding of the losses and the bend of the
    loss are measured; a tensor for which they are over 2 % of the slope is counted, and not judged.
    """
    variant = subject.trained
    posed = pose(
        variant, subject.tier, seed=variant.seed, execution=subject.execution, dropout=False
    )
    problem = off_the_kinks(unclipped(posed))
    first = first_step(variant, problem)
    held = held_rows(first)
    gradients = gradients_of(first)
    blurred: list[str] = []
    for name, gradient in gradients.items():
        direction = _direction(name, gradient, held)
        claimed = float((gradient.astype(np.float64) * direction).sum())
        of = loss_of(first, name)
        at = _Along(variant, problem, name, direction, value_of(first, of), of)
        judged = [slope for slope in map(at.slope, WIDTHS) if slope.unsure <= CLEAR * abs(claimed)]
        if not judged:
            blurred.append(name)
            continue
        best = min(judged, key=lambda slope: abs(slope.found - claimed) / slope.unsure)
        ratio = abs(best.found - claimed) / best.unsure
        message = (
            f"the gradient of {name} is wrong: along it the loss changes by {best.found:.5g} per "
            f"unit, the gradient says {claimed:.5g} ({ratio:.3g} times what float32 explains)"
        )
        what = f"slope error of {name}, of what float32 leaves open"
        yield replace(at_most(what, ratio, 1.0), message="" if ratio <= 1 else message)
    what = "tensors whose slope float32 cannot tell to 2 %"
    yield Measurement(what, len(blurred), "counted", True, where=", ".join(blurred))


def _direction(name: str, gradient: NDArray[Any], held: Any) -> NDArray[Any]:
    """Half along the gradient, half at random; a row that is held fixed does not move."""
    drawn = philox("directions", name).standard_normal(gradient.shape)
    if name in held:
        drawn[held[name]] = 0
    size = float(np.linalg.norm(gradient)) or 1.0
    direction: NDArray[Any] = gradient / size + drawn / (float(np.linalg.norm(drawn)) or 1.0)
    return direction / (float(np.linalg.norm(direction)) or 1.0)


@dataclass(frozen=True)
class _Slope:
    """A measured slope, and how far rounding and the bend of the loss may take it from the true."""

    found: float
    unsure: float


@dataclass(frozen=True)
class _Along:
    """The first loss of a variant along a direction in one tensor."""

    variant: Variant
    problem: Problem
    name: str
    direction: NDArray[Any]
    loss: float
    of: str | None

    def at(self, by: float) -> float:
        """The loss when the tensor is moved by so much."""
        return first_loss(self.variant, self.problem, {self.name: self.direction}, by, self.of)

    def slope(self, width: float) -> _Slope:
        """Central differences at two widths, extrapolated to zero."""
        wide = (self.at(width) - self.at(-width)) / (2 * width)
        narrow = (self.at(width / 2) - self.at(-width / 2)) / width
        return _Slope((4 * narrow - wide) / 3, abs(wide - narrow) / 3 + self.rounding / width)

    @cached_property
    def rounding(self) -> float:
        """What rounding may do to a loss, which is the mean of those close by on both sides."""
        means = [(self.at(k * HAIR) + self.at(-k * HAIR)) / 2 for k in (1, 2, 3)]
        return MARGIN * max(EPS * abs(self.loss), *(abs(mean - self.loss) for mean in means))
