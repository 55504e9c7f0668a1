"""How far rounding alone can take the result of one call of torch, from the inputs of that call.

Every bound is computed in float64 from the very inputs of the call, element by element. None comes
from a run in the precision that is judged, so a fault cannot widen its own bound. There are four
kinds of calls:

- those that move, select or fill give each value again, rounded once where the dtype changes;
- pointwise ones are as uncertain as each input times its unit makes them, plus a few units of the
  result (:data:`UNITS`);
- sums of products of length n round n times. Each rounding moves a partial sum, which is at most
  Σ|a||b|, by at most half a unit, so the sum of them is at most :data:`DEVIATIONS` standard
  deviations, √(n/3) half units, of Σ|a||b|;
- softmax and losses have the conditioning of their exponentials and logarithms written out.

What is none of these is measured: its inputs are moved by half a unit, up or down at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from refimpl.environment import onednn_is_on
from refimpl.parity.update_definitions import OF_KERNELS, SCALED

UNITS = 8.0
"""Half units of each result that a kernel may be off: exp, log and their like are good to a few."""

CONDITION = 4.0
"""How often half a unit of an input is allowed for: a kernel rounds between input and result."""

DEVIATIONS = 6.0
"""Standard deviations of the sum of many roundings: beyond them by chance once in 5e8 sums."""

TRANSFORMS = 400.0
"""Half units of the largest sum of its image that Winograd's transform may be off besides: it adds
up tiles of 6×6 with factors up to 32. For 3×3 weights on 1 to 16 channels, up to 195 were seen."""

DRAWS = 4
"""How often the inputs of a call of no known kind are moved."""

Results = list[Tensor]


def name_of(func: Any) -> str:
    """The kernel's name without namespace and overload, and without the mark of in-place calls."""
    name: str = func._schema.name.split("::")[1]
    return name if name.endswith("__") else name.removesuffix("_")


def is_float(value: object) -> bool:
    """Whether it is a tensor of real floating-point numbers."""
    return isinstance(value, Tensor) and value.is_floating_point()


def written(func: Any) -> list[tuple[int, str]]:
    """Place and name of each argument that a call writes to."""
    return [
        (place, argument.name)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def results_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Results:
    """What a call made: the tensors that it wrote to, then those that it returned."""
    into = [args[place] if place < len(args) else kwargs.get(name) for place, name in written(func)]
    made = [
        each
        for each, declared in zip(as_tuple(out), func._schema.returns, strict=False)
        if declared.alias_info is None or not declared.alias_info.is_write
    ]
    return [leaf for leaf in tree_flatten((into, made))[0] if isinstance(leaf, Tensor)]


def as_tuple(out: Any) -> tuple[Any, ...]:
    """What a call returned, as its schema lists it."""
    return tuple(out) if isinstance(out, tuple) else (out,)


def in_float64(value: Any) -> Any:
    """An argument as float64 on the CPU gets it; of a tensor, a copy."""
    if isinstance(value, Tensor):
        own = value.detach()
        return own.to("cpu", torch.float64 if own.is_floating_point() else own.dtype, copy=True)
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


def repeated(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Results:
    """Make a call once more, and leave its inputs as they are."""
    places = {place for place, _ in written(func)}
    names = {name for _, name in written(func)}
    own = [_cloned(each) if place in places else each for place, each in enumerate(args)]
    named = {name: _cloned(each) if name in names else each for name, each in kwargs.items()}
    definition = OF_KERNELS.get(name_of(func))
    if definition is not None and not any(named.get(name) is not None for name in SCALED):
        given = {name: value for name, value in named.items() if name not in SCALED}
        return results_of(func, own, named, definition(*own, **given))
    return results_of(func, own, named, func(*own, **named))


def _cloned(value: Any) -> Any:
    return tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, value)


# --- the kinds of calls --------------------------------------------------------------------------

MOVING = frozenset((
    "copy", "clone", "_to_copy", "_unsafe_view", "index", "index_select", "embedding", "cat",
    "stack", "select_backward", "gather", "slice_backward", "zeros", "ones", "full", "zeros_like",
    "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "fill", "zero", "scalar_tensor",
    "arange", "relu", "threshold_backward", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "adaptive_max_pool2d", "abs", "sgn", "sign", "neg", "where", "masked_fill", "maximum",
    "minimum", "amax", "amin", "max", "min", "flip", "roll", "constant_pad_nd", "unfold",
    "index_put", "scatter", "select_scatter", "slice_scatter", "diag", "tril", "triu", "repeat",
    "expand_copy", "native_dropout_backward",
))  # fmt: skip
"""Kernels that only move, select or fill; where they accumulate, they are sums."""

CONVERTING = frozenset(["copy", "_to_copy"])
"""Kernels that convert to another dtype: to the nearest number, so that truncation is wrong."""

ONCE = 1 + 1e-3
"""Half units that such a result may be off: torch rounds float64 to float32 on the way."""

SUMS = frozenset((
    "mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot", "convolution", "convolution_backward",
    "sum", "mean", "avg_pool2d", "avg_pool2d_backward", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool2d_backward", "embedding_dense_backward",
    "max_pool2d_with_indices_backward", "adaptive_max_pool2d_backward", "nll_loss_forward",
    "nll_loss_backward", "nll_loss2d_forward", "nll_loss2d_backward", "cumsum", "index_add",
    "scatter_add", "trace", "unfold_backward",
))  # fmt: skip
"""Kernels that are sums of products of their inputs, so that those of |inputs| bound them."""

ROUNDED_ONCE = frozenset(["mm", "addmm", "bmm", "baddbmm"])
"""Products that the CPU adds up in float32, however narrow they are, and rounds once."""

FLOAT32_HALF = torch.finfo(torch.float32).eps / 2

ADDING = frozenset((
    "embedding_dense_backward", "index_put", "index_add", "scatter_add", "cumsum", "trace",
    "unfold_backward", "max_pool2d_with_indices_backward", "adaptive_max_pool2d_backward",
))  # fmt: skip
"""Those that add what they are given, so that they count the terms if they are given ones."""

REDUCED = frozenset(["binary_cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
"""Losses: pointwise, and then a sum or a mean."""


def bounds(
    func: Any,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    exact: Results,
    unit: float,
    device: str = "cpu",
) -> list[Tensor | float]:
    """For each result in float64, how far rounding to half a ``unit`` may take each element.

    ``args`` and ``kwargs`` are those of a call on the ``device``, in float64 on the CPU, and
    ``exact`` is what it makes of them.
    """
    name = name_of(func)
    half = unit / 2
    if not any(is_float(each) for each in exact):
        return [0.0] * len(exact)
    if name == "index_put" and (kwargs.get("accumulate") or (len(args) > 3 and args[3])):
        return _of_sum(func, name, args, kwargs, exact, half, device)
    if name in CONVERTING:
        return [ONCE * half * each.abs() for each in exact]
    if name in MOVING:
        return [2 * half * each.abs() for each in exact]
    if name in SUMS:
        return _of_sum(func, name, args, kwargs, exact, half, device)
    if name in REDUCED:
        return _of_reduced(func, name, args, kwargs, exact, half)
    if name in CONDITIONED:
        return CONDITIONED[name](args, exact, half)
    if name.startswith(("_foreach", "_fused")) or torch.Tag.pointwise in func.tags:
        return _of_pointwise(func, args, kwargs, exact, half)
    if name.endswith("_backward") and name.removesuffix("_backward") in POINTWISE:
        return _of_pointwise(func, args, kwargs, exact, half)
    return _measured(func, args, kwargs, exact, half)


def least(func: Any, exact: Results, unit: float) -> list[Tensor | float] | None:
    """What every bound of such a call is at least, without looking at its inputs."""
    if name_of(func) in MOVING or name_of(func) == "index_put":
        return None
    return [UNITS * unit / 2 * each.abs() if is_float(each) else 0.0 for each in exact]


POINTWISE = frozenset((
    "sigmoid", "tanh", "mse_loss", "l1_loss", "binary_cross_entropy", "smooth_l1_loss",
    "huber_loss", "elu", "gelu", "silu", "softplus", "leaky_relu", "hardtanh", "log_sigmoid",
))  # fmt: skip
"""Kernels whose gradients are pointwise too, though torch does not say so of all."""


# --- pointwise -----------------------------------------------------------------------------------


def _of_pointwise(
    func: Any, args: Sequence[Any], kwargs: dict[str, Any], exact: Results, half: float
) -> list[Tensor | float]:
    """The change by half a unit of each argument in turn, and some units of the result."""
    found: list[Tensor] = [UNITS * half * each.abs() for each in exact]
    step = half if half > 1e-10 else 1e-8  # a change that float64 itself can see
    for where in (*range(len(args)), *kwargs):
        moved_args, moved_kwargs = list(args), dict(kwargs)
        holder: Any = moved_args if isinstance(where, int) else moved_kwargs
        if not _has_floats(holder[where]):
            continue
        holder[where] = tree_map(lambda value: _scaled(value, 1 + step), holder[where])
        again = repeated(func, moved_args, moved_kwargs)
        for number, (one, other) in enumerate(zip(exact, again, strict=True)):
            change = (other.double() - one.double()).abs() * (half / step)
            found[number] = found[number] + CONDITION * change.nan_to_num(nan=0.0, posinf=0.0)
    return list(found)


def _has_floats(value: Any) -> bool:
    return any(is_float(leaf) or isinstance(leaf, float) for leaf in tree_flatten(value)[0])


def _scaled(value: Any, by: float) -> Any:
    return value * by if is_float(value) or isinstance(value, float) else value


# --- sums of products ----------------------------------------------------------------------------


def summed(length: Tensor | float, magnitude: Tensor, half: float) -> Tensor:
    """How far a sum of ``length`` terms may be off whose magnitudes add up to ``magnitude``."""
    roundings = torch.as_tensor(length, dtype=torch.float64).clamp(min=1.0)
    return DEVIATIONS * (roundings / 3).sqrt() * half * magnitude


def by_transforms(device: str, unit: float) -> bool:
    """Whether convolutions are made by NNPACK's transforms: on the CPU, in float32, without oneDNN.

    They round sums over whole tiles, so that an element may be off by more than its own terms say.
    """
    if device != "cpu" or unit != torch.finfo(torch.float32).eps:
        return False
    return torch._nnpack_available() and not onednn_is_on()


def of_tiles(magnitude: Tensor, half: float) -> Tensor:
    """What transforms may add to the error of each image and channel."""
    places = tuple(range(2, magnitude.dim()))
    return TRANSFORMS * half * magnitude.double().abs().amax(places, keepdim=True)


def _of_sum(
    func: Any,
    name: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    exact: Results,
    half: float,
    device: str,
) -> list[Tensor | float]:
    tiles = name == "convolution" and by_transforms(device, 2 * half)
    magnitudes = repeated(func, tree_map(_magnitude, list(args)), tree_map(_magnitude, kwargs))
    lengths: Sequence[Tensor | float] = (
        repeated(func, tree_map(_ones, list(args)), tree_map(_ones, kwargs))
        if name in ADDING
        else _lengths(name, args, exact)
    )
    adding = min(half, FLOAT32_HALF) if name in ROUNDED_ONCE and device == "cpu" else half
    return [
        summed(length, size.double().abs(), adding)
        + UNITS * half * each.double().abs()
        + (of_tiles(size, half) if tiles else 0.0)
        for length, size, each in zip(lengths, magnitudes, exact, strict=True)
    ]


def _magnitude(value: Any) -> Any:
    return abs(value) if is_float(value) or isinstance(value, float) else value


def _ones(value: Any) -> Any:
    return torch.ones_like(value) if is_float(value) else value


def length_of(name: str, args: Sequence[Any]) -> float:
    """About how many terms each element of the results of a sum of products has."""
    if name == "convolution_backward":
        gradient, _, weight = args[:3]
        return float(max(gradient.numel() / gradient.shape[1], weight.numel() / weight.shape[1]))
    if name in ("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "convolution"):
        return float(_lengths(name, args, [])[0])
    return float(max((t.numel() for t in tensors_of(args)), default=1))


def _lengths(name: str, args: Sequence[Any], exact: Results) -> list[float]:
    """How many terms each element of each result is the sum of."""
    if name in ("mm", "bmm", "mv", "dot"):
        return [args[0].shape[-1]]
    if name in ("addmm", "baddbmm", "addmv"):
        return [args[1].shape[-1] + 1]
    if name == "convolution":
        return [args[1][0].numel() + 1]
    if name == "convolution_backward":
        gradient, _, weight = args[:3]
        rows = gradient.numel() / gradient.shape[1]
        each = weight.numel() / weight.shape[1]
        wanted = args[10]
        return [n for n, made in zip((each, rows, rows), wanted, strict=True) if made]
    return [max(t.numel() for t in tensors_of(args)) / max(each.numel(), 1) for each in exact]


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors among arguments or results."""
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


# --- losses and softmax --------------------------------------------------------------------------


def _of_reduced(
    func: Any,
    name: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    exact: Results,
    half: float,
) -> list[Tensor | float]:
    """Term by term, and then as a sum of the terms."""
    places = {argument.name: place for place, argument in enumerate(func._schema.arguments)}
    at = places["reduction"]
    reduction = args[at] if at < len(args) else kwargs.get("reduction", 1)
    each = [*args[:at], *(args[at + 1 :] and [0, *args[at + 1 :]])] if at < len(args) else args
    named = {k: v for k, v in kwargs.items() if k != "reduction"}
    if at >= len(args) or not args[at + 1 :]:
        each = list(args[:at])
        named["reduction"] = 0
    terms = repeated(func, each, named)
    if name == "binary_cross_entropy":
        # Each logarithm is good to a few units of itself, and 1 - p is rounded before it.
        weight = args[2] if len(args) > 2 and args[2] is not None else 1.0
        uncertain = UNITS * half * (terms[0].abs() + weight)
    else:
        (made,) = _of_pointwise(func, each, named, terms, half)
        uncertain = torch.as_tensor(made)
    if reduction == 0:
        return [uncertain]
    count = terms[0].numel()
    shares = 1 / count if reduction == 1 else 1.0
    total = terms[0].abs().sum() * shares
    return [uncertain.sum() * shares + summed(count, total, half) + UNITS * half * exact[0].abs()]


def _log_softmax(args: Sequence[Any], exact: Results, half: float) -> list[Tensor | float]:
    """x - max - log Σ exp: each term of the difference is rounded, and what is exponentiated."""
    x, along = args[:2]
    return [_of_logarithms(x, along, half) + UNITS * half * exact[0].abs()]


def _softmax(args: Sequence[Any], exact: Results, half: float) -> list[Tensor | float]:
    x, along = args[:2]
    return [exact[0] * (_of_logarithms(x, along, half) + UNITS * half)]


def _of_logarithms(x: Tensor, along: int, half: float) -> Tensor:
    top = x.amax(along, keepdim=True)
    shares = (x - top).exp()
    total = shares.sum(along, keepdim=True)
    expected = (shares * x.abs()).sum(along, keepdim=True) / total
    spread = DEVIATIONS * math.sqrt(x.shape[along] / 3) + UNITS
    size = CONDITION * (x.abs() + 2 * top.abs() + expected + total.log().abs())
    return half * (size + spread)


def _log_softmax_backward(args: Sequence[Any], exact: Results, half: float) -> list[Tensor | float]:
    """g - exp(y) Σ g, where each exponential is as uncertain as its argument is long."""
    gradient, output, along = args[:3]
    total = gradient.abs().sum(along, keepdim=True)
    spread = DEVIATIONS * math.sqrt(output.shape[along] / 3) + UNITS + output.abs()
    size = CONDITION * gradient.abs() + output.exp() * total * spread
    return [half * (size + UNITS * exact[0].abs())]


def _cross_entropy_backward(
    args: Sequence[Any], exact: Results, half: float
) -> list[Tensor | float]:
    """g (p - y) / (p (1 - p)): every difference is of the inputs as they are, so it is exact."""
    return [UNITS * half * exact[0].abs()]


def _softmax_backward(args: Sequence[Any], exact: Results, half: float) -> list[Tensor | float]:
    gradient, output, along = args[:3]
    total = (gradient * output).abs().sum(along, keepdim=True)
    spread = DEVIATIONS * math.sqrt(output.shape[along] / 3) + UNITS
    size = output.abs() * (CONDITION * gradient.abs() + total * spread)
    return [half * (size + UNITS * exact[0].abs())]


CONDITIONED: dict[str, Callable[[Sequence[Any], Results, float], list[Tensor | float]]] = {
    "_log_softmax": _log_softmax,
    "_softmax": _softmax,
    "_log_softmax_backward_data": _log_softmax_backward,
    "_softmax_backward_data": _softmax_backward,
    "binary_cross_entropy_backward": _cross_entropy_backward,
}


# --- anything else -------------------------------------------------------------------------------


def _measured(
    func: Any, args: Sequence[Any], kwargs: dict[str, Any], exact: Results, half: float
) -> list[Tensor | float]:
    """The furthest that inputs moved by half a unit, up or down at random, take each result."""
    step = half if half > 1e-10 else 1e-8
    furthest = [0.0] * len(exact)
    for number in range(DRAWS):
        generator = torch.Generator().manual_seed(number)

        def moved(value: Any, generator: torch.Generator = generator) -> Any:
            if not is_float(value):
                return value
            signs = torch.randint(0, 2, value.shape, generator=generator) * 2 - 1
            return value * (1 + step * signs.to(value.dtype))  # 1 + 1e-8 is 1 in float32

        again = repeated(func, tree_map(moved, list(args)), tree_map(moved, kwargs))
        for place, (one, other) in enumerate(zip(exact, again, strict=True)):
            if one.numel() and is_float(one):
                change = float((other - one).abs().nan_to_num(posinf=0.0).max()) * half / step
                furthest[place] = max(furthest[place], change)
    sizes = [
        max((t.numel() for t in tensors_of(args)), default=1) / max(e.numel(), 1) for e in exact
    ]
    times = _eliminations(func, args)
    return [
        DEVIATIONS * times * math.sqrt(max(size, 1.0)) * change
        + UNITS * half * (float(each.abs().max()) if each.numel() else 0.0)
        for size, change, each in zip(sizes, furthest, exact, strict=True)
    ]


def _eliminations(func: Any, args: Sequence[Any]) -> int:
    """How often a kernel that solves or factorises rounds each number: once for each row."""
    if "linalg" not in name_of(func):
        return 1
    return max((t.shape[-1] for t in tensors_of(args) if t.dim() > 1), default=1)
