"""What rounding does to a whole function: float64, with every result moved at random.

Each result is moved by up to half a unit of itself. The terms of a sum of products are moved by
half a unit times the root of its length, since a sum that cancels is off by what its partial sums
are off. No run in the precision that is judged is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

from refimpl.parity.kernel_bounds import MOVING, SUMS, is_float, length_of, name_of, results_of
from refimpl.parity.kernel_judge import computes

DRAWS = 3
FACTOR = 6.0
"""A sound result may be this many times as far from the oracle as the furthest draw."""

UNITS = 16.0
"""Half units of the largest value that any result may be off besides."""


class RoundedAtRandom(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While in force, every float64 result is moved as if it were rounded to ``dtype``."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.half = torch.finfo(dtype).eps / 2
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make a call, and move its results."""
        given = dict(kwargs or {})
        name = name_of(func)
        if not computes(func) or name in MOVING:
            return func(*args, **given)
        if name in SUMS:
            by = self.half * math.sqrt(length_of(name, args))
            with _disable_current_modes(), torch.no_grad():
                args = tree_map(lambda value: self._moved(value, by), list(args))
        out = func(*args, **given)
        with _disable_current_modes(), torch.no_grad():
            for made in results_of(func, args, given, out):
                if is_float(made) and made.numel():
                    made.mul_(self._factors(made, self.half))
        return out

    def _moved(self, value: Any, by: float) -> Any:
        return value * self._factors(value, by) if is_float(value) else value

    def _factors(self, like: Tensor, by: float) -> Tensor:
        return torch.empty(like.shape, dtype=torch.float64).uniform_(
            1 - by, 1 + by, generator=self.generator
        )


def rounding_of(
    compute: Callable[[], Sequence[Tensor]], exact: Sequence[Tensor], dtype: torch.dtype
) -> list[float]:
    """How far rounding to ``dtype`` may take each tensor that ``compute()`` makes in float64."""
    furthest = [0.0] * len(exact)
    for seed in range(DRAWS):
        with RoundedAtRandom(dtype, seed):
            drawn = compute()
        for place, (one, other) in enumerate(zip(exact, drawn, strict=True)):
            if one.numel():
                far = float((one - other).abs().nan_to_num(posinf=0.0).max())
                furthest[place] = max(furthest[place], far)
    half = torch.finfo(dtype).eps / 2
    return [
        FACTOR * far + UNITS * half * (float(one.abs().max()) if one.numel() else 0.0)
        for far, one in zip(furthest, exact, strict=True)
    ]
