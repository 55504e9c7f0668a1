"""What a run reads: every row once an epoch, and each epoch in an order of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from refimpl.checking import Measurement, Subject, check, equal
from refimpl.checkpoint import take
from refimpl.contract import Step
from refimpl.problem import Problem, pose
from refimpl.training import steps_of

WHOLE = 100
"""An epoch of at most so many updates is read whole; of a longer one the beginning and the end."""

BEGINNING = 20
AROUND = 2
"""How many updates are looked at before and after the end of an epoch."""


@check("reads-its-batches")
def reads_its_batches(subject: Subject) -> Iterator[Measurement]:
    """Is what each step learns from its batch's target, to the end of an epoch and into the next?

    Asked of a seed that is not the variant's own: the order of the rows is to follow it.
    """
    variant = subject.trained
    problem = pose(variant, subject.tier, seed=variant.seed + 1, execution=subject.execution)
    per_epoch = problem.steps_per_epoch
    stretches = [(0, per_epoch + AROUND)]
    if per_epoch > WHOLE:
        stretches = [(0, BEGINNING), (per_epoch - AROUND, 2 * AROUND)]
    last = per_epoch * problem.protocol.epochs_on(problem.tier)
    for begin, count in stretches:
        count = min(count, last - begin)
        there = _at(subject, problem, begin)
        steps = list(_targets(subject, there, count))
        yield equal(f"steps from step {begin + 1} on", len(steps), count)
        expected = (_plain(y) for _, y in there.batches())
        pairs = enumerate(zip(steps, expected, strict=False), begin + 1)
        wrong = [n for n, (y, own) in pairs if y is not None and not torch.equal(y, own)]
        yield equal("steps that learn from other targets than their batch's", wrong[:5], [])


def _at(subject: Subject, problem: Problem, begin: int) -> Problem:
    """The same run, taken up after so many updates, none of which need have been made."""
    if not begin:
        return problem
    [first] = steps_of(subject.trained, problem, 1)
    return problem.but(checkpoint=replace(take(first, 1), step=begin))


def _targets(subject: Subject, problem: Problem, count: int) -> Iterator[torch.Tensor | None]:
    """What each step held its output against, where it shows that."""
    step: Step
    for step in steps_of(subject.trained, problem, count):
        yield None if step.target is None else _plain(step.target)


def _plain(target: torch.Tensor) -> torch.Tensor:
    """Numbers in the order of the rows, whatever their shape and dtype."""
    return torch.as_tensor(target).detach().to("cpu", torch.float64, copy=True).flatten()
