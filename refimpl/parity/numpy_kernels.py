"""Some kernels in float64 by NumPy and SciPy: a second witness of what the judge compares with.

Calls are judged by torch's own float64, which a fault may reach as well. What stands here is
computed without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import expit, softmax
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

Array = NDArray[Any]

ROWS, LARGEST = 4, 20_000_000
"""Of a convolution, so many rows are computed, and none whose windows have more numbers."""

MEAN, SUM = 1, 2
"""How torch's kernels of losses are told to reduce; 0 is not at all."""


def _added(own: Any, product: Array, beta: float = 1, alpha: float = 1) -> Array:
    made: Array = alpha * product
    return made if beta == 0 else beta * own + made  # not even NaN counts then


def _reduced(reduce: Callable[..., Any]) -> Callable[..., Any]:
    def over(x: Array, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        axes = tuple(dim) if isinstance(dim, (list, tuple)) else dim
        return reduce(x, axis=None if axes == () else axes, keepdims=keepdim)

    return over


def _std(x: Array, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> Any:
    standard: Callable[..., Any] = np.std  # NumPy releases differ in its overloads
    axes = tuple(dim) if dim else None
    return standard(x, axis=axes, ddof=correction, keepdims=keepdim)


def _as_stated(terms: Array, reduction: int) -> Any:
    if reduction == MEAN:
        return terms.mean()
    return terms.sum() if reduction == SUM else terms


def _cross_entropy(x: Array, y: Array, weight: Any = None, reduction: int = MEAN) -> Any:
    with np.errstate(divide="ignore"):
        hit, missed = np.maximum(np.log(x), -100), np.maximum(np.log1p(-x), -100)
    terms = -(y * hit + (1 - y) * missed)
    return _as_stated(terms if weight is None else terms * weight, reduction)


def _log_softmax(x: Array, dim: int, half_to_float: bool) -> Any:
    below = x - x.max(dim, keepdims=True)
    return below - np.log(np.exp(below).sum(dim, keepdims=True))


def _convolution(
    x: Array, weight: Array, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Array | None:  # fmt: skip
    axes = weight.ndim - 2
    if transposed or groups != 1 or set(dilation) != {1}:
        return None
    around = [(0, 0), (0, 0), *((p, p) for p in _each(padding, axes))]
    windows = sliding_window_view(
        np.pad(x[:ROWS], around), weight.shape[2:], tuple(range(2, 2 + axes))
    )
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in _each(stride, axes)))
    if windows[steps].size > LARGEST:
        return None
    inner = (1, *range(2 + axes, 2 + 2 * axes))
    made = np.tensordot(windows[steps], weight, (inner, tuple(range(1, 2 + axes))))
    made = np.moveaxis(made, -1, 1)
    return made if bias is None else made + bias.reshape(-1, *(1,) * axes)


def _each(sizes: Sequence[int], count: int) -> Sequence[int]:
    return list(sizes) * count if len(sizes) == 1 else sizes


KERNELS: dict[str, Callable[..., Any]] = {
    "mm": lambda a, b: a @ b,
    "bmm": lambda a, b: a @ b,
    "mv": lambda a, b: a @ b,
    "dot": lambda a, b: a @ b,
    "addmm": lambda own, a, b, **scales: _added(own, a @ b, **scales),
    "baddbmm": lambda own, a, b, **scales: _added(own, a @ b, **scales),
    "convolution": _convolution,
    "sum": _reduced(np.sum),
    "mean": _reduced(np.mean),
    "std": _std,
    "linalg_inv_ex": lambda x, check_errors=False: np.linalg.inv(x),
    "_linalg_det": np.linalg.det,
    "add": lambda a, b, alpha=1: a + alpha * b,
    "sub": lambda a, b, alpha=1: a - alpha * b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": expit,
    "relu": lambda x: np.maximum(x, 0),
    "tanh_backward": lambda flow, y: flow * (1 - y * y),
    "sigmoid_backward": lambda flow, y: flow * (1 - y) * y,
    "threshold_backward": lambda flow, x, least: np.where(x <= least, 0, flow),
    "_softmax": lambda x, dim, half_to_float: softmax(x, axis=dim),
    "_log_softmax": _log_softmax,
    "mse_loss": lambda x, y, reduction=MEAN: _as_stated((x - y) ** 2, reduction),
    "binary_cross_entropy": _cross_entropy,
}
"""By the names of torch's kernels, with their arguments."""


def by_numpy(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """What a kernel makes first of these arguments in float64, or of their first rows.

    ``None`` if it has no second witness, or none for such arguments: all tensors are to be of
    float64, dense, and to have numbers.
    """
    kernel = KERNELS.get(name)
    if kernel is None:  # as most are, so before anything else
        return None
    leaves = tree_flatten((list(args), dict(kwargs)))[0]
    if not all(_is_plain(leaf) for leaf in leaves if isinstance(leaf, Tensor)):
        return None
    try:
        with np.errstate(all="ignore"):
            made = kernel(*tree_map(_array, list(args)), **tree_map(_array, dict(kwargs)))
    except (TypeError, ValueError, ArithmeticError):  # an overload with other arguments
        return None
    return None if made is None else torch.from_numpy(np.array(made, dtype=np.float64))


def _is_plain(tensor: Tensor) -> bool:
    own = tensor.dtype == torch.float64 and tensor.layout == torch.strided
    return own and tensor.numel() > 0


def _array(value: Any) -> Any:
    return value.detach().resolve_neg().numpy() if isinstance(value, Tensor) else value
