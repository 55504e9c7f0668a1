"""How long a variant's steps take, compared with those of the framework's own loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from inspect import signature
from itertools import islice, pairwise
from statistics import median
from typing import Any, TypeAlias, cast

from torch import nn

from refimpl.contract import Example, ModuleVariant, Step, Variant
from refimpl.data import Tier
from refimpl.training.loop import drive
from refimpl.training.problem import Problem, pose

Build: TypeAlias = Callable[[], nn.Module]
Optimizer: TypeAlias = Callable[..., Any]

STEPS, SECONDS = 200, 0.5
"""The most steps, and about the most seconds, that each of the two is timed for in a round."""

ROUNDS = 3


@dataclass(frozen=True)
class Pace:
    """Seconds per step of a variant, and of the rival that computes the same in the fast loop."""

    own: float
    rival: float

    @property
    def ratio(self) -> float:
        """How many times as long as its rival the variant takes."""
        return self.own / self.rival


def pace_of(example: Example, variant: Variant, tier: Tier) -> Pace | None:
    """The pace of the variant and its rival; ``None`` if there is no rival that runs.

    The two are timed in turn, so that a busy machine slows both; the best round of each counts.
    """
    rival = rival_of(example, variant, tier)
    if rival is None or not _runs(rival, tier):
        return None
    rounds = [
        (_seconds(variant, pose(variant, tier, seed=0)), _seconds(rival, pose(rival, tier, seed=0)))
        for _ in range(ROUNDS)
    ]
    own, other = (min(seconds) for seconds in zip(*rounds, strict=True))
    return Pace(own, other) if other > 0 else None


def _runs(rival: ModuleVariant, tier: Tier) -> bool:
    """Whether the rival makes a step; if not, that says nothing about the variant it rivals."""
    try:
        return next(drive(rival, pose(rival, tier, seed=0)), None) is not None
    except Exception:
        return False


def rival_of(example: Example, variant: Variant, tier: Tier) -> ModuleVariant | None:
    """A variant that makes the same computation in the fast loop, or ``None``.

    It is made of the variant's own module, loss and optimizer if those can be seen; otherwise it
    is the first such variant on the same ladder.
    """
    if isinstance(variant, ModuleVariant) or variant.numpy or variant.prepare is not None:
        return None  # the fast loop takes tensors only, and rows as they are
    build, optimizer = variant.build, variant.optimizer
    if build is None or optimizer is None:
        build, optimizer = _seen_in_use(variant, tier)
    if build is not None and optimizer is not None and variant.loss is not None:
        own = {name: getattr(variant, name) for name in _SHARED}
        return ModuleVariant(variant.name, build=build, optimizer=optimizer, **own)
    on_ladder = (other for other in example.variants if _same_by_module(variant, other))
    return cast("ModuleVariant | None", next(on_ladder, None))


def _seen_in_use(variant: Variant, tier: Tier) -> tuple[Build | None, Optimizer | None]:
    """What makes the module and the optimizer that the variant's first step shows."""
    step = next(drive(variant, pose(variant, tier, seed=0)), None)
    if not isinstance(step, Step) or not isinstance(step.model, nn.Module) or not step.optimizer:
        return None, None
    kind = type(step.optimizer)
    takes = signature(kind).parameters.keys() - {"lr"}
    settings = {name: own for name, own in step.optimizer.defaults.items() if name in takes}
    return partial(deepcopy, step.model), partial(kind, **settings)


def _same_by_module(variant: Variant, other: Variant) -> bool:
    return (
        isinstance(other, ModuleVariant)
        and variant.ladder is not None
        and variant.ladder == other.ladder
        and variant.ladder_depth == other.ladder_depth == "trajectory"
    )


_SHARED = ("start", "documented_start", "loss", "metrics", "protocol", "facts", "data")


def _seconds(variant: Variant, problem: Problem) -> float:
    """The median time from one step to the next."""
    times = [time.perf_counter()]
    steps = (step for step in drive(variant, problem) if isinstance(step, Step))
    for _ in islice(steps, STEPS):
        times.append(time.perf_counter())
        if times[-1] - times[0] > SECONDS and len(times) > 3:
            break
    between = [after - before for before, after in pairwise(times[1:])]
    return median(between) if between else 0.0
