"""Whether loops of the same training end alike: shown before any of them is timed."""

from __future__ import annotations

import torch

from benchmarks.epochs import of_epochs
from benchmarks.loops import End
from refimpl import Variant
from refimpl.training.ladder import to_ladder
from refimpl.training.loop import train
from refimpl.training.problem import Problem

AGREE_EPOCHS = 3
"""How many epochs of the loops are compared, in float64: rounding has not grown much by then.

On real data it may have, as an epoch of MNIST has 469 updates.
"""

LARGEST = 1e-9
"""How far apart parameters may end, relative to the largest of their tensor."""


def by_refimpl(variant: Variant, problem: Problem, eager: list[str] | None = None) -> End:
    """The run that ``refimpl run`` makes; ``eager`` is filled with why it replays no graph."""
    history = train(variant, problem)
    assert history.last is not None
    if eager is not None and history.replays is not None:
        eager[:] = [history.replays.why_not]
    parameters = {n: torch.as_tensor(p).detach() for n, p in history.last.parameters.items()}
    return End(parameters, dict(history.epochs[-1].metrics), history.last.model)


def first_epochs(problem: Problem) -> Problem:
    """The few epochs of the same problem that are compared: in float64, of the stand-in rows."""
    stand_in = problem.but(tier="stand-in", precision="float64")
    return of_epochs(stand_in, AGREE_EPOCHS)


def apart_of(variant: Variant, one: End, other: End) -> float:
    """The largest difference of a parameter value, relative to the largest of its tensor."""
    mine, theirs = to_ladder(variant, one.parameters), to_ladder(variant, other.parameters)
    return max(
        float((mine[name] - theirs[name]).abs().max() / mine[name].abs().max().clamp_min(1e-12))
        for name in mine
    )
