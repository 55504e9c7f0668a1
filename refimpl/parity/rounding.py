"""What rounding can do to a run, from the oracle alone: Monte Carlo arithmetic.

The oracle is a run in float64. A *draw* is that run made once more, with every result moved at
random by up to half a unit in the last place of the precision that is judged, as if it had been
rounded to it. How far draws are from the oracle is how far a correct run in that precision may be.
No kernel of that precision takes part, so that a wrong one cannot widen its own budget.

Factors of products, and terms that may cancel, are moved too. A long sum is moved by what adding it
up term by term does: each partial sum is rounded, so that the error grows with the square root of
the number of terms, and not only with the result.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from math import isfinite, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from refimpl.composition import CPU
from refimpl.contract import Variant
from refimpl.data import philox
from refimpl.parity.kernel_bounds import FLOAT32_HALF, length_of
from refimpl.parity.rounded_arrays import RoundedArrays
from refimpl.training.comparison import distance, oracle_scale
from refimpl.training.problem import Problem
from refimpl.training.trajectories import Observation, first_draws, observations

LANES = 16
"""Partial sums that a kernel keeps side by side, in the lanes of its registers."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


EXACT = _names("""
    _local_scalar_dense _reshape_alias _to_copy _unsafe_view abs absolute adaptive_max_pool2d
    adaptive_max_pool2d_backward alias amax amin arange argmax argmin as_strided
    as_strided_scatter bernoulli bitwise_and bitwise_not cat clamp clamp_max clamp_min clone
    constant_pad_nd contiguous copy copy_ detach detach_ embedding empty empty_like eq expand
    fill fill_ flip floor full full_like gather ge gt hardtanh index index_put_ index_select
    isfinite isnan le leaky_relu lift_fresh logical_and logical_not lt masked_fill masked_fill_
    masked_select max max_pool2d_with_indices max_pool2d_with_indices_backward
    max_pool3d_with_indices maximum min minimum ne neg neg_ new_empty new_zeros normal_ one_hot
    ones ones_like pad permute random_ randperm relu relu_ repeat requires_grad_ reshape resize_
    round scatter scatter_ select select_backward set_ sgn sign slice slice_backward sort split
    squeeze stack t threshold threshold_backward topk transpose tril triu unbind unfold uniform_
    unsqueeze value_selecting_reduction_backward view where zero_ zeros zeros_like
""")
"""Operations whose results are exact: they move, compare and select."""

PRODUCTS = _names("""
    addbmm addmm addmm_ addmv addmv_ addr baddbmm baddbmm_ bmm convolution convolution_backward
    dot einsum linear mm mv vdot
""")
"""Sums of products, whose factors are rounded: autocast makes these in its narrow precision."""

CANCELLING = _names("""
    _log_softmax _log_softmax_backward_data _native_batch_norm_legit _softmax_backward_data add
    cumsum embedding_dense_backward huber_loss l1_loss log_sigmoid_forward logsumexp mse_loss
    mse_loss_backward native_batch_norm native_batch_norm_backward native_group_norm
    native_group_norm_backward native_layer_norm native_layer_norm_backward rsub smooth_l1_loss
    std sub var var_mean
""")
"""Operations in which terms may cancel, so that a rounded term shows more than the result."""

BOUNDED = _names("""
    _softmax erf exp exp_ sigmoid sigmoid_ softmax tanh tanh_
""")
"""Functions that come to a bound, and in a narrow precision reach it: these are really rounded."""

AS_GIVEN = _names("""
    sigmoid sigmoid_ sigmoid_backward silu silu_backward tanh tanh_ tanh_backward
""")
"""Functions that autocast computes in the dtype of their input, which a product has made."""

SUMS = frozenset(("sum", "mean"))
LOSSES = _names("""
    binary_cross_entropy binary_cross_entropy_with_logits huber_loss l1_loss mse_loss
    nll_loss2d_forward nll_loss_forward smooth_l1_loss
""")
"""Sums over rows of terms of one sign."""

WRITTEN = {"native_batch_norm": (3, 4), "_native_batch_norm_legit": (3, 4)}
"""Arguments that a call writes to besides its results: running statistics."""

NOISE = 1 << 18
"""How many random numbers there are to move results by; each result begins elsewhere in them."""

ONE = torch.ones((), dtype=torch.float64)


class Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes in float64 as if results were rounded to ``precision``, at random.

    ``products_in`` is a narrower dtype in which only sums of products are made, as under autocast.
    ``instead(name, args)`` may give other arguments for a call.
    """

    def __init__(
        self,
        number: int,
        precision: torch.dtype = torch.float32,
        products_in: torch.dtype | None = None,
        instead: Callable[[str, tuple[Any, ...]], tuple[Any, ...]] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.precision, self.products_in, self.instead = precision, products_in, instead
        self.places = random.Random(number)
        self.number = number

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Make the call, and move what it gives."""
        kind = _kind(func)
        name = kind.name
        kwargs = kwargs or {}
        if self.instead is not None:
            args = self.instead(name, args)
        if kind.exact:
            return func(*args, **kwargs)
        if name == "convolution_backward":
            return self._convolution_backward(func, args)
        half = self._half(name)
        given = args
        if kind.product and (length := length_of(name, args)) > 3:
            given, half = self._long_product(name, args, half, length)
        elif kind.terms:
            by = half * _length_of_rows(args) if name == "embedding_dense_backward" else half
            places = enumerate(args)
            given = tuple([own if n in kind.written else self._moved(own, by) for n, own in places])
        out = func(*given, **kwargs)
        for place in kind.written:
            if isinstance(args[place], Tensor) and args[place].dtype == torch.float64:
                args[place].copy_(self._moved(args[place], half))
        if kind.in_place:
            if isinstance(out, Tensor) and out.dtype == torch.float64:
                out.copy_(self._moved(out, half))
            return out
        if name in SUMS:
            return self._summed(name, args, kwargs, out, half)
        if name in LOSSES:
            half *= sqrt(max(args[0].shape[0] if args[0].ndim else 1, 3) / 3)
        if isinstance(out, Tensor):
            moved = self._moved(out, half)
            if name in BOUNDED and moved.dtype == torch.float64:
                return moved.to(self._kept_in(name)).to(torch.float64)
            return moved
        if isinstance(out, (tuple, list)):
            return type(out)([self._moved(own, half) for own in out])
        return out

    def _long_product(
        self, name: str, args: tuple[Any, ...], half: float, length: float
    ) -> tuple[tuple[Any, ...], float]:
        """What a product of sums of ``length`` terms is given, and by how much its result moves.

        Each partial sum is rounded, and a kernel may keep one for each result: the terms are moved
        by that, and so is the sum. Products of narrow numbers are added up in float32.
        """
        adding = min(half, FLOAT32_HALF)
        factor = 1 if name in ("convolution", "linear") else len(args) - 1
        halves = [half] * len(args)
        halves[factor] = max(half, adding * sqrt(length / 2))
        given = tuple([self._moved(own, by) for own, by in zip(args, halves, strict=True)])
        return given, max(half, adding * sqrt(length / 3))

    def _half(self, name: str) -> float:
        """Half a unit in the last place of 1, in the precision that such calls are made in."""
        # What comes to a bound is really rounded, and not moved besides.
        as_given = name in AS_GIVEN and name not in BOUNDED
        narrow = (name in PRODUCTS or as_given) and self.products_in is not None
        eps = torch.finfo(self.products_in if narrow else self.precision).eps  # type: ignore[arg-type]
        return eps / 2

    def _kept_in(self, name: str) -> torch.dtype:
        """The dtype of a function's result: autocast leaves some in that of the product before."""
        narrow = name in AS_GIVEN and self.products_in is not None
        return self.products_in if narrow else self.precision  # type: ignore[return-value]

    def _moved(self, own: Any, half: float) -> Any:
        """Each value moved at random, by at most ``half`` of itself."""
        if not isinstance(own, Tensor) or own.dtype != torch.float64:
            return own
        if own.is_sparse:
            return torch.sparse_coo_tensor(
                own._indices(), self._moved(own._values(), half), own.shape,
                check_invariants=False, is_coalesced=own.is_coalesced(),
            )  # fmt: skip
        if own.numel() < NOISE or own.layout != torch.strided:
            return own * torch.add(ONE, self._noise(own), alpha=half)
        return self._moved_by_pieces(own, half)

    def _moved_by_pieces(self, own: Tensor, half: float) -> Tensor:
        """The same of a long tensor, in the order of its memory, without copies of the noise."""
        noise, begin = _noise(self.number), self._place(own)
        order = memory_order(own)
        if not own.permute(order).is_contiguous():
            order = list(range(own.dim()))
        made = torch.empty_like(own)
        values, into = own.permute(order).reshape(-1), made.permute(order).view(-1)
        at = 0
        while at < len(values):
            count = min(NOISE - begin, len(values) - at)
            factors = torch.add(ONE, noise[begin : begin + count], alpha=half)
            torch.mul(values[at : at + count], factors, out=into[at : at + count])
            at, begin = at + count, 0
        return made

    def _noise(self, own: Tensor) -> Tensor:
        """Numbers between −1 and 1, in the shape of ``own``."""
        noise, begin, count = _noise(self.number), self._place(own), own.numel()
        if count >= NOISE:
            noise = noise.repeat(-(-(begin + count) // NOISE))
        return noise[begin : begin + count].view(own.shape)

    def _place(self, own: Tensor) -> int:
        """Where the noise of a tensor begins."""
        if own.numel() < NOISE:
            return int(self.places.random() * (NOISE - own.numel()))
        return self.places.randrange(NOISE)

    def _summed(
        self, name: str, args: tuple[Any, ...], kwargs: Any, out: Tensor, half: float
    ) -> Tensor:
        """A sum or mean of n terms, of which each partial sum is rounded.

        The partial sums of n terms with sum S and sum of squares Q, in any order, are like those of
        a random walk: their squares add up to about n·(S²/3 + Q/2).
        """
        terms = args[0]
        if terms.dtype != torch.float64 or not out.numel():
            return out
        count = terms.numel() / out.numel()
        squares = getattr(torch, name)(terms.square(), *args[1:], **kwargs)
        if name == "mean":
            squares = squares / count
        spread: Tensor = (count * (out.square() / 3 + squares / 2)).sqrt()
        out = out + half * spread * self._noise(out)
        if name == "sum" and self.products_in is not None:
            # The gradient of a bias is kept in the dtype of the product that it was added to.
            out = self._moved(out, torch.finfo(self.products_in).eps / 2)
        return out

    def _convolution_backward(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Each of the three gradients with the rounding of its own sum.

        Those of weight and bias are sums over all rows and places, tens of thousands of terms.
        """
        half = self._half("convolution_backward")
        gradient, x, weight, *rest, wanted = args
        of_input = of_weight = of_bias = None
        if wanted[0]:
            moved = (self._moved(gradient, half), x, self._moved(weight, half))
            of_input = self._moved(func(*moved, *rest, [True, False, False])[0], half)
        if wanted[1]:
            count = gradient.numel() / gradient.shape[1]
            of_lanes = max(count / (2 * LANES), 2.0)
            moved = (self._moved(gradient, half * sqrt(of_lanes)), x, weight)
            of_weight = func(*moved, *rest, [False, True, False])[1]
            of_weight = self._moved(of_weight, half * sqrt(max(count / (3 * LANES), 1.0)))
        if wanted[2]:
            of_bias = self._added_up(gradient)
        return of_input, of_weight, of_bias

    def _added_up(self, gradient: Tensor) -> Tensor:
        """The sum over rows and places (N, C, ...) → (C,), term by term in float32.

        Places often have the same gradient (an average was taken over them), and adding one number
        again and again rounds the same way each time: no random walk shows that.
        """
        terms = gradient.transpose(0, 1).reshape(gradient.shape[1], -1)
        terms = self._moved(terms, torch.finfo(torch.float32).eps / 2)
        rounded = np.add.accumulate(terms.detach().numpy().astype(np.float32), axis=1)[:, -1]
        return torch.from_numpy(rounded.astype(np.float64))


def _length_of_rows(args: tuple[Any, ...]) -> float:
    """By how much more the terms of a sum over the rows of a table are moved: by its length."""
    rows = args[1].flatten()
    return sqrt(max(float(rows.bincount().max()) / 2, 1.0)) if rows.numel() else 1.0


def memory_order(tensor: Tensor) -> list[int]:
    """Its dimensions from the one with the longest step in memory to the one with the shortest."""
    return sorted(range(tensor.dim()), key=tensor.stride, reverse=True)


@lru_cache(maxsize=16)
def _noise(number: int) -> Tensor:
    return torch.from_numpy(philox("rounding", number).uniform(-1.0, 1.0, NOISE))


@dataclass(frozen=True)
class _Kind:
    """How a call rounds: not at all, in place, or also in the terms that it adds up."""

    name: str
    exact: bool
    in_place: bool
    terms: bool
    product: bool
    written: tuple[int, ...]


@cache
def _kind(func: Any) -> _Kind:
    aliases = [returned.alias_info for returned in func._schema.returns]
    name = func._schema.name.removeprefix("aten::")
    fresh = bool(aliases) and all(alias is None for alias in aliases)
    in_place = not fresh and any(alias is not None and alias.is_write for alias in aliases)
    exact = name in EXACT or not (fresh or in_place)
    product = name in PRODUCTS
    terms = product or name in CANCELLING
    return _Kind(name, exact, in_place, terms, product, WRITTEN.get(name, ()))


# --- functions ------------------------------------------------------------------------------------

OF_FUNCTION, FURTHER, HALF_UNITS = 3, 6.0, 16.0
"""Draws of a function; how many times the furthest draw a sound result may be off; half units of
the largest value that it may be off besides."""


def rounding_of(
    compute: Callable[[], Sequence[Tensor]], exact: Sequence[Tensor], dtype: torch.dtype
) -> list[float]:
    """How far rounding to ``dtype`` may take each tensor that ``compute()`` makes in float64."""
    furthest = [0.0] * len(exact)
    for number in range(OF_FUNCTION):
        with Rounded(number, dtype):
            drawn = compute()
        for place, (one, other) in enumerate(zip(exact, drawn, strict=True)):
            far = distance(other, one)
            furthest[place] = max(furthest[place], far if isfinite(far) else 0.0)
    half = torch.finfo(dtype).eps / 2
    return [
        FURTHER * far + HALF_UNITS * half * oracle_scale(one)
        for far, one in zip(furthest, exact, strict=True)
    ]


# --- runs ----------------------------------------------------------------------------------------


def moved(
    values: Mapping[str, NDArray[Any]], precision: torch.dtype, number: int
) -> dict[str, NDArray[Any]]:
    """Every value moved up or down by half a unit in the last place, at random."""
    half_unit = torch.finfo(precision).eps / 2
    found = {}
    for name, value in values.items():
        up_or_down = philox("moved", name, number).choice((-1.0, 1.0), value.shape)
        found[name] = value * (1 + half_unit * up_or_down)
    return found


def under(variant: Variant, mode: Rounded, problem: Problem, number: int) -> Problem:
    """The problem in float64 on the CPU, each step under ``mode``, from a rounded start."""

    def around() -> AbstractContextManager[object]:
        return _with_arrays(mode, arrays) if arrays is not None else mode

    arrays = RoundedArrays(number, torch.finfo(mode.precision).eps / 2) if variant.numpy else None
    precision = torch.float32 if mode.products_in is not None else mode.precision
    execution = replace(CPU, around=around)
    values = moved(problem.values, precision, number)
    return problem.but(
        values=values, precision="float64", execution=execution, dropout=False, swift=False
    )


@contextmanager
def _with_arrays(mode: Rounded, arrays: RoundedArrays) -> Iterator[None]:
    with mode, arrays:
        yield


def drawn(
    variant: Variant,
    problem: Problem,
    number: int,
    precision: torch.dtype = torch.float32,
    products_in: torch.dtype | None = None,
) -> Iterator[list[Observation]]:
    """What is seen of draw ``number`` of a run, step by step."""
    mode = Rounded(number, precision, products_in)
    return observations(variant, under(variant, mode, problem, number), problem.length)


def first_drawn(
    variant: Variant,
    problem: Problem,
    number: int,
    count: int,
    precision: torch.dtype = torch.float32,
    products_in: torch.dtype | None = None,
) -> list[list[Observation]]:
    """The first steps of a draw; a draw that is kept is only continued as far as needed."""
    make = partial(drawn, variant, problem, number, precision, products_in)
    return first_draws(variant, problem, count, ("draw", number, precision, products_in), make)
