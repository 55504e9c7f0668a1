"""The first steps of a run with every call of torch judged; made once for all that ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from refimpl.composition import precision_of
from refimpl.contract import Execution, Step, Variant
from refimpl.data import Tier
from refimpl.parity.kernel_judge import JudgedCall, KernelJudge
from refimpl.parity.leaf_modules import SHORT
from refimpl.threads import LARGE
from refimpl.training.checkpoint import take
from refimpl.training.kept import Kept
from refimpl.training.loop import drive, predictor, steps_of, swiftly
from refimpl.training.problem import Problem, pose

STEPS = 2
"""Steps of which every call is judged: the first, and one from a state of the optimizer."""

PRODUCTS = frozenset(["mm", "addmm", "bmm", "baddbmm"])
WATCHED = 150
"""Products of matrices that are judged in further steps, for faults that come now and then."""

ROWS = 64
"""Rows whose predictions are judged."""

_kept = Kept[KernelJudge](4)


def judged(variant: Variant, execution: Execution, tier: Tier) -> KernelJudge:
    """Every call of the first steps and of predictions after them, dropout included."""
    return _kept.of(variant, execution, lambda: _judge(variant, execution, tier), tier)


def first_beyond(variant: Variant, execution: Execution, tier: Tier) -> JudgedCall | None:
    """The first call that rounding does not explain, or ``None``."""
    return next(iter(judged(variant, execution, tier).beyond), None)


def computes_here(execution: Execution) -> bool:
    """Whether a run is made in this process, where its calls can be seen."""
    return execution.steps is None or execution.sees_outputs


def _judge(variant: Variant, execution: Execution, tier: Tier) -> KernelJudge:
    judge = KernelJudge()

    @contextmanager
    def around() -> Iterator[None]:
        # Innermost, so that it sees what modes of the execution do instead of a call.
        with execution.around(), judge:
            yield

    posed = pose(variant, tier, execution=execution, precision=execution.dtype or "float32")
    watched = replace(execution, around=around)
    whole = swiftly(posed)
    plain = execution.wrap is None and execution.steps is None
    itself = plain and precision_of(execution) == torch.float32
    _judge_run(variant, whole.but(execution=watched), judge, "", WATCHED if itself else 0)
    if not itself:
        return judge  # what follows is the same program's, with nothing around it
    if whole.swift:
        written = " of the program as it is written"  # its products are those of the faster one
        _judge_run(variant, posed.but(execution=watched), judge, written, 0)
    at_last = _at_last_batch(variant, posed)
    if at_last is not None:
        judge.during, judge.only = "the short last batch of an epoch", None
        next(steps_of(variant, at_last.but(execution=watched), 1))
    judge.during, judge.only = "a run of one epoch", None
    for _ in drive(variant, posed.but(execution=watched).short_run(SHORT)):
        pass  # for what a loop computes beside its steps: figures, a forecast
    return judge


def _judge_run(
    variant: Variant, problem: Problem, judge: KernelJudge, run: str, products: int
) -> None:
    """The first steps, and predictions after them; ``run`` says of which run in the messages.

    Further steps are made until so many ``products`` are judged.
    """
    last = _step_by_step(variant, problem, judge, run, products)
    if last is not None and last.model is not None:
        judge.during, judge.only = f"evaluation{run}", None
        # What the execution does around a step, it does around predictions too.
        with problem.execution.around(), predictor(variant, last) as predict:
            predict(problem.sample(ROWS))
            judge.during = f"evaluation of {SHORT} rows{run}"
            predict(problem.sample(SHORT))


def _at_last_batch(variant: Variant, problem: Problem) -> Problem | None:
    """The run from the short last batch of its first epoch on, if there is one."""
    if problem.streams or not len(problem.train) % problem.batch_size:
        return None
    [first] = steps_of(variant, problem, 1)
    return problem.but(checkpoint=replace(take(first, 1), step=problem.steps_per_epoch - 1))


def _step_by_step(
    variant: Variant, problem: Problem, judge: KernelJudge, run: str, products: int
) -> Step | None:
    last: Step | None = None
    judge.during, judge.only = f"step 1{run}", None
    size = problem.numbers_in_a_batch
    for number, step in enumerate(steps_of(variant, problem), 1):
        last = step
        seen = sum(judge.judged[f"aten::{kernel}"] for kernel in PRODUCTS)
        if size >= LARGE or (number >= STEPS and (not seen or seen >= products)):
            break
        judge.during = f"step {number + 1}{run}"
        judge.only = PRODUCTS if number >= STEPS else None
    return last
