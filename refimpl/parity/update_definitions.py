"""Updates that torch computes in one kernel, by the formulas of its documentation, in float64.

A fused kernel that is wrong in every precision would else be compared with itself. Each function
changes its tensors in place, as the kernel does; scaled gradients and LBFGS have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

Tensors = Sequence[Tensor]


def adam(
    parameters: Tensors,
    gradients: Tensors,
    means: Tensors,
    squares: Tensors,
    largest: Tensors,
    steps: Tensors,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool = False,
) -> None:
    """``torch.optim.Adam``, or AdamW if decay is ``decoupled``; ``steps`` count this update too."""
    rows = zip_longest(parameters, gradients, means, squares, largest, steps)
    for parameter, gradient, mean, square, most, step in rows:
        slope = -gradient if maximize else gradient
        if decoupled:
            parameter.mul_(1 - lr * weight_decay)
        else:
            slope = slope + weight_decay * parameter
        mean.mul_(beta1).add_((1 - beta1) * slope)
        square.mul_(beta2).add_((1 - beta2) * slope * slope)
        if amsgrad:
            most.copy_(most.maximum(square))
        count = float(step)
        spread = ((most if amsgrad else square) / (1 - beta2**count)).sqrt()
        parameter.sub_(lr * mean / (1 - beta1**count) / (spread + eps))


def adamw(*tensors: Tensors, **constants: float) -> None:
    """``torch.optim.AdamW``."""
    adam(*tensors, **constants, decoupled=True)  # type: ignore[arg-type]


def sgd(
    parameters: Tensors,
    gradients: Tensors,
    buffers: Tensors,
    *,
    weight_decay: float,
    momentum: float,
    lr: float,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    is_first_step: bool,
) -> None:
    """``torch.optim.SGD``; without momentum, there are no ``buffers``."""
    for parameter, gradient, buffer in zip_longest(parameters, gradients, buffers):
        slope = (-gradient if maximize else gradient) + weight_decay * parameter
        if momentum:
            if is_first_step:
                buffer.copy_(slope)
            else:
                buffer.mul_(momentum).add_((1 - dampening) * slope)
            slope = slope + momentum * buffer if nesterov else buffer
        parameter.sub_(lr * slope)


def adagrad(
    parameters: Tensors,
    gradients: Tensors,
    sums: Tensors,
    steps: Tensors,
    *,
    lr: float,
    lr_decay: float,
    weight_decay: float,
    eps: float,
    maximize: bool,
) -> None:
    """``torch.optim.Adagrad``; ``steps`` count this update too."""
    for parameter, gradient, total, step in zip(parameters, gradients, sums, steps, strict=True):
        slope = (-gradient if maximize else gradient) + weight_decay * parameter
        total.add_(slope * slope)
        rate = lr / (1 + (float(step) - 1) * lr_decay)
        parameter.sub_(rate * slope / (total.sqrt() + eps))


SCALED = ("grad_scale", "found_inf")
"""What a gradient scaler gives besides."""

OF_KERNELS: dict[str, Callable[..., None]] = {
    "_fused_adam": adam,
    "_fused_adamw": adamw,
    "_fused_sgd": sgd,
    "_fused_adagrad": adagrad,
}
"""By the name of the kernel, without the underscore of what is changed in place."""


@dataclass(frozen=True)
class Formula:
    """A formula, the names of an optimizer's states in its order, and of the constants it takes.

    ``counts`` if it takes the number of updates, ``first`` if it takes whether this is the first.
    """

    update: Callable[..., None]
    states: tuple[str, ...]
    constants: tuple[str, ...]
    counts: bool = True
    first: bool = False


_ADAM = (
    ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    ("lr", "weight_decay", "eps", "amsgrad", "maximize"),
)

OF_OPTIMIZERS: dict[type[torch.optim.Optimizer], Formula] = {
    torch.optim.Adam: Formula(adam, *_ADAM),
    torch.optim.AdamW: Formula(adamw, *_ADAM),
    torch.optim.SGD: Formula(
        sgd, ("momentum_buffer",),
        ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize"),
        counts=False, first=True,
    ),
    torch.optim.Adagrad: Formula(
        adagrad, ("sum",), ("lr", "lr_decay", "weight_decay", "eps", "maximize")
    ),
}  # fmt: skip
"""Of each optimizer that torch writes in its documentation as a formula, and examples use."""
