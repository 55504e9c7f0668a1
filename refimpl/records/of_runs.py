"""How a whole run goes, as a record: its loss and the norm of each parameter, epoch by epoch.

Every epoch of the protocol is made, in float64, but with few updates of few rows in each, so that a
change of a late epoch is seen in seconds. A record ends where the run has amplified a change of its
start so much that rounding alone might show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from refimpl.contract import Variant
from refimpl.data import Tier, philox
from refimpl.training.curves import evenly_spaced
from refimpl.training.loop import steps_of
from refimpl.training.problem import Problem, pose

ROWS = 16
UPDATES = 2
"""So many updates of so many rows are made in each epoch; of all rows, if each update has all."""

POINTS = 25
"""The most epochs that a record has, evenly spaced."""

MOVED = 1e-12
"""By this share a start is moved to see how far a run can be compared: thousands of roundings."""

APART = 1e-6
"""A record ends where this share parts the moved run from its own: a tenth of what is allowed."""

DIGITS = 9


def record(variant: Variant, tier: Tier) -> dict[str, Any]:
    """The seed, and loss and norms at the end of those epochs that can be compared."""
    problem = _problem(variant, tier)
    own = dict(_epochs(variant, problem))
    other = dict(_epochs(variant, problem.but(values=_moved(problem.values))))
    kept = []
    for epoch in own:
        if _apart(own[epoch], other[epoch]) > APART:
            break
        kept.append(epoch)
    return {"seed": variant.seed, **_told({epoch: own[epoch] for epoch in kept})}


def today(variant: Variant, tier: Tier, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the recorded seed, as far as it is recorded, without a second run."""
    last = max(recorded["epochs"])
    variant = replace(variant, seed=recorded.get("seed", variant.seed))
    problem = _problem(variant, tier)
    found = dict(_epochs(variant, problem, last))
    return {
        **({"seed": variant.seed} if "seed" in recorded else {}),
        **_told({epoch: own for epoch, own in found.items() if epoch <= last}),
    }


def _problem(variant: Variant, tier: Tier) -> Problem:
    exact = pose(variant, tier, dropout=False, precision="float64")
    return exact.shortened(ROWS, UPDATES)


def _epochs(
    variant: Variant, problem: Problem, last: int | None = None
) -> Iterator[tuple[int, dict[str, float]]]:
    """Loss and norms at the end of the epochs that a record keeps, counted from 1."""
    per_epoch = problem.steps_per_epoch
    epochs = problem.protocol.epochs_on(problem.tier)
    kept = {1 + index for index in evenly_spaced(epochs, POINTS)}
    for number, step in enumerate(steps_of(variant, problem), start=1):
        epoch, left = divmod(number, per_epoch)
        if left == 0 and epoch in kept:
            norms = {
                name: float(torch.linalg.vector_norm(torch.as_tensor(own).detach().double()))
                for name, own in step.parameters.items()
            }
            yield epoch, {"loss": float(torch.as_tensor(step.total).detach()), **norms}
        if epoch == (last or epochs) and left == 0:
            return


def _moved(values: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Each number by that share; a zero is exact in every build, and often a kink, so it stays."""
    rng = philox("moved start")
    signs = {name: rng.choice([-1.0, 1.0], size=np.shape(own)) for name, own in values.items()}
    return {
        name: np.asarray(own, dtype=np.float64) * (1 + MOVED * signs[name])
        for name, own in values.items()
    }


def _apart(own: Mapping[str, float], other: Mapping[str, float]) -> float:
    return max(abs(own[name] - other[name]) / max(abs(own[name]), 1e-3) for name in own)


def _told(epochs: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    names = list(next(iter(epochs.values()), {}))
    return {
        "epochs": list(epochs),
        **{name: [float(f"{own[name]:.{DIGITS}g}") for own in epochs.values()] for name in names},
    }
