"""How long a variant's steps take beside those of the framework's own loop."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from statistics import median

from torch import nn

from refimpl.contract import Example, ModuleVariant, Step, Variant
from refimpl.data import Tier
from refimpl.problem import Problem, pose
from refimpl.training import drive

STEPS = 200
"""How many steps of each are timed at the most, in each of the rounds."""

ROUNDS = 3


@dataclass(frozen=True)
class Pace:
    """Seconds a step of a variant and of the rival that does the same by the fast loop."""

    own: float
    rival: float

    @property
    def ratio(self) -> float:
        """How many times as long the variant takes."""
        return self.own / self.rival


def pace_of(example: Example, variant: Variant, tier: Tier) -> Pace | None:
    """The variant's pace beside the fast loop's; ``None`` where nothing does the same by it.

    The two are timed in turn, so that a busy machine slows both; the best round of each counts.
    """
    rival = rival_of(example, variant, tier)
    if rival is None:
        return None
    rounds = [
        (_seconds(variant, pose(variant, tier, seed=0)), _seconds(rival, pose(rival, tier, seed=0)))
        for _ in range(ROUNDS)
    ]
    own, other = (min(seconds) for seconds in zip(*rounds, strict=True))
    return Pace(own, other) if other > 0 else None


def rival_of(example: Example, variant: Variant, tier: Tier) -> ModuleVariant | None:
    """A variant by the fast loop that makes the same computation, or ``None``.

    It is made of the variant's own module, loss and optimizer where those can be seen; else it is
    the first one on the variant's ladder.
    """
    if isinstance(variant, ModuleVariant) or variant.numpy:
        return None
    build, optimizer = variant.build, variant.optimizer
    if build is None or optimizer is None:
        step = next(drive(variant, pose(variant, tier, seed=0)), None)
        if isinstance(step, Step) and isinstance(step.model, nn.Module) and step.optimizer:
            settings = {name: v for name, v in step.optimizer.defaults.items() if name != "lr"}
            build = partial(deepcopy, step.model)
            optimizer = partial(type(step.optimizer), **settings)
    if build is not None and optimizer is not None and variant.loss is not None:
        own = {name: getattr(variant, name) for name in _SHARED}
        return ModuleVariant(variant.name, build=build, optimizer=optimizer, **own)
    return next(
        (
            other
            for other in example.variants
            if isinstance(other, ModuleVariant)
            and variant.ladder is not None
            and other.ladder == variant.ladder
            and variant.ladder_depth == other.ladder_depth == "trajectory"
        ),
        None,
    )


_SHARED = ("start", "documented_start", "loss", "metrics", "protocol", "facts", "data", "prepare")


def _seconds(variant: Variant, problem: Problem) -> float:
    """The median time from one step to the next."""
    times = []
    steps = (step for step in drive(variant, problem) if isinstance(step, Step))
    for _ in islice(steps, STEPS):
        times.append(time.perf_counter())
    between = [after - before for before, after in pairwise(times)]
    return median(between[len(between) // 10 :]) if between else 0.0
