"""What is predicted, in each mode in which torch may take other kernels for it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from refimpl.checking.checks import Measurement, Subject, check, equal, within_budget
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
    yield from _modes()
    worst = 0.0
    for seen in compare_predictions(subject.trained, subject.execution, subject.tier):
        if seen.ratio <= 1:
            worst = max(worst, seen.ratio)
        else:
            yield beyond(seen)
    yield within_budget("furthest prediction over what rounding explains", worst)


def _modes() -> Iterator[Measurement]:
    """Whether nothing is recorded where it is said that nothing is."""
    x = torch.ones(1, requires_grad=True)
    with torch.no_grad():
        plain = 2 * x
    with torch.inference_mode():
        inferred = 2 * x
    afterwards = 2 * x
    yield equal("what no_grad records for gradients", plain.requires_grad, False)
    yield equal("what inference_mode records for gradients", inferred.requires_grad, False)
    yield equal("tensors of inference_mode are marked", inferred.is_inference(), True)
    yield equal("what is recorded after these modes", afterwards.requires_grad, True)
