"""Kernels of torch that do the same arithmetic faster, for whole runs on the CPU.

They round differently, so trajectories are compared without them; whole runs are judged by
statistics, which are not sensitive to that.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import nn


def channels_last(module: nn.Module) -> None:
    """Store the weights of convolutions channels last; the outputs then follow.

    Pooling and convolutions over images or words take 0.7 to 0.8 of the time. Shapes and names
    stay.
    """
    module.to(memory_format=torch.channels_last)
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d):  # torch has no name for this layout in one dimension
            weight = layer.weight
            weight.data = weight.data.transpose(1, 2).contiguous().transpose(1, 2)


def fuse(optimizer: torch.optim.Optimizer) -> None:
    """Let ``optimizer`` update all of its tensors in one call, if torch has one for it.

    Not done if a tensor is not contiguous: the fused updates of torch 2.14 walk over parameter,
    gradient and moments by address, and are silently wrong if their strides differ.
    """
    if not has_fused(type(optimizer)):  # type: ignore[arg-type]
        return
    tensors = (tensor for group in optimizer.param_groups for tensor in group["params"])
    if all(tensor.is_contiguous() for tensor in tensors):
        for group in optimizer.param_groups:
            group["fused"] = True


def as_made(optimizer: torch.optim.Optimizer) -> None:
    """Undo what :func:`fuse` did in the run from which a loaded state comes."""
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"] = optimizer.defaults["fused"]


@cache
def has_fused(kind: type[torch.optim.Optimizer]) -> bool:
    """Whether this torch has one call on the CPU for such an update; found out by making one."""
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    try:
        kind([parameter], lr=0.1, fused=True).step()  # type: ignore[call-arg]
    except (TypeError, RuntimeError, NotImplementedError):
        return False
    return True
