"""What each kind of layer is by definition, in float64, from products, sums and powers alone.

Nothing here calls ``torch.nn.functional`` or a layer's own code, so a fault above torch's kernels
does not reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Values = Mapping[str, Tensor]
"""The parameters and buffers of a layer by their names, in float64."""

Definition = Callable[[Any, Values, Tensor], Tensor]


def _linear(layer: nn.Linear, own: Values, x: Tensor) -> Tensor:
    made: Tensor = x @ own["weight"].T
    return made + own["bias"] if "bias" in own else made


def _windows(x: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """(N, C, *out, *size): each position's window of the last axes."""
    for axis, (length, step) in enumerate(zip(size, stride, strict=True), start=2):
        x = x.unfold(axis, length, step)
    return x


def _padded(x: Tensor, by: tuple[int, ...], value: float) -> Tensor:
    if not any(by):
        return x
    shape = [*x.shape[:2], *(n + 2 * p for n, p in zip(x.shape[2:], by, strict=True))]
    wide = torch.full(shape, value, dtype=x.dtype)
    inner: Any = (..., *(slice(p, p + n) for n, p in zip(x.shape[2:], by, strict=True)))
    wide[inner] = x
    return wide


def _tuple(value: Any, count: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * count


def _convolution(layer: Any, own: Values, x: Tensor) -> Any:
    axes = own["weight"].dim() - 2
    x = _padded(x, _tuple(layer.padding, axes), 0.0)
    windows = _windows(x, _tuple(layer.kernel_size, axes), _tuple(layer.stride, axes))
    made = torch.tensordot(
        windows,
        own["weight"],
        ([1, *range(2 + axes, 2 + 2 * axes)], [1, *range(2, 2 + axes)]),
    ).movedim(-1, 1)
    return made + own["bias"].reshape(-1, *[1] * axes) if "bias" in own else made


def _max_pool(layer: Any, own: Values, x: Tensor) -> Tensor:
    axes = x.dim() - 2
    size = _tuple(layer.kernel_size, axes)
    stride = _tuple(layer.stride if layer.stride is not None else size, axes)
    x = _padded(x, _tuple(layer.padding, axes), -torch.inf)
    return _windows(x, size, stride).flatten(-axes).amax(-1)


def _average_pool(layer: Any, own: Values, x: Tensor) -> Tensor:
    axes = x.dim() - 2
    size = _tuple(layer.kernel_size, axes)
    stride = _tuple(layer.stride if layer.stride is not None else size, axes)
    return _windows(x, size, stride).flatten(-axes).mean(-1)


def _lstm(layer: nn.LSTM, own: Values, x: Tensor) -> Tensor:
    """(N, T, features) → (N, T, hidden), gate by gate."""
    steps = list(x.unbind(1 if layer.batch_first else 0))
    for number in range(layer.num_layers):
        into, across = own[f"weight_ih_l{number}"], own[f"weight_hh_l{number}"]
        bias = own[f"bias_ih_l{number}"] + own[f"bias_hh_l{number}"] if layer.bias else 0.0
        hidden = cell = torch.zeros(len(steps[0]), layer.hidden_size, dtype=torch.float64)
        outputs = []
        for step in steps:
            gates = step @ into.T + hidden @ across.T + bias
            keep_in, forget, fresh, show = gates.chunk(4, dim=1)
            cell = _logistic(forget) * cell + _logistic(keep_in) * fresh.tanh()
            hidden = _logistic(show) * cell.tanh()
            outputs.append(hidden)
        steps = outputs
    return torch.stack(steps, 1 if layer.batch_first else 0)


def _logistic(x: Tensor) -> Tensor:
    return (1 + (x / 2).tanh()) / 2  # where 1 / (1 + exp(-x)) would overflow on the way back


DEFINITIONS: dict[type[nn.Module], Definition] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.ReLU: lambda layer, own, x: torch.where(x > 0, x, torch.zeros_like(x)),
    nn.Sigmoid: lambda layer, own, x: _logistic(x),
    nn.Tanh: lambda layer, own, x: 2 * _logistic(2 * x) - 1,
    nn.MaxPool1d: _max_pool,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveMaxPool2d: lambda layer, own, x: x.amax((2, 3), keepdim=True),
    nn.AdaptiveAvgPool2d: lambda layer, own, x: x.mean((2, 3), keepdim=True),
    nn.Flatten: lambda layer, own, x: x.reshape(len(x), -1),
    nn.Embedding: lambda layer, own, x: own["weight"][x],
    nn.LSTM: _lstm,
}
"""The layers that have a definition here; :func:`is_defined` says with which settings."""

LINEAR = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Embedding,
)  # fmt: skip
"""Layers that are sums of products, so that their definition of |x| and |weights| bounds them."""

TIED = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d)
"""Layers whose gradient goes to one of several equal inputs, whichever the kernel takes."""


def is_defined(layer: nn.Module) -> bool:
    """Whether there is a definition of a layer of this kind with its settings."""
    if type(layer) not in DEFINITIONS:
        return False
    plain = {
        "dilation": 1, "groups": 1, "padding_mode": "zeros", "ceil_mode": False,
        "return_indices": False, "bidirectional": False, "proj_size": 0, "max_norm": None,
        "inplace": False, "start_dim": 1, "end_dim": -1,
    }  # fmt: skip
    for name, value in plain.items():
        own = getattr(layer, name, value)
        if own != value and not (isinstance(own, tuple) and set(own) == {value}):
            return False
    if isinstance(layer, nn.AvgPool2d) and layer.padding not in (0, (0, 0)):
        return False
    if isinstance(layer, nn.RNNBase) and layer.dropout and layer.training:
        return False
    if isinstance(layer, (nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)):
        return layer.output_size in (1, (1, 1))
    return not isinstance(getattr(layer, "padding", 0), str)


def defined(layer: nn.Module, own: Values, x: Tensor) -> Tensor:
    """What a layer makes of ``x`` by its definition, with these parameters."""
    return DEFINITIONS[type(layer)](layer, own, x)
