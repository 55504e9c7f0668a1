"""Whether a step has what the contract says: looked at once in a run, at its first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from refimpl.contract import Step
from refimpl.errors import ContractError
from refimpl.trees import leaves


def require_in_order(step: Step, variant: str) -> None:
    """Raise :class:`ContractError` with the first field that is not as expected."""
    for field, expected, found in _wrong(step):
        raise ContractError(
            f"variant {variant!r} yields a Step whose {field} must be {expected}, found {found}"
        )


def _wrong(step: Step) -> Iterator[tuple[str, str, str]]:
    """Each field that is wrong, with what was expected and what is there instead."""
    scalar = "a scalar tensor, a number, or a mapping of names to them"
    for name, loss in step.losses.items():
        if not _numeric(loss) or torch.as_tensor(loss).numel() != 1:
            yield f"loss {name!r}" if name else "loss", scalar, _said(loss)
    if not step.losses:
        yield "loss", scalar, "an empty mapping"
    if not isinstance(step.net, (nn.Module, Mapping)):
        yield "net", "the module or a mapping of its parameters by name", _said(step.net)
        return
    for name, parameter in step.parameters.items():
        if not _numeric(parameter):
            yield f"parameter {name!r}", "a tensor", _said(parameter)
    for field in ("output", "target"):
        for leaf in leaves(getattr(step, field)):
            if leaf is not None and not _numeric(leaf) and field == "output":
                yield field, "a tensor, or a tuple or dict of tensors", _said(leaf)
    if step.model is not None and not callable(step.model):
        yield "model", "a function from inputs to outputs", _said(step.model)
    for name, optimizer in step.optimizers.items():
        if not hasattr(optimizer, "state_dict"):
            expected = "an optimizer, or a mapping of names to optimizers"
            yield f"optimizer {name!r}" if name else "optimizer", expected, _said(optimizer)
    several = len(step.optimizers) > 1 and len(step.losses) > 1
    if several and step.optimizers.keys() != step.losses.keys():
        names = ", ".join(step.optimizers)
        yield "loss", f"one, or one for each optimizer ({names})", ", ".join(step.losses)
    unknown = (step.gradients or {}).keys() - step.parameters.keys()
    if unknown:
        there = f"of the parameters {', '.join(step.parameters)}"
        yield "gradients", there, f"one of {', '.join(sorted(unknown))}"
    if not isinstance(step.state, Mapping):
        yield "state", "a mapping of names to what is kept", _said(step.state)
        return
    for name, kept in step.state.items():
        if not hasattr(kept, "state_dict") and not all(map(torch.is_tensor, leaves(kept))):
            yield f"state {name!r}", "what has a state_dict, or tensors", _said(kept)
        if name in step.optimizers:
            yield f"state {name!r}", "named otherwise than an optimizer", "an optimizer of the name"


def _numeric(value: Any) -> bool:
    """Whether it is a tensor, an array or a number."""
    return hasattr(value, "__array__") or isinstance(value, (float, int))


def _said(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "None" if value is None else f"{type(value).__name__}"
