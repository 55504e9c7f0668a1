"""What a plugin brings to measure with: its metrics and losses, where definitions differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from refimpl.calls import EachCall
from refimpl.checking.checks import Measurement, Subject, check, true
from refimpl.contract import Variant
from refimpl.parity.definitions import Definition, loss_by_definition, metric_by_definition
from refimpl.training.loop import steps_of
from refimpl.training.problem import pose

CLOSE = 1e-5
"""How far, relatively, a result in float32 may be from that of NumPy in float64."""

FEW_ROWS = 8
"""An update of so many rows calls the loss as any other does."""

ROUNDING = 1e-4

SHARES_OF_NONE = ("recall", "precision", "f1")
"""Scores that are 0 ÷ 0 where a class does not occur: undefined here, 0 in scikit-learn."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Probe:
    """Outputs and targets at a boundary, and what boundary it is.

    If classes are ``tied``, each of them is right, and only the loss is defined.
    """

    what: str
    output: Array
    target: Array
    tied: bool = False


def _is_measured(subject: Subject) -> bool:
    return subject.trained.trains and not subject.trained.numpy


@check(
    "measures-by-definition",
    on_cpu=True,
    applies=_is_measured,
    reading="a metric or loss is another than its name says at a boundary, or is given what it "
    "does not expect: probabilities for logits, logarithms for probabilities",
)
def measures_by_definition(subject: Subject) -> Iterator[Measurement]:
    """Are metrics and losses those of scikit-learn and SciPy at boundaries, and fed what they want?

    Boundaries are equal scores, exactly one half, one class only, one row, no row.
    """
    variant = subject.trained
    problem = pose(variant, subject.tier).shortened(FEW_ROWS, 1)
    told: set[str] = set()
    with EachCall(lambda *call: told.add(_given(*call))):
        step = next(steps_of(variant, problem, 1), None)
    unfit = sorted(told - {""})
    yield true("losses are given what they want", not unfit, "; ".join(unfit))
    if step is None or not (isinstance(step.output, Tensor) and isinstance(step.target, Tensor)):
        return
    probes = list(_probes(variant, step.output.detach(), step.target.detach()))
    for name, function, definition in _measures(variant):
        wrong = [said for p in probes if (said := _compared(name, function, definition, p))]
        yield true(f"{name} by definition", not wrong, "; ".join(wrong[:2]))


def _measures(variant: Variant) -> Iterator[tuple[str, Callable[..., Tensor], Definition]]:
    """Each metric and loss that has a definition of its own."""
    for name, metric in (variant.metrics or {}).items():
        definition = metric_by_definition(name, variant.loss)
        if definition is not None:
            yield name, metric, definition
    definition = loss_by_definition(variant.loss)
    if variant.loss is not None and definition is not None:
        yield "loss", variant.loss, definition


def _compared(
    name: str, function: Callable[..., Tensor], definition: Definition, probe: Probe
) -> str:
    """How a result differs from its definition, or nothing.

    Where it is undefined, an error will do as well as NaN.
    """
    with np.errstate(all="ignore"):
        expected = definition(probe.output, probe.target)
    target = torch.as_tensor(probe.target)
    target = target.float() if target.is_floating_point() else target
    try:
        with torch.no_grad():
            made = function(torch.as_tensor(probe.output).float(), target)
            found = float(torch.as_tensor(made).double().mean())
    except Exception as error:
        if math.isnan(expected) or not len(probe.output):
            return ""
        return f"{name} of {probe.what} raises {type(error).__name__}: {error}"
    if probe.tied and name != "loss":
        return ""
    if math.isnan(expected) and (math.isnan(found) or (name in SHARES_OF_NONE and found == 0)):
        return ""
    if found == expected or abs(found - expected) <= CLOSE * max(abs(expected), 1.0):
        return ""
    return f"{name} of {probe.what} is {found:.6g}; by definition it is {expected:.6g}"


# --- boundaries ----------------------------------------------------------------------------------

SCORES: Mapping[str, tuple[list[float], list[float]]] = {
    "scores between 0.4 and 0.6": ([0.41, 0.45, 0.49, 0.51, 0.55, 0.59], [0, 1, 0, 1, 0, 1]),
    "scores of exactly one half": ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 1]),
    "equal scores of both classes": ([0.25, 0.25, 0.75, 0.75, 0.75], [0, 1, 0, 1, 1]),
    "one class only": ([0.25, 0.625, 0.875], [1, 1, 1]),
    "the other class only": ([0.25, 0.625, 0.875], [0, 0, 0]),
    "one row": ([0.75], [1]),
    "scores of 0 and of 1": ([0.0, 1.0, 1.0, 0.0], [0, 1, 0, 1]),
    "no row": ([], []),
}


def _probes(variant: Variant, output: Tensor, target: Tensor) -> Iterator[Probe]:
    """Boundaries for outputs and targets such as these; none if it is not known what they are."""
    if output.ndim != 2:
        return
    classes = output.shape[1]
    if target.ndim == 1 and not target.is_floating_point() and classes > 1:
        yield from _of_classes(classes, log=_kind(variant) in (nn.NLLLoss, F.nll_loss))
    elif classes == 1 and target.shape == output.shape and bool((target * (target - 1) == 0).all()):
        of_logits = _kind(variant) in (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits)
        for what, (scores, labels) in SCORES.items():
            p = np.array(scores).reshape(-1, 1)
            with np.errstate(divide="ignore"):
                own = np.clip(np.log(p) - np.log1p(-p), -200, 200) if of_logits else p
            yield Probe(what, own, np.array(labels, dtype=np.float64).reshape(-1, 1))
    elif target.shape == output.shape:
        numbers = np.linspace(-2, 3, 4 * classes).reshape(4, classes)
        yield Probe("four rows", numbers, np.flip(numbers, 0) ** 2)
        yield Probe("one row", numbers[:1], numbers[1:2])
        yield Probe("exact predictions", numbers, numbers)
        yield Probe("targets of zero", numbers, 0 * numbers)
        yield Probe("no row", numbers[:0], numbers[:0])


def _of_classes(classes: int, log: bool) -> Iterator[Probe]:
    from scipy.special import log_softmax

    rng = np.random.default_rng(0)
    scores = np.round(3 * rng.standard_normal((6, classes)), 2)
    large = np.where(scores > 0, 200.0, -200.0)
    large[:, 0] = 300.0
    labels = np.arange(6) % classes
    for what, own, of in (
        ("six rows", scores, labels),
        ("the second largest scores", scores, scores.argsort(axis=1)[:, -2]),
        ("one row", scores[:1], labels[:1]),
        ("one class only", scores, np.full(6, classes - 1)),
        ("equal scores", np.zeros((3, classes)), np.zeros(3, dtype=np.int64)),
        ("huge scores", large, np.full(6, 1)),
        ("no row", scores[:0], labels[:0]),
    ):
        yield Probe(what, log_softmax(own, axis=1) if log else own, of, tied=what == "equal scores")


def _kind(variant: Variant) -> Any:
    return type(variant.loss) if isinstance(variant.loss, nn.Module) else variant.loss


# --- what a loss is given ------------------------------------------------------------------------


def _given(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """What is wrong with what a loss is given, as far as its numbers show it."""
    name = str(getattr(function, "__name__", ""))
    given = args[0] if args else kwargs.get("input")
    if name not in WANTS or not isinstance(given, Tensor):
        return ""
    said = WANTS[name](given.detach().cpu().double(), _made_by(given))
    return f"{name} {said}" if said else ""


VIEWS = ("View", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Permute", "Select", "Flatten")


def _made_by(given: Tensor) -> str:
    """The name of what autograd noted of a tensor, whatever shape it was brought into."""
    node: Any = given.grad_fn
    while node is not None and node.next_functions and node.name().startswith(VIEWS):
        node = node.next_functions[0][0]
    return "" if node is None else str(node.name())


def _wants_scores(given: Tensor, made_by: str) -> str:
    rows = given.ndim > 1 and given.shape[1] > 1
    if rows and bool((given >= 0).all()) and _near(given.sum(1), 1):
        return "wants scores, and is given probabilities, whose rows sum to 1; leave softmax out"
    return ""


def _wants_logits(given: Tensor, made_by: str) -> str:
    if "Sigmoid" in made_by and bool(((given >= 0) & (given <= 1)).all()):
        return "wants logits, and is given what a sigmoid makes; leave the sigmoid out"
    return _wants_scores(given, made_by).replace("scores", "logits", 1)


def _wants_logarithms(given: Tensor, made_by: str) -> str:
    if given.ndim > 1 and not _near(given.exp().sum(1), 1):
        return "wants logarithms of probabilities, and is given others: put a log_softmax before it"
    return ""


def _near(sums: Tensor, value: float) -> bool:
    return bool(sums.numel()) and bool(((sums - value).abs() <= ROUNDING).all())


WANTS: Mapping[str, Callable[[Tensor, str], str]] = {
    "cross_entropy": _wants_scores,
    "binary_cross_entropy_with_logits": _wants_logits,
    "nll_loss": _wants_logarithms,
}
