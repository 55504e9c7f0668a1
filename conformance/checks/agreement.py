"""Variants of a ladder are the same computation, from one start over the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from refimpl.checking.checks import Measurement, Place, Subject, check, true, within_budget
from refimpl.parity.lockstep import Comparison, Divergence, compare_in_ladder
from refimpl.threads import LARGE
from refimpl.training.curves import Curve, curve
from refimpl.training.ladder import first_of_ladder
from refimpl.training.problem import pose

STEPS, OF_LARGE_BATCHES = 10, 5
"""The steps over which two variants, or two executions of one, are compared; of large batches."""


def steps_to_compare(subject: Subject) -> int:
    """Fewer of large batches, for each draw of the oracle takes all of them in float64."""
    problem = pose(subject.trained, subject.tier)
    return OF_LARGE_BATCHES if problem.numbers_in_a_batch >= LARGE else STEPS


def _has_a_rung_below(subject: Subject) -> bool:
    variant = subject.trained
    return variant.ladder is not None and first_of_ladder(subject.example, variant) != variant


@check(
    "ladder-agrees-in-float64",
    needs="float64",
    applies=_has_a_rung_below,
    reading="two ways of writing one computation differ: compare them with refimpl compare "
    "EXAMPLE A B",
)
def ladder_in_float64(subject: Subject) -> Iterator[Measurement | Curve]:
    """In float64, does every step agree with the ladder's first variant, up to rounding?"""
    yield from _agreement(subject, "float64")


@check(
    "ladder-agrees-in-float32",
    applies=_has_a_rung_below,
    reading="they agree in float64, so that it is rounding: an operation is done in another order "
    "or precision",
)
def ladder_in_float32(subject: Subject) -> Iterator[Measurement | Curve]:
    """In float32, does every step stay within float32's own rounding error?"""
    yield from _agreement(subject, "float32")


def _agreement(subject: Subject, precision: str) -> Iterator[Measurement | Curve]:
    variant = subject.trained
    reference = first_of_ladder(subject.example, variant)
    comparison = compare_in_ladder(
        reference, variant, subject.tier, steps_to_compare(subject), precision, subject.execution
    )
    yield from agreement(comparison)


def agreement(comparison: Comparison) -> Iterator[Measurement | Curve]:
    """What a comparison measured: whether and where it diverged, the worst error, and growth."""
    parted = comparison.divergence
    agrees = true("agreement", comparison.agrees, str(comparison), where=str(parted or ""))
    yield replace(agrees, place=_place(parted) if parted else None)
    # If it diverged, the error has no meaning beyond that, so that its message adds nothing.
    yield replace(within_budget("worst error ratio", comparison.worst_ratio), message="")
    yield Measurement(
        "tensors compared", comparison.judged, "≥ 1", comparison.judged > 0, low=1.0
    )  # what "agreement" says is not said twice
    if comparison.blind:
        what = "tensors not compared, whose budget is over a tenth of their value"
        yield Measurement(what, len(comparison.blind), "counted", True, where=comparison.unjudged)
    if comparison.ties:
        what = "near ties, which rounding decides"
        yield Measurement(what, len(comparison.ties), "counted", True, where=comparison.near_ties)
    yield curve("error over budget", comparison.ratios, along="step")


def _place(parted: Divergence) -> Place:
    close = parted.closeness
    return Place(parted.step, parted.kind, parted.name, close.found, close.expected, parted.inside)
