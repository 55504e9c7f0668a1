"""Judges every call of torch by itself: repeated in float64 with the call's own inputs.

Nothing accumulates and nothing amplifies, so each call of each step can be judged, however chaotic
the run. The repetition is made on the CPU, outside of every other mode and with gradients enabled.
NumPy confirms the first repetitions of many kernels: :mod:`refimpl.parity.numpy_kernels`.
What it may differ by is computed from the inputs: :mod:`refimpl.parity.kernel_bounds`.

Views and other calls that compute nothing are not judged, nor are draws of random numbers: what a
drawn mask is used for is. A call that has no float64 twin is counted under ``unjudged``.

The first calls of every kernel are also compared with what it declares besides its numbers:
:mod:`refimpl.parity.declarations`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from zlib import crc32

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from refimpl import environment
from refimpl.parity import declarations
from refimpl.parity.kernel_bounds import (
    ROUNDED_ONCE,
    UNITS,
    Results,
    bounds,
    dtype_name,
    in_float64,
    is_float,
    least,
    name_of,
    repeated,
    results_of,
    written,
)
from refimpl.parity.numpy_kernels import by_numpy
from refimpl.parity.rounding import memory_order
from refimpl.training.comparison import oracle_scale, shown_apart
from refimpl.trees import dense

KEPT = 20
"""How many calls beyond their bounds are kept; all are counted."""

GRADIENTS = ("gradient of the input", "gradient of the weight", "gradient of the bias")

MATRICES = re.compile(r"mm|matmul|\b[lL]inear")
CONVOLUTIONS = re.compile("conv|Conv|rnn|lstm|LSTM|gru|GRU|RNN")
"""What kernels and layers are called that libraries of matrices, or of networks, compute."""

KNOWN = 20_000
"""How many sound calls are known again."""

A_CALL = 1000
"""The numbers that a call counts as, at least."""

AGAINST_NUMPY = "against NumPy"
"""The role of a result of torch in float64 that NumPy does not confirm."""

CONFIRMED = 2
"""How many calls of each kernel NumPy makes, too."""

LOOKED_AT = 5
"""How many calls of each kernel and dtype in a process are compared with what it declares."""

UNDECIDED = {
    "_linalg_svd": (0, 2), "_linalg_eigh": (1,), "_linalg_det": (1, 2),
    "_linalg_slogdet": (2, 3), "_linalg_solve_ex": (1, 2),
}  # fmt: skip
"""Results that are not judged, by their place: vectors of either sign, and factors of a matrix or
its transpose, as it lies in memory."""

COMPARISONS = frozenset(["gt", "ge", "lt", "le", "eq", "ne"])


@dataclass(frozen=True)
class JudgedCall:
    """One result of one call: its furthest element from float64, and what rounding explains.

    ``error`` is a fraction of the largest value; ``ratio`` is the error over its bound.
    """

    kernel: str
    role: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    device: str
    error: float
    ratio: float
    found: float
    expected: float
    during: str = ""

    def __str__(self) -> str:
        shapes = " × ".join(str(shape) for shape in self.shapes)
        on = ", ".join(filter(None, (f"{self.dtype} on {self.device}", library_of(self))))
        role = f", {self.role}" if self.role else ""
        during = f" in {self.during}" if self.during else ""
        return (
            f"{self.kernel}{role}, {shapes}, {on}{during}: {self.error:.1e} of its largest value, "
            f"{self.ratio:,.3g} × what rounding explains "
            f"({shown_apart(self.found, self.expected)})"
        )


def library_of(call: JudgedCall) -> str:
    """The library, with its version, that a kernel or layer of this name is likely to call."""
    here = environment.libraries_of(call.device)
    if MATRICES.search(call.kernel):
        called = {"CUDA": "cuBLAS of CUDA {}", "oneDNN": "oneDNN {} or MKL", "MKL": "MKL {}"}
    elif CONVOLUTIONS.search(call.kernel):
        called = {"cuDNN": "cuDNN {}", "oneDNN": "oneDNN {} or MKL"}
    else:
        return ""
    return next((text.format(here[name]) for name, text in called.items() if name in here), "")


@dataclass(frozen=True)
class Captured:
    """A call that rounding does not explain: what was called, with what, and which of its results.

    Tensors of floating-point numbers stand as they were, in float64, with their dtype.
    """

    func: Any
    args: Any
    kwargs: Any
    number: int
    call: JudgedCall


@cache
def computes(func: Any) -> bool:
    """Whether a call computes anything: it makes no view, draws nothing and is no bookkeeping."""
    schema = func._schema
    if not schema.name.startswith("aten::") or torch.Tag.nondeterministic_seeded in func.tags:
        return False
    name = name_of(func)
    if name.startswith(
        ("empty", "new_empty", "detach", "lift", "alias", "set", "resize", "_local")
    ):
        return False
    views = [each for each in schema.returns if each.alias_info is not None]
    return not views or any(each.alias_info.is_write for each in views)


class KernelJudge(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While in force, judges every call; ``during`` says what is going on, for the messages.

    ``only`` may name the kernels to judge; the others are then not even counted. Calls of a kernel
    are judged until their results have ``most`` numbers; each counts as ``A_CALL`` at least.

    ``judged`` and ``unjudged`` count calls by kernel; ``worst`` has the largest ratio of each
    kernel's errors to their bounds, and ``beyond`` the first calls that rounding does not explain.
    ``confirmed`` counts the calls whose float64 was compared with NumPy's.
    ``captured`` has the first of each kernel with everything that is needed to make it again.
    ``undeclared`` says, by kernel, what it does against its declaration. ``narrow`` counts results
    in each dtype of 16 bits.
    """

    def __init__(self, during: str = "", most: float = math.inf) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.during, self.most = during, most
        self.only: frozenset[str] | None = None
        self.judged: Counter[str] = Counter()
        self._spent: Counter[str] = Counter()
        self.unjudged: Counter[str] = Counter()
        self.why: dict[str, str] = {}
        self.worst: dict[str, float] = {}
        self.beyond: list[JudgedCall] = []
        self.count_beyond = 0
        self.captured: dict[str, Captured] = {}
        self.confirmed: Counter[str] = Counter()
        self.undeclared: dict[str, str] = {}
        self.narrow: Counter[str] = Counter()
        self._disowned: set[str] = set()
        self._noted: JudgedCall | None = None
        self._first_number = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make a call, and judge what it made, and did."""
        given = dict(kwargs or {})
        if self.only is None and func._schema.name.startswith("aten::"):
            kind = func, getattr(args[0] if args else None, "dtype", None)
            if _looked_at[kind] < LOOKED_AT or kind in _undeclared:
                return self._compared(kind, func, args, given)
        return self._called(func, args, given)

    def _compared(
        self, kind: Hashable, func: Any, args: Sequence[Any], given: dict[str, Any]
    ) -> Any:
        """Make a call, and compare what it does with what its kernel declares."""
        if _only_records(args, given):
            return func(*args, **given)
        _looked_at[kind] += 1
        name, before, said = func._schema.name, None, ""
        read = declarations.only_read(func, args, given)
        with _disable_current_modes(), suppress(Exception):
            before = _fingerprint(func, read)
        out = self._called(func, args, given)
        # What cannot be looked at in this way is judged by its numbers alone.
        with _disable_current_modes(), suppress(Exception):
            said = declarations.broken(func, args, given, out)
            if before is not None and before != _fingerprint(func, read):
                said = "changes what it is given, which it declares only to read"
        if said:
            _undeclared.setdefault(kind, said)
        if kind in _undeclared:
            where = f", in {self.during}" if self.during else ""
            self.undeclared.setdefault(name, f"{name} {_undeclared[kind]}{where}")
        return out

    def _called(self, func: Any, args: Sequence[Any], given: dict[str, Any]) -> Any:
        """Make a call, and judge its numbers."""
        kernel = func._schema.name
        wanted = self.only is None or name_of(func) in self.only
        if not (wanted and computes(func) and self._spent[kernel] < self.most):
            return func(*args, **given)
        if _only_records(args, given):
            return func(*args, **given)
        try:
            # What a call writes to has to be kept before; of any other call, it may be known.
            wide = _widened((list(args), given)) if written(func) else None
        except Exception as error:
            self._cannot(kernel, error)
            return func(*args, **given)
        self._noted = None
        out = func(*args, **given)
        with _disable_current_modes(), torch.enable_grad():
            try:
                made = results_of(func, args, given, out)
                self._spent[kernel] += max([A_CALL, *(each.numel() for each in made)])
                for each in made:
                    if each.dtype in (torch.bfloat16, torch.float16):
                        self.narrow[dtype_name(each.dtype)] += 1
                same = None if wide is not None else _fingerprint(func, (args, given, out))
                if same in _sound:
                    self._count(kernel, _sound[same])
                    return out
                wide = wide or _widened((list(args), given))
                ratio = self._judge(func, made, *wide)
                self._count(kernel, ratio)
                sound = ratio <= 1 and name_of(func) not in self._disowned
                if same is not None and sound:
                    if len(_sound) >= KNOWN:
                        _sound.clear()
                    _sound[same] = ratio
            except Exception as error:
                self._cannot(kernel, error)
        if self._noted is not None and kernel not in self.captured:
            self._capture(func, (list(args), given), wide, self._noted)
        return out

    def add(self, other: KernelJudge) -> None:
        """Count what another judge has seen, too."""
        self.judged += other.judged
        self.unjudged += other.unjudged
        self.confirmed += other.confirmed
        self.narrow += other.narrow
        self.why = {**other.why, **self.why}
        for kernel, ratio in other.worst.items():
            self._keep_worst(kernel, ratio)
        self.beyond += other.beyond[: KEPT - len(self.beyond)]
        self.count_beyond += other.count_beyond
        self.captured = {**other.captured, **self.captured}
        self.undeclared = {**other.undeclared, **self.undeclared}

    def _count(self, kernel: str, ratio: float) -> None:
        self.judged[kernel] += 1
        self._keep_worst(kernel, ratio)

    def _keep_worst(self, kernel: str, ratio: float) -> None:
        worst = self.worst.get(kernel, 0.0)
        self.worst[kernel] = worst if ratio <= worst else ratio

    def _capture(self, func: Any, given: Any, wide: Any, call: JudgedCall) -> None:
        """Keep a call that is beyond: its arguments as given, and its tensors as they then were."""
        leaves, spec = tree_flatten(given)
        values = tree_flatten(wide)[0]
        pairs = zip(leaves, values, strict=True)
        merged = [value if isinstance(leaf, Tensor) else leaf for leaf, value in pairs]
        args, kwargs = tree_unflatten(merged, spec)
        kernel = func._schema.name
        self.captured[kernel] = Captured(func, args, kwargs, self._first_number, call)

    def _cannot(self, kernel: str, error: Exception) -> None:
        self.unjudged[kernel] += 1
        self.why.setdefault(kernel, (str(error) or type(error).__name__).splitlines()[0])

    def _judge(
        self, func: Any, found: list[Tensor], args: list[Any], kwargs: dict[str, Any]
    ) -> float:
        """The largest ratio of the results' errors to their bounds; those above 1 are kept."""
        kernel = func._schema.name
        floats = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Widened)]
        dtypes = [leaf.dtype for leaf in floats] + [t.dtype for t in found if is_float(t)]
        unit = max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)
        plain_args = tree_map(_plain, args)
        plain_kwargs = tree_map(_plain, kwargs)
        if name_of(func) in COMPARISONS and floats:
            plain_args = [_rounded(each, floats[0].dtype) for each in plain_args]
        exact = [dense(each) for each in repeated(func, plain_args, plain_kwargs)]
        exact = self._confirmed(func, exact, plain_args, plain_kwargs)
        found = [dense(each) for each in found]
        own = [made.detach().to("cpu", one.dtype) for made, one in zip(found, exact, strict=True)]
        if all(map(torch.equal, own, exact)):
            return 0.0  # nothing was rounded
        leaning = _leaning(func, own, exact, found)
        allowed = least(func, exact, unit)
        decides = torch.Tag.pointwise in func.tags
        quick = math.nan if allowed is None else _quickly(own, exact, allowed, found, decides)
        if quick <= 1 and abs(leaning) <= 1:
            return quick
        allowed = bounds(func, plain_args, plain_kwargs, exact, unit, found[0].device.type)
        shapes = _shapes((plain_args, plain_kwargs))
        first, largest = True, 0.0
        for number, (made, expected, bound) in enumerate(zip(found, exact, allowed, strict=True)):
            if not made.numel() or not (is_float(made) or decides):
                continue  # where a maximum lies is decided by ties
            if number in UNDECIDED.get(name_of(func), ()):
                continue
            far = furthest(made, expected, bound)
            role = _role(func, number, args)
            if far.ratio <= 1 < abs(leaning):
                way = "towards" if leaning > 0 else "away from"
                far, role = replace(far, ratio=abs(leaning)), f"{role}, rounded {way} zero"
            largest = largest if far.ratio <= largest else far.ratio
            if far.ratio <= 1:
                continue
            call = replace(
                far, kernel=kernel, role=role, shapes=shapes,
                dtype=dtype_name(made.dtype), device=made.device.type,
                during=self.during,
            )  # fmt: skip
            if kernel not in self.captured and first:
                self._first_number, first = number, False
            self._note(call)
        return largest

    def _note(self, call: JudgedCall) -> None:
        self.count_beyond += 1
        self._noted = self._noted or call
        if len(self.beyond) < KEPT:
            self.beyond.append(call)

    def _confirmed(
        self, func: Any, exact: Results, args: list[Any], kwargs: dict[str, Any]
    ) -> Results:
        """What torch makes in float64, or if NumPy makes something else of the whole, that.

        Of each kernel that NumPy can make, the first calls are compared, and all if one differs.
        """
        name = name_of(func)
        due = self.confirmed[name] < CONFIRMED or name in self._disowned
        other = by_numpy(name, args, kwargs) if due else None
        if other is None:
            return exact
        whole, *others = exact
        rows = slice(len(other)) if other.dim() and whole.dim() else ...
        if whole.dtype != torch.float64 or whole[rows].shape != other.shape:
            return exact
        self.confirmed[name] += 1
        unit = torch.finfo(torch.float64).eps
        far = furthest(whole[rows], other, UNITS * unit / 2 * other.abs())
        if not far.ratio <= 1:
            bound = bounds(func, args, kwargs, exact, unit)[0]
            far = furthest(whole[rows], other, torch.as_tensor(bound).expand_as(whole)[rows])
        if far.ratio <= 1:
            return exact
        if name not in self._disowned:
            self._disowned.add(name)
            self._keep_worst(func._schema.name, far.ratio)
            call = replace(
                far, kernel=func._schema.name, role=AGAINST_NUMPY, shapes=_shapes((args, kwargs)),
                dtype="float64", device="cpu", during=self.during,
            )  # fmt: skip
            self._note(call)
        return [other, *others] if other.shape == whole.shape else exact


def _shapes(given: Any) -> tuple[tuple[int, ...], ...]:
    """Those of the first tensors that a call was given."""
    return tuple(tuple(t.shape) for t in tree_flatten(given)[0] if isinstance(t, Tensor))[:3]


def _only_records(args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Whether a call computes no numbers: its tensors have none, or it is traced into a graph."""
    if torch._C._get_tracing_state() is not None:
        return True
    leaves = tree_flatten((args, given))[0]
    return any(getattr(leaf, "device", leaf) == torch.device("meta") for leaf in leaves)


NARROW, MANY, LEANS = 1e-4, 500, 0.35
"""Units of bfloat16 and float16, how many results show it, and half units: truncation has 0.7."""

TO_NEAREST = ROUNDED_ONCE | {"convolution"}
"""Kernels that add up in float32, so that only the result is rounded."""

_sound: dict[Hashable, float] = {}
"""How far off the calls were that are within their bounds, by what they were given and gave.

Variants of a ladder make the same calls, which are judged once in a process.
"""


_looked_at: Counter[Hashable] = Counter()
_undeclared: dict[Hashable, str] = {}
"""What was compared with declarations in this process, by kernel and dtype, and what was wrong."""


def _fingerprint(func: Any, parts: Any) -> Hashable:
    """What identifies a call and all that it was given and gave; ``None`` off the CPU."""
    seen: list[Hashable] = [func]
    for leaf in tree_flatten(parts)[0]:
        if not isinstance(leaf, Tensor):
            seen.append(repr(leaf))
            continue
        if leaf.layout != torch.strided or leaf.device.type != "cpu" or leaf.is_complex():
            return None
        order = memory_order(leaf)  # so that it need not be copied
        # A single number may have any stride, and then has no bytes to view.
        flat = leaf.detach().permute(order).contiguous().as_strided((leaf.numel(),), (1,))
        content = crc32(flat.view(torch.uint8).numpy().data)
        seen.append((leaf.dtype, tuple(leaf.shape), tuple(order), content))
    return tuple(seen)


def _quickly(
    own: list[Tensor],
    exact: list[Tensor],
    least: list[Tensor | float],
    found: list[Tensor],
    decides: bool,
) -> float:
    """The largest ratio of an error to the least bound, or NaN if a value is not finite.

    Or if a call that ``decides`` something of each element decides otherwise. ``own`` are the
    results that were ``found``, in float64 on the CPU.
    """
    ratios = [0.0]
    for wide, one, bound, made in zip(own, exact, least, found, strict=True):
        if not is_float(made):
            ratios.append(math.nan if decides and not torch.equal(wide, one) else 0.0)
        elif made.numel():
            error = wide.sub(one).abs_()
            ratios.append(float(error.div_(bound + torch.finfo(made.dtype).tiny).max()))
    return math.nan if any(math.isnan(ratio) for ratio in ratios) else max(ratios)


def _leaning(func: Any, own: list[Tensor], exact: list[Tensor], found: list[Tensor]) -> float:
    """How far the results of a narrow product lean towards zero, as a share of what may be.

    What is rounded to the nearest number leans to neither side; less than 0 is away from zero. Few
    results show nothing.
    """
    unit = torch.finfo(found[0].dtype).eps if is_float(found[0]) else 0.0
    if unit < NARROW or name_of(func) not in TO_NEAREST or found[0].numel() < MANY:
        return 0.0
    short = (exact[0] - own[0]) * 2 / (unit * exact[0])
    return float(short[short.isfinite()].mean()) / LEANS


def furthest(found: Tensor, expected: Tensor, bound: Tensor | float) -> JudgedCall:
    """The element that is furthest beyond its bound, as a call that has no name yet.

    What is not finite where float64 is finite, and not out of the range of the dtype either, is
    infinitely far; where both are the same infinity or NaN, there is no error.
    """
    own = dense(found.detach().to("cpu", torch.float64))
    expected = expected.to(torch.float64)
    error = own.sub(expected).abs_()
    if is_float(found):
        limits = torch.finfo(found.dtype)
        # What is smaller than the smallest normal number may be rounded to 0.
        allowed = torch.as_tensor(bound, dtype=torch.float64) + limits.tiny
        largest = limits.max
    else:
        allowed, largest = torch.as_tensor(0.0, dtype=torch.float64), math.inf
    far = error / allowed
    if not bool(far.isfinite().all()):
        overflown = own.isinf() & (expected.abs() >= largest)
        same = (own == expected) | (own.isnan() & expected.isnan()) | overflown
        far = torch.where(same, 0.0, far.nan_to_num(nan=torch.inf))
    at = int(far.argmax())
    scale = oracle_scale(expected)
    worst = float(error.flatten()[at])
    return JudgedCall(
        "", "", (), "", "", worst / scale if scale else worst, float(far.flatten()[at]),
        float(own.flatten()[at]), float(expected.flatten()[at]),
    )  # fmt: skip


def _role(func: Any, number: int, args: Sequence[Any]) -> str:
    """What one result of a call is."""
    into = [name for _, name in written(func)]
    if number < len(into):
        return "updated in place"
    if name_of(func) == "convolution_backward":
        return [each for each, wanted in zip(GRADIENTS, args[10], strict=True) if wanted][number]
    if name_of(func).endswith("backward"):
        return "gradient"
    return "output" if number == 0 else f"output {number + 1}"


# --- the same inputs in float64 ------------------------------------------------------------------


@dataclass(frozen=True)
class Widened:
    """A floating-point tensor in float64 on the CPU, and the dtype that it came in."""

    value: Tensor
    dtype: torch.dtype


def _widened(argument: Any) -> Any:
    return tree_map(_wide, argument)


def _wide(value: Any) -> Any:
    real = isinstance(value, Tensor) and value.is_floating_point()
    return Widened(in_float64(value), value.dtype) if real else in_float64(value)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Widened) else value


def _rounded(value: Any, dtype: torch.dtype) -> Any:
    """A number as a kernel gets it that compares in ``dtype``."""
    return float(torch.tensor(value, dtype=dtype)) if isinstance(value, float) else value
