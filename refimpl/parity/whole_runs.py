"""Whole runs, each made once for every check that needs it, with some of their updates judged.

A fault may depend on how often something was called: a table that is too short, a count that
overflows, each fiftieth update. So updates from all of a run are judged, and not its first alone.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from refimpl.contract import Execution, Variant
from refimpl.data import Tier
from refimpl.parity.kernel_judge import KernelJudge
from refimpl.training.kept import Kept
from refimpl.training.loop import History, train
from refimpl.training.problem import pose

AT_RANDOM = 16
"""Updates that are judged besides the last and those whose numbers are powers of two."""


@dataclass(frozen=True)
class _Run:
    history: History
    updates: KernelJudge


_kept = Kept[_Run](8)


def trained(variant: Variant, tier: Tier, execution: Execution, seed: int | None = None) -> History:
    """The whole run of a variant by its protocol, not trained again while it is kept."""
    return _run(variant, tier, execution, seed).history


def judged_updates(variant: Variant, tier: Tier, execution: Execution) -> KernelJudge:
    """The calls of its optimizer in some updates of that run, each judged with its own inputs."""
    return _run(variant, tier, execution, None).updates


def _run(variant: Variant, tier: Tier, execution: Execution, seed: int | None) -> _Run:
    def make() -> _Run:
        problem = pose(variant, tier, seed=seed, execution=execution)
        judge = KernelJudge()
        with _judging(judge, chosen(problem.length, variant.name)):
            history = train(variant, problem, watched=True)
        return _Run(history, judge)

    return _kept.of(variant, execution, make, tier, seed)


def chosen(length: int, name: str) -> set[int]:
    """The numbers, from 1, of the updates of a run of this length that are judged.

    Those at random are the same in each run of a variant, and others in the next variant.
    """
    powers = {2**exponent for exponent in range(length.bit_length())}
    others = random.Random(name).sample(range(1, length + 1), min(AT_RANDOM, length))
    return powers | {length, *others}


@contextmanager
def _judging(judge: KernelJudge, numbers: Collection[int]) -> Iterator[None]:
    """Let optimizers make their steps of these numbers under the judge."""
    made, entered = count(1), ExitStack()

    def begins(*of: Any) -> None:
        number = next(made)
        if number in numbers:
            judge.during = f"update {number} of the run"
            entered.enter_context(judge)

    with ExitStack() as hooks:
        hooks.callback(entered.close)
        hooks.callback(register_optimizer_step_pre_hook(begins).remove)
        hooks.callback(register_optimizer_step_post_hook(lambda *of: entered.close()).remove)
        yield
