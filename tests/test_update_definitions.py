"""Our formulas of updates agree with torch's optimizers, which compute them in another way."""

from __future__ import annotations

from inspect import signature

import pytest
import torch
from torch import Tensor

from refimpl.parity.update_definitions import OF_KERNELS, adam

OPTIMIZERS = {
    "_fused_adam": (torch.optim.Adam, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step")),
    "_fused_adamw": (torch.optim.AdamW, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step")),
    "_fused_sgd": (torch.optim.SGD, ("momentum_buffer",)),
    "_fused_adagrad": (torch.optim.Adagrad, ("sum", "step")),
}

CASES = [
    *(
        (kernel, {"lr": 0.1, **options})
        for kernel in ("_fused_adam", "_fused_adamw")
        for options in (
            {},
            {"weight_decay": 0.3},
            {"amsgrad": True},
            {"maximize": True, "betas": (0.5, 0.7), "eps": 0.01},
        )
    ),
    ("_fused_sgd", {"lr": 0.1}),
    ("_fused_sgd", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1}),
    ("_fused_sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("_fused_adagrad", {"lr": 0.1}),
    ("_fused_adagrad", {"lr": 0.1, "lr_decay": 0.2, "weight_decay": 0.1, "eps": 0.01}),
]


def constants_of(optimizer: torch.optim.Optimizer, first: bool) -> dict[str, float]:
    """What the kernel is given beside its tensors."""
    (group,) = optimizer.param_groups
    known = {name: value for name, value in group.items() if name != "params"}
    if "betas" in known:
        known["beta1"], known["beta2"] = known.pop("betas")
    if "momentum" in known:
        known["is_first_step"] = first
    return known


@pytest.mark.parametrize(("kernel", "options"), CASES)
def test_a_formula_makes_the_updates_of_torchs_loop_over_tensors(kernel, options):
    kind, states = OPTIMIZERS[kernel]
    start = torch.linspace(-1, 1, 7, dtype=torch.float64)
    own = start.clone()
    parameter = torch.nn.Parameter(start.clone())
    optimizer = kind([parameter], foreach=False, **options)
    kept: dict[str, Tensor] = {
        name: torch.zeros(()) if name == "step" else torch.zeros(7, dtype=torch.float64)
        for name in states
    }
    wanted = signature(adam if "adam" in kernel else OF_KERNELS[kernel]).parameters
    for number in range(1, 5):
        gradient = (number * start + 0.3).sin()
        parameter.grad = gradient.clone()
        optimizer.step()
        if "step" in kept:
            kept["step"] += 1
        constants = constants_of(optimizer, number == 1)
        given = {name: value for name, value in constants.items() if name in wanted}
        OF_KERNELS[kernel]([own], [gradient], *([kept[name]] for name in states), **given)
        assert torch.allclose(own, parameter.detach(), rtol=1e-13, atol=1e-14)
