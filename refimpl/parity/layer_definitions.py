"""What each kind of layer is by definition, in float64, from products, sums and powers alone.

Nothing here calls ``torch.nn.functional`` or a layer's own code, so a fault above torch's kernels
does not reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

Values = Mapping[str, Tensor]
"""The parameters and buffers of a layer by their names, in float64."""

Definition = Callable[[Any, Values, Tensor], Tensor]


def _linear(layer: nn.Linear, own: Values, x: Tensor) -> Tensor:
    made: Tensor = x @ own["weight"].T
    return made + own["bias"] if "bias" in own else made


def _windows(
    x: Tensor, size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...] = ()
) -> Tensor:
    """(N, C, *out, *size): each position's window of the last axes."""
    apart = dilation or (1,) * len(size)
    for axis, (length, step, gap) in enumerate(zip(size, stride, apart, strict=True), start=2):
        x = x.unfold(axis, (length - 1) * gap + 1, step)[..., ::gap]
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
    windows = _windows(x, layer.kernel_size, layer.stride, layer.dilation)
    sums = ([1, *range(2 + axes, 2 + 2 * axes)], [1, *range(2, 2 + axes)])
    groups = zip(windows.chunk(layer.groups, 1), own["weight"].chunk(layer.groups, 0), strict=True)
    parts = [torch.tensordot(part, weight, sums) for part, weight in groups]
    made = torch.cat(parts, -1).movedim(-1, 1)
    return made + own["bias"].reshape(-1, *[1] * axes) if "bias" in own else made


def _transposed_convolution(layer: Any, own: Values, x: Tensor) -> Tensor:
    """Each number of the input adds the kernel, times that number, where it lies in the output."""
    weight, axes = own["weight"], own["weight"].dim() - 2
    steps = list(zip(x.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True))
    full = [(n - 1) * stride + (size - 1) * gap + 1 for n, size, stride, gap in steps]
    made = torch.zeros(len(x), weight.shape[1], *full, dtype=x.dtype)
    for at in product(*map(range, layer.kernel_size)):
        of_kernel: Any = (..., *at)
        added = torch.tensordot(x, weight[of_kernel], ([1], [0])).movedim(-1, 1)
        begins = (place * gap for place, (*_, gap) in zip(at, steps, strict=True))
        taken = (
            slice(begin, begin + (n - 1) * stride + 1, stride)
            for begin, (n, _, stride, _) in zip(begins, steps, strict=True)
        )
        where: Any = (..., *taken)
        made[where] = made[where] + added
    cut: Any = (..., *(slice(p, n - p) for p, n in zip(layer.padding, full, strict=True)))
    made = made[cut]
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


def _recurrent(layer: nn.RNNBase, own: Values, x: Tensor) -> Tensor:
    """(N, T, features) → (N, T, directions × hidden), gate by gate; or with the time first."""
    return _run(layer, own, x)[0]


def _run(layer: nn.RNNBase, own: Values, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The outputs, and of each layer and direction its last hidden state and its last cells."""
    steps, last = list(x.unbind(1 if layer.batch_first else 0)), []
    for number in range(layer.num_layers):
        states, cell = _one_way(layer, own, f"_l{number}", steps)
        ways = [states]
        last.append((states[-1], cell))
        if layer.bidirectional:
            states, cell = _one_way(layer, own, f"_l{number}_reverse", steps[::-1])
            ways.append(states[::-1])
            last.append((states[-1], cell))
        steps = [torch.cat(both, 1) for both in zip(*ways, strict=True)]
    return torch.stack(steps, 1 if layer.batch_first else 0), last


def _one_way(
    layer: nn.RNNBase, own: Values, of: str, steps: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """The hidden state after each step, by the parameters whose names end with ``of``."""
    into, across = own[f"weight_ih{of}"], own[f"weight_hh{of}"]
    first, second = (own[f"bias_ih{of}"], own[f"bias_hh{of}"]) if layer.bias else (0.0, 0.0)
    hidden = cell = torch.zeros(len(steps[0]), layer.hidden_size, dtype=torch.float64)
    states = []
    for step in steps:
        given, kept = step @ into.T + first, hidden @ across.T + second
        if isinstance(layer, nn.LSTM):
            keep_in, forget, fresh, show = (given + kept).chunk(4, dim=1)
            cell = _gate(forget) * cell + _gate(keep_in) * fresh.tanh()
            hidden = _gate(show) * cell.tanh()
        else:
            (reset, update, fresh), (again, still, old) = given.chunk(3, 1), kept.chunk(3, 1)
            share = _gate(update + still)
            fresh = (fresh + _gate(reset + again) * old).tanh()
            hidden = (1 - share) * fresh + share * hidden
        states.append(hidden)
    return states, cell


def _gate(x: Tensor) -> Tensor:
    """The logistic function by tanh, of which draws know that rounding takes it to its bounds."""
    return (1 + (x / 2).tanh()) / 2


LONGEST = 700.0
"""The largest exponent: beyond it, exp overflows, and both functions have long come to an end."""


def _short(exponent: Tensor) -> Tensor:
    """At most ``LONGEST``; ``clamp`` would hide NaN on the way back."""
    return torch.where(exponent > LONGEST, LONGEST, exponent)


def _logistic(x: Tensor) -> Tensor:
    return 1 / (1 + _short(-x).exp())


def _tanh(x: Tensor) -> Tensor:
    grown = _short(2 * x).expm1()
    return grown / (grown + 2)


def _adaptive(reduced: Callable[[Tensor], Tensor]) -> Definition:
    """Pooling to a given size: of each of so many stretches, which may overlap by one place."""

    def pool(layer: Any, own: Values, x: Tensor) -> Tensor:
        sizes = _tuple(layer.output_size, 2)
        rows, columns = (
            [slice(at * length // size, -(-(at + 1) * length // size)) for at in range(size)]
            for length, size in zip(x.shape[2:], sizes, strict=True)
        )
        made = [torch.stack([reduced(x[:, :, r, c]) for c in columns], -1) for r in rows]
        return torch.stack(made, -2)

    return pool


def _softmax(layer: Any, own: Values, x: Tensor) -> Tensor:
    sizes = (x - x.amax(layer.dim, keepdim=True)).exp()
    return sizes / sizes.sum(layer.dim, keepdim=True)


def _log_softmax(layer: Any, own: Values, x: Tensor) -> Tensor:
    below = x - x.amax(layer.dim, keepdim=True)
    made: Tensor = below - below.exp().sum(layer.dim, keepdim=True).log()
    return made


def _nearest(layer: Any, own: Values, x: Tensor) -> Tensor:
    times = int(layer.scale_factor)
    return x.repeat_interleave(times, -1).repeat_interleave(times, -2)


DEFINITIONS: dict[type[nn.Module], Definition] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.ConvTranspose1d: _transposed_convolution,
    nn.ConvTranspose2d: _transposed_convolution,
    nn.ReLU: lambda layer, own, x: torch.where(x > 0, x, torch.zeros_like(x)),
    nn.Sigmoid: lambda layer, own, x: _logistic(x),
    nn.Tanh: lambda layer, own, x: _tanh(x),
    nn.MaxPool1d: _max_pool,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveMaxPool2d: _adaptive(lambda part: part.amax((2, 3))),
    nn.AdaptiveAvgPool2d: _adaptive(lambda part: part.mean((2, 3))),
    nn.Softmax: _softmax,
    nn.LogSoftmax: _log_softmax,
    nn.Upsample: _nearest,
    nn.Flatten: lambda layer, own, x: x.reshape(len(x), -1),
    nn.Embedding: lambda layer, own, x: own["weight"][x],
    nn.LSTM: _recurrent,
    nn.GRU: _recurrent,
}
"""The layers that have a definition here; :func:`is_defined` says with which settings."""

LINEAR = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.Embedding,
)  # fmt: skip
"""Layers that are sums of products, so that their definition of |x| and |weights| bounds them."""

TIED = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d)
"""Layers whose gradient goes to one of several equal inputs, whichever the kernel takes."""


def is_defined(layer: nn.Module) -> bool:
    """Whether there is a definition of a layer of this kind with its settings."""
    if type(layer) not in DEFINITIONS:
        return False
    plain = {
        "padding_mode": "zeros", "ceil_mode": False, "return_indices": False, "proj_size": 0,
        "max_norm": None, "inplace": False, "start_dim": 1, "end_dim": -1,
    }  # fmt: skip
    if any(getattr(layer, name, value) != value for name, value in plain.items()):
        return False
    if isinstance(layer, (nn.MaxPool1d, nn.MaxPool2d)) and {*_tuple(layer.dilation, 1)} != {1}:
        return False
    if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d)):
        return layer.groups == 1 and set(layer.output_padding) == {0}
    if isinstance(layer, nn.AvgPool2d) and layer.padding not in (0, (0, 0)):
        return False
    if isinstance(layer, nn.RNNBase) and layer.dropout and layer.training:
        return False
    if isinstance(layer, (nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)):
        return None not in _tuple(layer.output_size, 2)
    if isinstance(layer, (nn.Softmax, nn.LogSoftmax)):
        return layer.dim is not None
    if isinstance(layer, nn.Upsample):
        times = layer.scale_factor
        return layer.mode == "nearest" and isinstance(times, float) and times.is_integer()
    return not isinstance(getattr(layer, "padding", 0), str)


def defined(layer: nn.Module, own: Values, x: Tensor) -> Tensor:
    """What a layer makes of ``x`` by its definition, with these parameters."""
    return DEFINITIONS[type(layer)](layer, own, x)


def results(layer: nn.Module, own: Values, x: Tensor) -> list[Tensor]:
    """The same, and of a recurrent layer its last states.

    These are the hidden state, (layers × directions, N, hidden), and that of an LSTM's cells.
    """
    if not isinstance(layer, nn.RNNBase):
        return [defined(layer, own, x)]
    output, last = _run(layer, own, x)
    hidden, cells = (torch.stack(states) for states in zip(*last, strict=True))
    return [output, hidden, cells] if isinstance(layer, nn.LSTM) else [output, hidden]
