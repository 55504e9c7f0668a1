"""Figures: each a second time, from the final parameters and rows, by its definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from refimpl.checking.checks import Measurement, Subject, check, equal, true
from refimpl.conformance.checks.protocol import is_run_here
from refimpl.contract import Final, Variant
from refimpl.data import Rows, philox
from refimpl.parity.definitions import (
    Definition,
    loss_by_definition,
    metric_by_definition,
    numbers,
    rows_near_the_threshold,
)
from refimpl.parity.whole_runs import trained
from refimpl.training.loop import History, predictor
from refimpl.training.problem import Problem, pose
from refimpl.training.witness import Shown

CLOSE = 2e-5
"""How far, relatively, a figure in float32 may be from the same figure in float64."""

FEW = 3


@check(
    "figures-recomputed",
    applies=is_run_here,
    repeats=False,
    reading="a figure is of other rows, of another weighting, of another mode or epoch, or by "
    "another formula than its name says; the message has both values",
)
def figures_recomputed(subject: Subject) -> Iterator[Measurement]:
    """From the final parameters and rows, by definition and in float64: is each figure the same?"""
    variant = subject.trained
    run = trained(variant, subject.tier, subject.execution)
    problem = pose(variant, subject.tier, execution=subject.execution)
    seconds = dict(_second_time(variant, problem, run))
    for name, second in seconds.items():
        if name in run.final:
            yield second.compared(name, run.final[name])
    if run.witness is not None:
        yield from _each_loss(variant, run.witness.last)
    left = sorted(run.final.keys() - seconds.keys() - run.parameters.keys())
    yield Measurement(
        "figures without a definition of their own", len(left), "counted", True,
        where=", ".join(left),
    )  # fmt: skip


@dataclass(frozen=True)
class _Second:
    """A figure by its definition, how far another may be from it, and of what it is.

    ``too`` is another value that will do: of all rows alike, where batches are stated, for a loop
    that measures itself.
    """

    value: float
    margin: float
    of: str
    too: float | None = None

    def compared(self, name: str, found: float) -> Measurement:
        both = found == self.value or (np.isnan(found) and np.isnan(self.value))
        right = [self.value] if self.too is None else [self.value, self.too]
        holds = bool(both or any(abs(found - value) <= self.margin for value in right))
        message = f"{name} is {found:.8g}; {self.of}, by its definition, it is {self.value:.8g}"
        return true(f"{name} by its definition", holds, message)


def _second_time(variant: Variant, problem: Problem, run: History) -> Iterator[tuple[str, _Second]]:
    yield from _of_last_epoch(variant, problem, run)
    yield from _by_the_plugin(variant, problem, run)
    rows = problem.data.load(problem.tier).valid if not problem.streams else None
    own = [name for name in run.final if name.startswith("val_")]
    if run.last is None or run.last.model is None or not own or problem.streams:
        return
    of = "of the validation rows"
    if rows is None:
        rows, of = problem.data.load(problem.tier).train, "of all training rows"
    if not (isinstance(rows.x, np.ndarray) and isinstance(rows.y, np.ndarray)):
        return
    # A run that ends early has made an update beyond its last epoch.
    if problem.collate is not None or problem.protocol.stop is not None:
        return
    batches = _in_batches(problem, rows) if "validation" in of else [(rows.x, rows.y)]
    pairs = list(_predicted(variant, problem, run, batches))
    if not pairs:
        return
    whole = [tuple(np.concatenate(part) for part in zip(*pairs, strict=True))]
    sizes = [len(y) for _, y in pairs] if problem.protocol.average == "samples" else None
    how = f"{of}, in evaluation mode, {'weighted by' if sizes else 'a mean over'} batches"
    for name in own:
        bare = name.removeprefix("val_")
        stated = bare == "loss" or bare in (variant.metrics or {})
        definition = definition_of(variant, bare)
        if definition is None or (bare == "loss" and not _loss_is_stated(variant, run)):
            continue
        used = pairs if stated else whole
        value = _mean([definition(*pair) for pair in used], sizes if stated else None)
        near = sum(rows_near_the_threshold(output) for output, _ in pairs) / len(rows)
        margin = CLOSE * max(abs(value), 1e-3) + (near if bare != "loss" else 0.0)
        too = None
        if stated and sizes is None and variant.has_own_loop:
            too = _mean([definition(*pair) for pair in pairs], [len(y) for _, y in pairs])
        yield name, _Second(value, margin, how if stated else f"{of}, in evaluation mode", too)


def _by_the_plugin(
    variant: Variant, problem: Problem, run: History
) -> Iterator[tuple[str, _Second]]:
    """Figures of the plugin's own, which it computes a second time itself."""
    if variant.recompute is None or run.last is None or run.last.model is None or problem.streams:
        return
    splits = problem.data.load(problem.tier)
    with predictor(variant, run.last) as predict:
        final = Final(
            lambda x: numbers(predict(problem.tensor(x))),
            {name: numbers(torch.as_tensor(own)) for name, own in run.last.parameters.items()},
            splits.train,
            splits.valid,
        )
        for name, value in variant.recompute(final).items():
            margin = CLOSE * max(abs(value), 1e-3) if np.isfinite(value) else 0.0
            yield name, _Second(value, margin, "from the final model and the rows")


def definition_of(variant: Variant, name: str) -> Definition | None:
    """By its own definition, or, if the plugin brings the formula, by that in float64."""
    if name == "loss":
        return loss_by_definition(variant.loss) or (
            partial(_in_float64, variant.loss) if variant.loss is not None else None
        )
    given = (variant.metrics or {}).get(name)
    return metric_by_definition(name, variant.loss) or (
        partial(_in_float64, given) if given is not None else None
    )


def _in_float64(
    function: Callable[..., Tensor], output: NDArray[Any], target: NDArray[Any]
) -> float:
    with torch.no_grad():
        given = torch.as_tensor(target)
        given = given.double() if given.is_floating_point() else given
        return float(function(torch.as_tensor(output), given).double().mean())


def _mean(values: Sequence[float], sizes: Sequence[int] | None) -> float:
    """The mean without NaN, weighted if there are sizes."""
    own = np.array(values, dtype=np.float64)
    counted = ~np.isnan(own)
    if not counted.any():
        return float("nan")
    weights = np.ones(len(own)) if sizes is None else np.array(sizes, dtype=np.float64)
    return float(np.average(own[counted], weights=weights[counted]))


# --- validation ----------------------------------------------------------------------------------


def _in_batches(problem: Problem, rows: Rows) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The validation rows in the document's batches, by its protocol."""
    protocol, x, y = problem.protocol, rows.x, rows.y
    if protocol.shuffle_valid:
        order = philox("valid-order", problem.seed).permutation(len(rows))
        x, y = x[order], y[order]
    everything = len(problem.data.load(problem.tier).train)
    size = protocol.valid_batch_size or min(protocol.batch_size or everything, everything)
    for first in range(0, len(rows), size):
        yield x[first : first + size], y[first : first + size]


def _predicted(
    variant: Variant,
    problem: Problem,
    run: History,
    batches: Iterator[tuple[NDArray[Any], NDArray[Any]]] | list[tuple[NDArray[Any], NDArray[Any]]],
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Outputs of the final model in evaluation mode, with their targets, as NumPy arrays.

    None if it has several outputs.
    """
    assert run.last is not None
    with predictor(variant, run.last) as predict:
        for x, y in batches:
            output = predict(problem.tensor(x))
            if not isinstance(output, Tensor):
                return
            yield numbers(output), np.asarray(y)


# --- training ------------------------------------------------------------------------------------


def _of_last_epoch(
    variant: Variant, problem: Problem, run: History
) -> Iterator[tuple[str, _Second]]:
    """The training figures: means over the updates of the last epoch, by what each showed."""
    if problem.protocol.report == "last-batch":
        yield from _of_last_batch(variant, problem, run)
        return
    if run.witness is None:
        return
    last = [shown for shown in run.witness.last if _plain(shown)]
    if not last or len(last) != len(run.witness.last):
        return
    pairs = [(numbers(shown.output), numbers(shown.target)) for shown in last]
    figures = [n for n in run.final if n == "loss" or n in (variant.metrics or {})]
    for name in figures:
        definition = definition_of(variant, name)
        if definition is None or (name == "loss" and not _minimised(variant, last)):
            continue
        value = _mean([definition(*pair) for pair in pairs], None)
        rows = sum(len(target) for _, target in pairs)
        near = sum(rows_near_the_threshold(output) for output, _ in pairs) / rows
        margin = CLOSE * max(abs(value), 1e-3) + (near if name != "loss" else 0.0)
        yield name, _Second(value, margin, "as a mean over the batches of the last epoch")


def _of_last_batch(
    variant: Variant, problem: Problem, run: History
) -> Iterator[tuple[str, _Second]]:
    """The training figures of a document that prints those of the last batch, after its update."""
    if run.last is None or run.last.model is None or problem.streams:
        return
    *_, (x, y) = problem.but(checkpoint=None).epoch_batches(run.epochs[-1].epoch - 1)
    with predictor(variant, run.last) as predict:
        output = predict(x)
    if not (isinstance(output, Tensor) and isinstance(y, Tensor)):
        return
    pair = numbers(output), numbers(y)
    for name in (n for n in run.final if n == "loss" or n in (variant.metrics or {})):
        definition = definition_of(variant, name)
        if definition is None or (name == "loss" and not _loss_is_stated(variant, run)):
            continue
        value = definition(*pair)
        near = rows_near_the_threshold(pair[0]) / len(y) if name != "loss" else 0.0
        margin = CLOSE * max(abs(value), 1e-3) + near
        yield name, _Second(value, margin, "of the last batch, after its update")


def _plain(shown: Shown) -> bool:
    return isinstance(shown.output, Tensor) and isinstance(shown.target, Tensor)


def _loss_is_stated(variant: Variant, run: History) -> bool:
    """Whether a loop of one's own minimises the stated loss alone, as far as that can be seen."""
    last = run.witness.last if run.witness is not None else []
    if not variant.has_own_loop or not last or not all(map(_plain, last)):
        return True
    return _minimised(variant, last)


def _minimised(variant: Variant, last: Sequence[Shown]) -> bool:
    """Whether what the variant minimises is its stated loss, and not that and a penalty.

    So it is if that can be said of any full batch: a loss that is wrong in the short one is seen.
    """
    definition = definition_of(variant, "loss")
    assert definition is not None
    first = last[0]
    if isinstance(first.loss, Mapping):
        return False
    value = definition(numbers(first.output), numbers(first.target))
    return abs(float(torch.as_tensor(first.loss)) - value) <= 1e-3 * max(abs(value), 1e-3)


def _each_loss(variant: Variant, last: Sequence[Shown]) -> Iterator[Measurement]:
    """The loss of every update of the last epoch, the short one too, from its own output."""
    definition = definition_of(variant, "loss")
    if definition is None or not last or not all(_plain(shown) for shown in last):
        return
    if not _minimised(variant, last):
        return
    wrong = []
    for number, shown in enumerate(last, start=1):
        value = definition(numbers(shown.output), numbers(shown.target))
        found = float(torch.as_tensor(shown.loss))
        if abs(found - value) > CLOSE * 10 * max(abs(value), 1e-3):
            rows = len(shown.target)
            wrong.append(f"batch {number} ({rows} rows): {found:.6g}, by definition {value:.6g}")
    measured = equal("losses of the last epoch that are not their outputs'", wrong[:FEW], [])
    yield measured
