"""Losses and metrics by their definitions, in float64, by NumPy, SciPy and scikit-learn.

They are the second witness of figures that a plugin's own code gives: a loss by its kind, a metric
by its name. Nothing here calls torch's own arithmetic, or :mod:`refimpl.metrics`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from refimpl.contract import Loss

Numbers: TypeAlias = "NDArray[Any]"
Definition: TypeAlias = "Callable[[Numbers, Numbers], float]"

NAN = float("nan")


# --- losses: a term for each row, or each number -------------------------------------------------


def _bce(p: Numbers, y: Numbers) -> Numbers:
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(p), -100), np.maximum(np.log(1 - p), -100)
    return np.asarray(-(y * logs[0] + (1 - y) * logs[1]))


def _bce_of_logits(x: Numbers, y: Numbers) -> Numbers:
    return np.asarray(np.logaddexp(0, x) - x * y)


def _cross_entropy(scores: Numbers, classes: Numbers) -> Numbers:
    from scipy.special import log_softmax

    return _nll(np.asarray(log_softmax(scores, axis=1)), classes)


def _nll(logs: Numbers, classes: Numbers) -> Numbers:
    if logs.shape == classes.shape:  # probabilities in the place of classes
        return np.asarray(-(classes * logs).sum(axis=1))
    numbers = np.expand_dims(classes.astype(int), 1)
    found = np.take_along_axis(logs, np.maximum(numbers, 0), 1)
    return np.asarray(-found[numbers >= 0])  # torch leaves out those below 0


def _squares(output: Numbers, target: Numbers) -> Numbers:
    return np.asarray((output - target) ** 2)


def _distances(output: Numbers, target: Numbers) -> Numbers:
    return np.asarray(np.abs(output - target))


BY_KIND: Mapping[Any, Callable[[Numbers, Numbers], Numbers]] = {
    nn.BCELoss: _bce,
    nn.BCEWithLogitsLoss: _bce_of_logits,
    nn.CrossEntropyLoss: _cross_entropy,
    nn.NLLLoss: _nll,
    nn.MSELoss: _squares,
    nn.L1Loss: _distances,
    F.binary_cross_entropy: _bce,
    F.binary_cross_entropy_with_logits: _bce_of_logits,
    F.cross_entropy: _cross_entropy,
    F.nll_loss: _nll,
    F.mse_loss: _squares,
    F.l1_loss: _distances,
}


def loss_by_definition(loss: Loss | None) -> Definition | None:
    """The definition of a loss of torch's own; ``None`` of any other, or of unusual options."""
    kind = type(loss) if isinstance(loss, nn.Module) else loss
    terms = BY_KIND.get(kind)
    if terms is None or _unusual(loss):
        return None
    total = getattr(loss, "reduction", "mean") == "sum"

    def of(output: Numbers, target: Numbers) -> float:
        own = terms(output.astype(np.float64), target.astype(np.float64))
        if not own.size:
            return 0.0 if total else NAN
        return float(own.sum() if total else own.mean())

    return of


def _unusual(loss: Any) -> bool:
    """Whether a loss has options that are not restated here."""
    return (
        getattr(loss, "weight", None) is not None
        or getattr(loss, "pos_weight", None) is not None
        or getattr(loss, "label_smoothing", 0.0) != 0.0
        or getattr(loss, "reduction", "mean") not in ("mean", "sum")
        or getattr(loss, "ignore_index", -100) != -100
    )


# --- metrics, by their names ---------------------------------------------------------------------


def classes_of(output: Numbers, of_logits: bool) -> Numbers:
    """The class that each row of an output stands for."""
    if output.ndim == 2 and output.shape[1] > 1:
        return np.asarray(output.argmax(axis=1))
    return np.asarray(output.reshape(-1) > (0.0 if of_logits else 0.5)).astype(int)


def _accuracy(output: Numbers, target: Numbers, of_logits: bool) -> float:
    from sklearn.metrics import accuracy_score

    if not len(output):
        return NAN
    return float(accuracy_score(_classes(target), classes_of(output, of_logits)))


def _recall(output: Numbers, target: Numbers, of_logits: bool) -> float:
    from sklearn.metrics import recall_score

    if not (target > 0.5).any():
        return NAN
    return float(recall_score(_classes(target), classes_of(output, of_logits)))


def _precision(output: Numbers, target: Numbers, of_logits: bool) -> float:
    from sklearn.metrics import precision_score

    if not classes_of(output, of_logits).any():
        return NAN
    return float(precision_score(_classes(target), classes_of(output, of_logits)))


def _auc(output: Numbers, target: Numbers, of_logits: bool) -> float:
    from sklearn.metrics import roc_auc_score

    if len(np.unique(_classes(target))) < 2:
        return NAN
    return float(roc_auc_score(_classes(target), output.reshape(-1)))


def _mae(output: Numbers, target: Numbers, of_logits: bool) -> float:
    return float(np.abs(output - target).mean()) if output.size else NAN


def _mse(output: Numbers, target: Numbers, of_logits: bool) -> float:
    return float(((output - target) ** 2).mean()) if output.size else NAN


def _mape(output: Numbers, target: Numbers, of_logits: bool) -> float:
    if not output.size:
        return NAN
    return float((np.abs(output - target) / np.maximum(np.abs(target), 1e-7)).mean())


def _classes(target: Numbers) -> Numbers:
    return np.asarray(np.round(target.reshape(-1))).astype(int)


BY_NAME: Mapping[str, Callable[[Numbers, Numbers, bool], float]] = {
    "accuracy": _accuracy,
    "auc": _auc,
    "mae": _mae,
    "mape": _mape,
    "mse": _mse,
    "precision": _precision,
    "recall": _recall,
    "roc_auc": _auc,
}


def metric_by_definition(name: str, loss: Loss | None) -> Definition | None:
    """The definition of the metric of this name (``val_`` aside), if it is a common one."""
    own = BY_NAME.get(name.removeprefix("val_"))
    if own is None:
        return None
    kind = type(loss) if isinstance(loss, nn.Module) else loss
    of_logits = kind in (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits)

    def of(output: Numbers, target: Numbers) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's, of classes that do not occur
            return own(output.astype(np.float64), target.astype(np.float64), of_logits)

    return of


def numbers(tensor: Any) -> Numbers:
    """A tensor's numbers, in float64 if they are floating-point."""
    plain = torch.as_tensor(tensor).detach().cpu()
    found: Numbers = (plain.double() if plain.is_floating_point() else plain).numpy()
    return found


def rows_near_the_threshold(output: Numbers, of_logits: bool = False) -> int:
    """Rows whose class the rounding of float32 may decide."""
    if output.ndim == 2 and output.shape[1] > 1:
        top = np.sort(output, axis=1)[:, -2:]
        gap, scale = top[:, 1] - top[:, 0], np.abs(top).max(axis=1)
        return int((gap <= 1e-5 * scale).sum())
    return int((np.abs(output - (0.0 if of_logits else 0.5)) < 1e-5).sum())
