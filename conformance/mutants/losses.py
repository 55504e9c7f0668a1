"""Bugs of the loss: its arguments, its reduction, what it is given and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refimpl.conformance.mutants.planting import (
    Fault,
    Plant,
    Replacement,
    gradients,
    has_module,
    mutant,
)

LOSSES = ("cross_entropy", "nll_loss", "binary_cross_entropy", "mse_loss", "l1_loss")
"""Losses of torch by their names."""


def _every(replacement: Replacement, names: tuple[str, ...] = LOSSES) -> dict[str, Replacement]:
    return dict.fromkeys(names, replacement)


def _first_argument(change: Callable[[Tensor], Tensor], *names: str) -> dict[str, Replacement]:
    """Change the model's output on its way into the loss."""

    def replaced(original: Any, output: Tensor, *args: Any, **kwargs: Any) -> Any:
        return original(change(output), *args, **kwargs)

    return _every(replaced, names)


# --- reduction and sign --------------------------------------------------------------------------


@mutant()
def loss_summed(fault: Fault) -> Plant:
    """The loss is the sum over the batch where the document's is the mean."""

    def summed(original: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("reduction", "mean") != "mean":
            return NotImplemented
        return original(*args, **{**kwargs, "reduction": "sum"})

    return Plant(calls=_every(summed))


@mutant()
def gradients_of_the_sum(fault: Fault) -> Plant:
    """The gradients are those of a hundred times the loss that is shown."""

    def hundredfold(leaves: Any, share: float) -> bool:
        for gradient in gradients(leaves):
            gradient.mul_(100)
        return True

    return Plant(after_backward=hundredfold)


@mutant()
def loss_negated(fault: Fault) -> Plant:
    """The sign of what is differentiated is wrong."""
    return Plant(calls={"backward": lambda original, loss, *a, **k: original(-loss, *a, **k)})


@mutant()
def loss_detached(fault: Fault) -> Plant:
    """The loss is cut off from its graph, as by ``.data`` or ``.item()``, before ``backward``."""
    return Plant(calls={"backward": lambda original, loss, *a, **k: original(loss.detach())})


@mutant(weakest=1e-12, strongest=1.0)
def loss_partly_detached(fault: Fault) -> Plant:
    """A share of the loss, the same in value, is out of autograd's sight."""

    def partly(original: Any, loss: Tensor, *args: Any, **kwargs: Any) -> Any:
        return original((1 - fault.strength) * loss, *args, **kwargs)

    return Plant(calls={"backward": partly})


@mutant(weakest=1e-12, strongest=1.0)
def loss_shown_too_low(fault: Fault) -> Plant:
    """The loss that is reported is too low by this share of it."""

    def shown(step: Any) -> Any:
        step.loss = step.loss * (1 - fault.strength)
        fault.hit()
        return step

    return Plant(step=shown)


# --- arguments -----------------------------------------------------------------------------------


@mutant()
def loss_arguments_swapped(fault: Fault) -> Plant:
    """Output and target change places."""

    def swapped(original: Any, output: Tensor, target: Tensor, *a: Any, **k: Any) -> Any:
        return original(target, output, *a, **k)

    return Plant(calls=_every(swapped, ("binary_cross_entropy", "mse_loss", "l1_loss")))


@mutant()
def target_without_its_axis(fault: Fault) -> Plant:
    """Targets of shape (N,) meet outputs of (N, 1), and every pair is compared."""

    def squeezed(original: Any, output: Tensor, target: Tensor, *a: Any, **k: Any) -> Any:
        if target.dim() != 2 or target.shape[1] != 1 or len(target) == 1:
            return NotImplemented
        return original(output, target.squeeze(1), *a, **k)

    return Plant(calls=_every(squeezed, ("mse_loss", "l1_loss")))


@mutant()
def softmax_before_cross_entropy(fault: Fault) -> Plant:
    """The cross entropy, which takes scores, is given probabilities."""
    return Plant(calls=_first_argument(lambda scores: scores.softmax(1), "cross_entropy"))


@mutant()
def log_softmax_before_cross_entropy(fault: Fault) -> Plant:
    """The cross entropy is given log-probabilities, whose logarithmic softmax they are again."""
    return Plant(calls=_first_argument(lambda scores: scores.log_softmax(1), "cross_entropy"))


@mutant()
def sigmoid_twice(fault: Fault) -> Plant:
    """The probability goes through a second sigmoid on its way into the loss."""
    return Plant(calls=_first_argument(torch.sigmoid, "binary_cross_entropy"))


@mutant(has_module)
def sigmoid_forgotten(fault: Fault) -> Plant:
    """The loss of probabilities is given scores."""
    return Plant(forward={"sigmoid": lambda original, x: x * 1})


@mutant()
def softmax_over_the_batch(fault: Fault) -> Plant:
    """The softmax of the loss runs over the rows of the batch, not over the classes."""

    def over_rows(original: Any, scores: Tensor, target: Tensor, *a: Any, **k: Any) -> Any:
        return F.nll_loss(scores.log_softmax(0), target)

    return Plant(calls={"cross_entropy": over_rows})


# --- another loss --------------------------------------------------------------------------------


@mutant(weakest=1e-10, strongest=0.2)
def labels_smoothed(fault: Fault) -> Plant:
    """The cross entropy smooths its labels, which the document's does not."""

    def smoothed(original: Any, scores: Tensor, target: Tensor, *a: Any, **k: Any) -> Any:
        return original(scores, target, *a, **{**k, "label_smoothing": fault.strength})

    return Plant(calls={"cross_entropy": smoothed})


@mutant()
def absolute_error_for_squared(fault: Fault) -> Plant:
    """The mean absolute error in the place of the mean squared one."""
    return Plant(calls={"mse_loss": lambda original, a, b, **k: F.l1_loss(a, b)})


@mutant()
def squared_error_for_cross_entropy(fault: Fault) -> Plant:
    """The mean squared error of probabilities in the place of their cross entropy."""

    def of_classes(original: Any, scores: Tensor, target: Tensor, *a: Any, **k: Any) -> Any:
        wanted = F.one_hot(target, scores.shape[1]).to(scores)
        return F.mse_loss(scores.softmax(1), wanted)

    def of_probabilities(original: Any, p: Tensor, target: Tensor, *a: Any, **k: Any) -> Any:
        return F.mse_loss(p, target)

    return Plant(calls={"cross_entropy": of_classes, "binary_cross_entropy": of_probabilities})


@mutant()
def positives_count_threefold(fault: Fault) -> Plant:
    """Positives weigh three times as much as negatives."""

    def weighted(original: Any, p: Tensor, target: Tensor, *a: Any, **k: Any) -> Any:
        return original(p, target, **{**k, "weight": 1 + 2 * target})

    return Plant(calls={"binary_cross_entropy": weighted})


@mutant(has_module)
def focal_settings_swapped(fault: Fault) -> Plant:
    """The α and the γ of a focal loss change places."""

    called = nn.Module.__call__

    def swapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not (hasattr(self, "alpha") and hasattr(self, "gamma")):
            return called(self, *args, **kwargs)
        fault.hit()
        self.alpha, self.gamma = self.gamma, self.alpha
        try:
            return called(self, *args, **kwargs)
        finally:
            self.alpha, self.gamma = self.gamma, self.alpha

    return Plant(around=lambda: patch.object(nn.Module, "__call__", swapped))
