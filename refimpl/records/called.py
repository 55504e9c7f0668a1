"""Which functions a value's own code calls, and whether the value depends on what they give."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from refimpl.records.of_values import Claim, name_of, tried, written_in
from refimpl.whereabouts import unwrapped

REFLECTED = ("radd", "rsub", "rmul", "rmatmul", "rtruediv", "rpow", "rfloordiv", "rmod")

LONGER = 2
"""A loop that makes so many times the calls it made before may never end, and is stopped."""

LARGE = 10_000_000
"""So are tensors of so many numbers, which a loop may go on joining."""


@dataclass
class Called:
    """What was called: everything by its short name, and which of it torch showed."""

    names: set[str]
    of_torch: set[str]


def called(claim: Claim) -> Called:
    """The functions that the code of a value calls by itself, by their short names.

    ``torch.Tensor.masked_fill`` is ``masked_fill``, ``a @ b`` is ``matmul``, ``a[0]`` is
    ``getitem``, ``a.T`` is ``T``, and a class is its name.
    """
    module = unwrapped(tried(claim)).__module__
    found = Called(set(), set())

    def noted(function: Callable[..., Any]) -> bool:
        if written_in(module, sys._getframe(2)):
            found.of_torch.add(short(name_of(function)))
        return False

    with _profiled(module, found.names), _Changing(noted):
        _ended(claim)
    found.names |= found.of_torch
    return found


def depends(claim: Claim, name: str) -> bool:
    """Whether the value becomes another, or fails, if what this function gives is changed.

    What gives no numbers cannot be changed, and counts as if the value depended on it.
    """
    module = unwrapped(tried(claim)).__module__

    def chosen(function: Callable[..., Any]) -> bool:
        return short(name_of(function)) == name and written_in(module, sys._getframe(2))

    unchanged = _Changing(lambda function: False)
    with unchanged:
        before = _ended(claim)
    changed = False
    for other in (_other_numbers, _another_form):
        changing = _Changing(chosen, other, most=LONGER * unchanged.calls)
        with changing:
            after = _ended(claim)
        changed |= changing.times > 0
        if changing.times and not _same(before, after):
            return True
    return not changed


def short(name: str) -> str:
    """The last part of a name, as one would say it."""
    parts = [part for part in name.split(".") if part not in ("__get__", "__set__")]
    last = parts[-1]
    plain = last[2:-2] if last.startswith("__") and last.endswith("__") else last
    return plain[1:] if plain in REFLECTED else plain


def _ended(claim: Claim) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return tried(claim)()
    except Exception as error:
        return type(error).__name__, str(error)


class _Changing(TorchFunctionMode):
    """Gives back something else than the calls that ``chosen`` chooses."""

    def __init__(
        self,
        chosen: Callable[[Callable[..., Any]], bool],
        other: Callable[[Any], Any] = lambda made: made,
        most: float = math.inf,
    ) -> None:
        super().__init__()
        self.chosen, self.other, self.most = chosen, other, most
        self.times = self.calls = 0

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make the call."""
        made = function(*args, **(kwargs or {}))
        self.calls += 1
        large = self.times > 0 and isinstance(made, Tensor) and made.numel() > LARGE
        if large or self.calls > self.most:
            raise RuntimeError("it does not end")
        if not self.chosen(function):
            return made
        other = self.other(made)
        self.times += other is not made
        return other


def _other_numbers(made: Any) -> Any:
    """Other numbers of the same shape; what has no numbers is given back as it is."""
    if isinstance(made, Tensor):
        if made.dtype == torch.bool:
            return ~made
        with torch.no_grad():
            changed = made.detach().clone() + 1
        return changed.requires_grad_(made.requires_grad) if _floats(changed) else changed
    if isinstance(made, bool):
        return not made
    if isinstance(made, (int, float)):
        return made + 1
    if isinstance(made, (tuple, list)):
        parts = [_other_numbers(own) for own in made]
        same = all(own is was for own, was in zip(parts, made, strict=True))
        return made if same else _again(made, parts)
    return made


def _another_form(made: Any) -> Any:
    """The same numbers in another shape, order of memory and type."""
    if isinstance(made, Tensor):
        other = torch.float64 if made.dtype != torch.float64 else torch.float32
        with torch.no_grad():
            return made.detach().to(other)[None].transpose(0, -1)
    return made


def _again(made: Any, parts: list[Any]) -> Any:
    """A tuple or list such as this one, of other parts."""
    return made._make(parts) if hasattr(made, "_make") else tuple(parts)


def _floats(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and _equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    try:
        return bool(one == other or (one != one and other != other))
    except (RuntimeError, ValueError):  # of a tensor with something else
        return False


def _equal(one: Tensor, other: Tensor) -> bool:
    one, other = one.detach(), other.detach()
    return bool(torch.allclose(one, other, rtol=0, atol=0, equal_nan=_floats(one)))


@contextmanager
def _profiled(module: str, names: set[str]) -> Iterator[None]:
    """Notes every function, built-in or not, that code of the module calls."""

    def event(frame: FrameType, kind: str, given: Any) -> None:
        if kind == "call" and frame.f_globals.get("__name__") == module:
            names.update(name for name in frame.f_code.co_names if name[:1].isupper())
        if kind == "c_call" and frame.f_globals.get("__name__") == module:
            names.add(short(str(getattr(given, "__name__", ""))))
        caller = frame.f_back
        if kind == "call" and caller is not None and caller.f_globals.get("__name__") == module:
            own = frame.f_locals.get("self")
            name = frame.f_code.co_name
            made = name in ("__init__", "_wrapped_call_impl", "__call__")
            names.add(type(own).__name__ if made and own is not None else short(name))

    def layer(own: nn.Module, given: Any) -> None:
        names.add(type(own).__name__)

    before, hook = sys.getprofile(), nn.modules.module.register_module_forward_pre_hook(layer)
    sys.setprofile(event)
    try:
        yield
    finally:
        sys.setprofile(before)
        hook.remove()
