"""Whole runs, each made once for every check that needs it, with some of their steps judged."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from refimpl.contract import Execution, Variant
from refimpl.data import Tier
from refimpl.parity.judged_updates import JudgedUpdates, Watcher
from refimpl.threads import LARGE
from refimpl.training.kept import Kept
from refimpl.training.loop import History, train
from refimpl.training.problem import pose

AT_RANDOM, AT_MOST, NUMBERS = 8, 100, 200_000
"""Updates that are judged besides the last and those whose numbers are powers of two: so many at
least, and in small models more, up to so many updates and so many parameters in all of them."""

CALLS_AT_RANDOM = 4
"""Steps of which every call is judged besides the last, if they are small."""


@dataclass(frozen=True)
class _Run:
    history: History
    updates: JudgedUpdates


_kept = Kept[_Run](16)


def trained(variant: Variant, tier: Tier, execution: Execution, seed: int | None = None) -> History:
    """The whole run of a variant by its protocol, not trained again while it is kept."""
    return _run(variant, tier, execution, seed).history


def judged_updates(variant: Variant, tier: Tier, execution: Execution) -> JudgedUpdates:
    """Some updates of that run, each judged with its own inputs."""
    return _run(variant, tier, execution, None).updates


def _run(variant: Variant, tier: Tier, execution: Execution, seed: int | None) -> _Run:
    def make() -> _Run:
        problem = pose(variant, tier, seed=seed, execution=execution)
        size = sum(np.size(value) for value in problem.values.values())
        numbers = chosen(problem.length, size, variant.name)
        steps = last = {problem.length}
        if problem.numbers_in_a_batch < LARGE:
            steps = last | chosen_steps(problem.length, problem.steps_per_epoch, variant.name)
        as_made = problem.protocol.clip is None
        with Watcher(numbers, steps, last, as_made).watching() as updates:
            history = train(variant, problem, watched=True)
        if history.last is not None and history.last.gradients is not None:
            updates.stale.clear()  # the loop says itself which gradients it uses
        return _Run(history, updates)

    return _kept.of(variant, execution, make, tier, seed)


def chosen(length: int, parameters: int, name: str) -> set[int]:
    """The numbers, from 1, of the updates of a run of this length that are judged.

    Those at random are the same in each run of a variant, and others in the next variant.
    """
    powers = {2**exponent for exponent in range(length.bit_length())}
    count = min(max(AT_RANDOM, NUMBERS // max(parameters, 1)), AT_MOST, length)
    others = random.Random(name).sample(range(1, length + 1), count)
    return powers | {length, *others}


def chosen_steps(length: int, per_epoch: int, name: str) -> set[int]:
    """The numbers, from 1, of a few steps of a run of this length.

    None begins an epoch: before it, the loop may measure all its validation rows.
    """
    within = [number for number in range(2, length) if per_epoch == 1 or number % per_epoch != 1]
    return set(random.Random(name).sample(within, min(CALLS_AT_RANDOM, len(within))))
