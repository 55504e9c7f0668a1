"""Whole runs, each made once for every check that needs it, with some of their updates judged."""

from __future__ import annotations

import random
from dataclasses import dataclass

from refimpl.contract import Execution, Variant
from refimpl.data import Tier
from refimpl.parity.judged_updates import JudgedUpdates, Watcher
from refimpl.training.kept import Kept
from refimpl.training.loop import History, train
from refimpl.training.problem import pose

AT_RANDOM = 8
"""Updates that are judged besides the last and those whose numbers are powers of two."""


@dataclass(frozen=True)
class _Run:
    history: History
    updates: JudgedUpdates


_kept = Kept[_Run](8)


def trained(variant: Variant, tier: Tier, execution: Execution, seed: int | None = None) -> History:
    """The whole run of a variant by its protocol, not trained again while it is kept."""
    return _run(variant, tier, execution, seed).history


def judged_updates(variant: Variant, tier: Tier, execution: Execution) -> JudgedUpdates:
    """Some updates of that run, each judged with its own inputs."""
    return _run(variant, tier, execution, None).updates


def _run(variant: Variant, tier: Tier, execution: Execution, seed: int | None) -> _Run:
    def make() -> _Run:
        problem = pose(variant, tier, seed=seed, execution=execution)
        numbers = chosen(problem.length, variant.name)
        as_made = problem.protocol.clip is None
        with Watcher(numbers, as_made).watching() as updates:
            history = train(variant, problem, watched=True)
        if history.last is not None and history.last.gradients is not None:
            updates.stale.clear()  # the loop says itself which gradients it uses
        return _Run(history, updates)

    return _kept.of(variant, execution, make, tier, seed)


def chosen(length: int, name: str) -> set[int]:
    """The numbers, from 1, of the updates of a run of this length that are judged.

    Those at random are the same in each run of a variant, and others in the next variant.
    """
    powers = {2**exponent for exponent in range(length.bit_length())}
    others = random.Random(name).sample(range(1, length + 1), min(AT_RANDOM, length))
    return powers | {length, *others}
