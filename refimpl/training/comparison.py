"""Same computation: judged by error ratio against a float64 oracle, not by a magic tolerance.

The oracle is a float64 run on the CPU. References are draws of the oracle in which every result is
rounded at random; their distance from the oracle is the effect of rounding alone at that step. A
candidate may be ``FACTOR`` times as far away, plus a floor of ``FLOOR_ULPS`` units in the last
place of the tensor's own scale. A float64 candidate gets the same budget, scaled by the ratio of
the two dtypes' rounding units, and twice: its oracle, which is in float64 too, rounds as much.

Distances are those of the furthest element, so one wrong weight among thousands is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

FACTOR = 4.0
FLOOR_ULPS, NARROW_FLOOR_ULPS = 16.0, 1.0
"""Units in the last place of a tensor's largest value that are always allowed. A unit of bfloat16
is almost a hundredth, so that sixteen would be an eighth of the value; one is two roundings."""

SHOWS_NOTHING = 0.1
"""A budget of more than so much of the largest value that it judges shows nothing."""

Kind = Literal["input", "activation", "output", "loss", "gradient", "parameter", "buffer"]


@dataclass(frozen=True)
class Closeness:
    """How far a candidate is from the oracle, the budget for it, and its furthest element.

    ``scale`` is the oracle's largest finite magnitude.
    """

    error: float
    budget: float
    index: tuple[int, ...]
    found: float
    expected: float
    scale: float = math.inf

    @property
    def error_ratio(self) -> float:
        """Error over budget: at most 1 is within budget; an infinite budget allows no error."""
        if self.error == 0:
            return 0.0
        return self.error / self.budget if 0 < self.budget < math.inf else math.inf

    @property
    def shows_nothing(self) -> bool:
        """Whether rounding may change it by more than a tenth, so that agreement means nothing."""
        return self.budget > SHOWS_NOTHING * self.scale


def shown_apart(found: float, expected: float) -> str:
    """``found 0.69, expected 0.71``, with as many digits as it takes to tell one from the other."""
    for digits in range(9, 18):
        texts = f"{found:.{digits}g}", f"{expected:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return f"found {texts[0]}, expected {texts[1]}"


def oracle_scale(oracle: Tensor) -> float:
    """The largest finite magnitude of the oracle, from which the floor is computed."""
    if not oracle.numel():
        return 0.0
    largest = float(oracle.abs().max())
    if math.isfinite(largest):
        return largest
    finite = oracle[oracle.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def distance(candidate: Tensor, oracle: Tensor) -> float:
    """The furthest any element is from the oracle; infinite if only one of the two is finite."""
    return float(_differences(candidate, oracle).max()) if oracle.numel() else 0.0


def closeness(
    candidate: Tensor,
    oracle: Tensor,
    rounding: float,
    dtype: torch.dtype,
    reference_dtype: torch.dtype = torch.float32,
) -> Closeness:
    """Compare a candidate computed in ``dtype`` with the oracle.

    ``rounding`` is how far references rounded to ``reference_dtype`` have been from the oracle so
    far; all tensors are float64 on the CPU and have the same shape.
    """
    eps, reference_eps = torch.finfo(dtype).eps, torch.finfo(reference_dtype).eps
    rounding_here = rounding * eps / reference_eps
    scale = oracle_scale(oracle)
    floor = FLOOR_ULPS if eps <= torch.finfo(torch.float32).eps else NARROW_FLOOR_ULPS
    budget = FACTOR * rounding_here + floor * eps * scale + _underflow(dtype)
    if dtype == torch.float64:
        budget *= 2
    differences = _differences(candidate, oracle)
    if not differences.numel():
        return Closeness(0.0, budget, (), 0.0, 0.0, scale)
    furthest = int(differences.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(furthest), oracle.shape))
    return Closeness(
        error=float(differences.flatten()[furthest]),
        budget=budget,
        index=index,
        found=float(candidate.flatten()[furthest]),
        expected=float(oracle.flatten()[furthest]),
        scale=scale,
    )


def _underflow(dtype: torch.dtype) -> float:
    """What a device may take for zero; in half precision every device keeps subnormal numbers."""
    limits = torch.finfo(dtype)
    return limits.tiny * (limits.eps if dtype == torch.float16 else 1)


def _differences(candidate: Tensor, oracle: Tensor) -> Tensor:
    """Elementwise |candidate − oracle|; 0 where both are the same NaN or infinity."""
    same = (candidate == oracle) | (candidate.isnan() & oracle.isnan())
    far = (candidate - oracle).abs().nan_to_num(nan=math.inf, posinf=math.inf)
    return torch.where(same, 0.0, far)
