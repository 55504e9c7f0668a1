"""What is predicted, in each mode in which torch may take other kernels for it."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checking.checks import Measurement, Subject, check, within_budget
from refimpl.conformance.checks.kernels import beyond
from refimpl.parity.evaluation import compare_predictions


def _predicts_here(subject: Subject) -> bool:
    return subject.execution.steps is None and not subject.trained.numpy


@check(
    "predicts-as-its-oracle",
    about="execution",
    applies=_predicts_here,
    reading="training is not concerned: in the mode that is named, torch takes another kernel, or "
    "the wrapper another path",
)
def predicts_as_its_oracle(subject: Subject) -> Iterator[Measurement]:
    """In evaluation, with and without gradients, are predictions those of the float64 oracle?"""
    worst = 0.0
    for seen in compare_predictions(subject.trained, subject.execution, subject.tier):
        if seen.ratio <= 1:
            worst = max(worst, seen.ratio)
        else:
            yield beyond(seen)
    yield within_budget("furthest prediction over what rounding explains", worst)
