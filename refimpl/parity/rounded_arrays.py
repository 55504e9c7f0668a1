"""What rounding can do to a run that computes in NumPy: every result of an array moves at random.

Torch shows its own calls to a mode; the arrays that a variant takes from tensors have to show
theirs. :mod:`refimpl.parity.rounding` says by how much which result moves, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from refimpl.data import philox

EXACT = frozenset((
    "absolute", "copysign", "fabs", "fmax", "fmin", "maximum", "minimum", "negative", "positive",
    "sign", "floor", "ceil", "trunc", "rint",
))  # fmt: skip
"""Functions whose results are exact; comparisons give no numbers to move."""

CANCELLING = frozenset(("add", "subtract"))
"""Functions in which a rounded term shows more than the result."""

PRODUCTS = frozenset(("dot", "vdot", "inner", "tensordot", "einsum", "convolve", "correlate"))
"""Sums of products that are no ``ufunc``."""


@dataclass(frozen=True)
class Moves:
    """By how much results move: ``half`` a unit in the last place of 1."""

    half: float
    random: np.random.Generator

    def moved(self, value: Any, by: float) -> Any:
        """The numbers moved by up to this share of themselves; anything else as it is."""
        if not _is_float64(value):
            return value
        return value * (1 + by * self.random.uniform(-1.0, 1.0, np.shape(value)))

    def product(self, compute: Any, factors: Sequence[Any], length: float) -> Any:
        """A sum of products of ``length`` terms, of which each partial sum is rounded."""
        first, *others = factors
        given = [self.moved(first, self.half * max(1.0, sqrt(length / 2)))]
        given += [self.moved(each, self.half) for each in others]
        return self.moved(compute(*given), self.half * max(1.0, sqrt(length / 3)))

    def added(self, terms: Any, total: Any, squares: Any) -> Any:
        """A sum of terms, of which each partial sum is rounded, as in a random walk."""
        count = np.size(terms) / max(np.size(total), 1)
        spread = np.sqrt(count * (np.square(total) / 3 + squares / 2))
        return total + self.half * spread * self.random.uniform(-1.0, 1.0, np.shape(total))


class RoundedArray(np.ndarray):
    """A float64 array whose results are moved as if they were rounded to fewer digits.

    What LAPACK computes is left as it is, and so are both results of a function that has two.
    """

    moves: Moves | None = None

    def __array_finalize__(self, parent: Any) -> None:
        """What is made of it moves alike."""
        self.moves = getattr(parent, "moves", None)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any
    ) -> Any:
        """Compute in plain arrays, and move what that gives."""
        moves = next(
            (own for each in (*inputs, self) if (own := getattr(each, "moves", None))), None
        )
        plain = [_plain(each) for each in inputs]
        if moves is None or ufunc.nout > 1:
            into = {} if out is None else {"out": tuple(map(_plain, out))}
            return getattr(ufunc, method)(*plain, **into, **options)
        made = _moved(moves, ufunc, method, plain, options)
        if out is None:
            return _rounded(made, moves)
        np.copyto(_plain(out[0]), made, casting="unsafe")
        return out[0]

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """The same for products that are no ``ufunc``; everything else ends in those."""
        if func.__name__ not in PRODUCTS or self.moves is None:
            return super().__array_function__(func, types, args, kwargs)
        given = [_plain(each) for each in args]
        arrays = [each for each in given if isinstance(each, np.ndarray)]

        def compute(*factors: Any) -> Any:
            left = iter(factors)
            whole = [next(left) if isinstance(each, np.ndarray) else each for each in given]
            return func(*whole, **kwargs)

        length = max(map(np.size, arrays)) / max(np.size(compute(*arrays)), 1)
        return _rounded(self.moves.product(compute, arrays, length), self.moves)

    def dot(self, other: Any, out: Any = None) -> Any:
        """As a function, which can be seen."""
        return np.dot(self, other, out)


class RoundedArrays(TorchFunctionMode):
    """While in force, the float64 arrays of tensors are :class:`RoundedArray`."""

    def __init__(self, number: int, half: float) -> None:
        super().__init__()
        self.moves = Moves(half, philox("rounding of arrays", number))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make the call; an array that it gives shows what is made of it."""
        return _rounded(func(*args, **(kwargs or {})), self.moves)


def _moved(
    moves: Moves, ufunc: np.ufunc, method: str, inputs: list[Any], options: dict[str, Any]
) -> Any:
    name = ufunc.__name__
    if name == "matmul" and method == "__call__":
        return moves.product(lambda *own: ufunc(*own, **options), inputs, np.shape(inputs[0])[-1])
    if name in CANCELLING and method == "__call__":
        inputs = [moves.moved(each, moves.half) for each in inputs]
    made = getattr(ufunc, method)(*inputs, **options)
    if not _is_float64(made) or name in EXACT:
        return made
    if name == "add" and method in ("reduce", "accumulate", "reduceat"):
        squares = getattr(ufunc, method)(np.square(inputs[0]), *inputs[1:], **options)
        return moves.added(inputs[0], made, squares)
    return moves.moved(made, moves.half)


def _is_float64(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.float64)) and value.dtype == np.float64


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, RoundedArray) else value


def _rounded(made: Any, moves: Moves) -> Any:
    if not isinstance(made, np.ndarray) or made.dtype != np.float64:
        return made
    own: NDArray[Any] = made.view(RoundedArray)
    own.moves = moves  # type: ignore[attr-defined]
    return own
