"""What a run reads: every row once an epoch, each epoch in its own order, then validation rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from refimpl.checking.checks import Measurement, Subject, check, equal, within
from refimpl.contract import Epoch, Step, Variant
from refimpl.training.checkpoint import take
from refimpl.training.loop import drive, steps_of, swiftly, validation_figures
from refimpl.training.problem import Problem, pose
from refimpl.training.witness import taken
from refimpl.trees import leaves, mapped

WHOLE = 50
"""An epoch of at most this many updates is read whole, a longer one at its beginning and end."""

BEGINNING = 20
FEW, FEW_ROWS = 10, 64
"""Epochs of so many updates are read whole by a run whose parameters change their sign after each;
others have one update, of so many rows."""

AROUND = 2
"""How many updates are read before and after the end of an epoch."""


ROUNDING = 1e-4
"""How far, relatively, a variant's own figure may be from the same figure measured for it."""


@check(
    "reads-its-batches",
    reading="rows are left out, read twice, or in another order than the batches; or a figure is "
    "measured on other rows, or is that of another epoch",
)
def reads_its_batches(subject: Subject) -> Iterator[Measurement]:
    """Does each step train on its own batch, and does each epoch report the validation figures?

    Reads to the end of an epoch and into the next, with another seed than the variant's own, which
    must decide the order of the rows.
    """
    variant = subject.trained
    problem = swiftly(
        pose(variant, subject.tier, seed=variant.seed + 1, execution=subject.execution)
    )
    yield from _inputs(problem)
    per_epoch = problem.steps_per_epoch
    stretches = [(0, per_epoch + AROUND)]
    if per_epoch > WHOLE:
        stretches = [(0, BEGINNING), (per_epoch - AROUND, 2 * AROUND)]
    for begin, count in stretches:
        left = problem.length - begin
        yield from _read(variant, _at(subject, problem, begin), begin, min(count, left))
    yield from _of_its_own_epoch(variant, problem)


def _inputs(problem: Problem) -> Iterator[Measurement]:
    """Whether the batches of an epoch, which torch's indexing makes, have the rows of NumPy's."""
    if problem.streams or problem.collate is not None:
        return
    x = problem.train.x
    if not isinstance(x, torch.Tensor) or x.dtype == torch.bfloat16:
        return
    read = torch.cat([rows for rows, _ in problem.epoch_batches(0)]).cpu().numpy()
    order = problem.row_order(0)[: len(read)]
    other = (read != taken(x, order).cpu().numpy()).reshape(len(read), -1).any(1)
    yield equal("rows of an epoch with another row's inputs", order.numpy()[other][:5].tolist(), [])


def _read(variant: Variant, problem: Problem, begin: int, count: int) -> Iterator[Measurement]:
    """Which batches some updates of a run use, and the figures that the variant reports."""
    updates = problem.updates()
    wrong: list[int] = []
    made = 0
    last: Step | None = None
    for seen in drive(variant, problem):
        if isinstance(seen, Epoch):
            if last is not None:
                yield from _figures(variant, problem, last, seen)
            continue
        last, made = seen, made + 1
        batches = next(updates, None)
        if batches is None:
            break
        expected = [leaves(target) for _, target in batches]
        if seen.target is not None and not _same_targets(leaves(seen.target), expected):
            wrong.append(begin + made)
        if made == count:
            break
    yield equal(f"steps from step {begin + 1} on", made, count)
    yield equal("steps that learn from other targets than their batch's", wrong[:5], [])


def _of_its_own_epoch(variant: Variant, problem: Problem) -> Iterator[Measurement]:
    """Whether figures follow the parameters as they get worse, and are not the best so far.

    The parameters change their sign after each of three short epochs, so that every figure once
    gets better and once worse.
    """
    protocol = replace(problem.protocol, epochs=3, stand_in_epochs=None, stop=None)
    longer = problem.but(protocol=protocol)
    short = longer if longer.steps_per_epoch <= FEW else longer.shortened(FEW_ROWS, 1)
    last, made = None, 0
    for seen in drive(variant, short):
        if isinstance(seen, Step):
            made += 1
            if made > short.steps_per_epoch:  # it measures no figures itself
                return
            last = seen
        elif last is not None:
            made = 0
            yield from _figures(variant, short, last, seen)
            with torch.no_grad():
                for parameter in last.parameters.values():
                    if isinstance(parameter, torch.Tensor):
                        parameter.neg_()


def _figures(variant: Variant, problem: Problem, step: Step, epoch: Epoch) -> Iterator[Measurement]:
    """Compare the figures of an epoch with the same ones measured for the variant.

    Either kind of mean, over batches or over samples, will do. The loss is left out if what the
    variant minimises is not the stated loss alone.
    """
    batches = list(problem.valid_batches())
    by_batches, by_samples = (
        validation_figures(variant, step, batches, weighted) for weighted in (False, True)
    )
    for name in sorted(epoch.metrics.keys() & by_batches.keys()):
        if name != "val_loss" or _loss_is_as_stated(variant, step):
            own = epoch.metrics[name]
            expected = min(by_batches[name], by_samples[name], key=lambda value: abs(value - own))
            if math.isnan(own) and math.isnan(expected):  # of rows that do not define it
                continue
            margin = ROUNDING * max(abs(expected), ROUNDING)
            yield within(
                f"{name} that it measured itself", own, expected - margin, expected + margin
            )


def _loss_is_as_stated(variant: Variant, step: Step) -> bool:
    if variant.loss is None or step.output is None or step.target is None:
        return False
    output = mapped(torch.Tensor.detach, step.output)
    stated = float(variant.loss(output, step.target))
    shown = float(torch.as_tensor(step.total).detach())
    return abs(stated - shown) <= ROUNDING * abs(stated)


def _at(subject: Subject, problem: Problem, begin: int) -> Problem:
    """The same run, continued after ``begin`` updates, which need not have been made."""
    if not begin:
        return problem
    [first] = steps_of(subject.trained, problem, 1)
    return problem.but(checkpoint=replace(take(first, 1), step=begin))


def _same_targets(shown: Sequence[Any], batches: Sequence[Sequence[Any]]) -> bool:
    """Whether a step's target is that of its batches, leaf by leaf and one after the other."""
    expected = [torch.cat([_plain(part) for part in parts]) for parts in zip(*batches, strict=True)]
    return len(shown) == len(expected) and all(
        torch.equal(_plain(own), other) for own, other in zip(shown, expected, strict=True)
    )


def _plain(target: torch.Tensor) -> torch.Tensor:
    """The numbers of a target in row order, whatever its shape and dtype."""
    return torch.as_tensor(target).detach().to("cpu", torch.float64, copy=True).flatten()
