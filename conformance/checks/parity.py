"""A variant computes the same on every device, in every wrapper and on every torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from refimpl.checking.checks import (
    CannotRunError,
    Measurement,
    Subject,
    check,
    equal,
    true,
    within_budget,
)
from refimpl.composition import precision_of
from refimpl.conformance.checks.agreement import agreement, steps_to_compare
from refimpl.parity.against_oracle import (
    compare_execution,
    is_narrow,
    shard_gradients,
    wrapped_calls,
)
from refimpl.parity.golden import compare_with_golden, golden_exists
from refimpl.parity.judged_steps import computes_here, first_beyond
from refimpl.parity.lockstep import Comparison, Rounding, judge
from refimpl.requirements import TOO_COARSE
from refimpl.training.curves import Curve

SHARDS = 3
"""An odd number, so that batches fall into uneven shards."""


@check(
    "same-on-every-execution",
    about="execution",
    reading="a device, wrapper or precision computes something else than the float64 oracle; the "
    "message names the first tensor and module",
)
def same_on_every_execution(subject: Subject) -> Iterator[Measurement | Curve]:
    """Under this execution, does every step stay within the rounding error of its precision?"""
    with wrapped_calls(subject.execution) as (execution, calls):
        comparison = compare_execution(
            subject.trained, execution, subject.tier, steps_to_compare(subject)
        )
    rounding = precision_of(subject.execution)
    if comparison.shows_nothing and is_narrow(rounding):
        raise CannotRunError(TOO_COARSE)
    yield from agreement(comparison)
    if not comparison.agrees and computes_here(subject.execution):
        first = first_beyond(subject.trained, subject.execution, subject.tier)
        if first is not None:
            yield true("the first kernel that is off", False, f"the first kernel off is {first}")
    if is_narrow(rounding):
        yield true(
            f"the run is in {rounding}",
            not comparison.within_float32,
            f"it was not narrow: its first step is within what rounding to float32 explains, so "
            f"nothing was computed in {rounding}",
        )
    if subject.execution.wrap is not None:
        yield true(
            "the module was wrapped", bool(calls), "no module was wrapped, so nothing was tested"
        )


@check(
    "shards-make-the-batch",
    needs="float64",
    applies=lambda subject: subject.trained.splits,
    reading="the loss is a sum and no mean over rows, or a layer mixes the rows of a batch "
    "(BatchNorm)",
)
def shards_make_the_batch(subject: Subject) -> Iterator[Measurement]:
    """Do the gradients of uneven shards, weighted by rows, average to those of the whole batch?"""
    split = shard_gradients(subject.trained, subject.tier, SHARDS, execution=subject.execution)
    if split.shown:
        yield equal("rows of each shard's output", split.shown, split.rows)
    rounding = Rounding()
    for draw in split.drawn:
        rounding.widen(draw, split.whole)
    comparison = Comparison("the mean over shards", "the whole batch", "float64")
    for seen, close in judge(comparison, 1, split.mean, split.whole, rounding, torch.float64):
        ratio = within_budget(f"error ratio of gradient {seen.name}", close.error_ratio)
        message = (
            f"the gradient of {seen.name} over {SHARDS} shards is {close.found:.6g} where that of "
            f"the whole batch is {close.expected:.6g}: the loss is no mean over the rows, a layer "
            "mixes rows, or torch computes short batches otherwise (each-kernel-is-right names "
            "the kernel); if it is the document's way, set data_parallel=False"
        )
        yield replace(ratio, message="" if ratio.holds else message)


@check(
    "golden-trajectory",
    needs="float64",
    applies=lambda s: golden_exists(s.example, s.trained.name),
    reading="this torch computes something else than the torch that the golden file was made "
    "with; the first wrong tensor of the first step names the part: output, loss, "
    "gradient or update",
)
def golden_trajectory(subject: Subject) -> Iterator[Measurement | Curve]:
    """Do the first steps in float64 reproduce those committed from another torch?"""
    comparison = compare_with_golden(subject.example, subject.trained, subject.execution)
    yield from agreement(comparison)
