"""Which functions a value's own code calls, and whether the value depends on what they give."""

from __future__ import annotations

import copy
import inspect
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from refimpl.contract import Exact
from refimpl.records.of_models import described, made_by
from refimpl.records.of_values import (
    DATA_LOADER,
    INDEXED,
    Claim,
    name_of,
    said_of,
    shows_indexing,
    tried,
    written_in,
)
from refimpl.records.stated import call_of, made_of, settings_of
from refimpl.training.witness import OWN_BUSINESS
from refimpl.whereabouts import unwrapped

Chooses = Callable[[Collection[str], Sequence[Any]], bool]
"""Of the names of a function and the arguments of a call, whether it is meant."""

LOAD = torch.load

DOUBLE_AND_SINGLE = torch.float64, torch.float32

REFLECTED = ("radd", "rsub", "rmul", "rmatmul", "rtruediv", "rpow", "rfloordiv", "rmod")

LONGER = 2
"""A loop that makes so many times the calls it made before may never end, and is stopped."""

LARGE = 10_000_000
"""So are tensors of so many numbers, which a loop may go on joining."""

DECIDING = frozenset(("equal", "allclose", "all", "any", "load"))
"""Functions that say yes or no of whole tensors, or give back what was saved."""

DECIDED = 20
"""So many of their calls are tried."""


@dataclass
class Called:
    """What was called: everything by its short name, and which of it torch showed.

    ``ended`` is the value, or the error that it ends with; what changes are compared with.
    """

    names: set[str]
    of_torch: set[str]
    layers: set[str] = field(default_factory=set)
    updates: Counter[str] = field(default_factory=Counter)
    given: set[str] = field(default_factory=set)
    """Of the stated calls with arguments, those that were made."""
    deciding: int = 0
    """How many comparisons of whole tensors it makes, or loads of what was saved."""
    ended: Any = None
    calls: int = 0
    handed: list[Any] = field(default_factory=list)
    """What the calls of a failure or an erratum were given."""

    def made(self, text: str) -> bool:
        """Whether it makes the layer, that many updates, or the call with the arguments stated.

        ``Conv2d(8, 8, 3, groups=8)`` is a layer, ``SGD(lr=0.01) * 500`` an optimizer's updates,
        ``view(..., 3, 4)`` a call.
        """
        what, _, times = text.partition(" * ")
        if times:
            return self.updates[_constants(made_of(what, torch.optim))] == int(times)
        return text in self.given if call_of(text) else described(made_of(text, nn)) in self.layers


def _constants(optimizer: torch.optim.Optimizer) -> str:
    group = optimizer.param_groups[0]
    kept = {name: value for name, value in group.items() if name not in OWN_BUSINESS}
    return f"{type(optimizer).__name__} {sorted(kept.items())}"


def called(claim: Claim, stated: Iterable[str] = ()) -> Called:
    """The functions that the code of a value calls by itself, by their short names.

    Of the stated calls with arguments (``view(..., 3, 4)``), those that it makes are noted, too.

    ``torch.Tensor.masked_fill`` is ``masked_fill``, ``a @ b`` is ``matmul``, ``a[0]`` is
    ``getitem``, ``a.T`` is ``T``, and a class is its name. Where two have one short name, a longer
    one tells them apart: ``torch.svd`` and ``linalg.svd``, ``torch.ge`` and ``Tensor.ge``.
    """
    module = unwrapped(tried(claim)).__module__
    found = Called(set(), set())
    wanted = {
        text: call
        for text in stated
        if "(" in text and " * " not in text and (call := call_of(text))
    }

    def stated_of(names: Collection[str], given: Sequence[Any]) -> None:
        if torch._C._get_tracing_state() is None:  # shapes are tensors then
            found.given |= {text for text, call in wanted.items() if call.is_made(names, given)}

    def noted(names: Collection[str], given: Sequence[Any]) -> bool:
        found.of_torch.update(names)
        found.deciding += not DECIDING.isdisjoint(names)
        stated_of(names, given)
        return False

    def stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        found.updates[_constants(optimizer)] += 1

    handle = register_optimizer_step_pre_hook(stepped)
    try:
        with (
            _profiled(module, found.names),
            _changing(module, noted, keeps=_keeps(claim)) as unchanged,
            _loaders(module, stated_of),
            made_by(module) as layers,
        ):
            found.ended = _ended(claim)
    finally:
        handle.remove()
    found.calls, found.handed = unchanged.calls, unchanged.given
    found.names |= found.of_torch
    found.layers = {described(own) for own in layers}
    return found


def _keeps(claim: Claim) -> bool:
    """Whether it is looked at what its calls are given: it may end the same whatever that is."""
    return not isinstance(claim, Exact)


def unmoved(claim: Claim, names: Sequence[str], unchanged: Called) -> list[str]:
    """Those of the functions whose results can be changed and leave the value the same.

    What gives no numbers cannot be changed, and counts as if the value depended on it. A failure or
    an erratum may end the same whatever is given: it depends on what other calls are given then.
    """
    module = unwrapped(tried(claim)).__module__
    most, keeps = LONGER * unchanged.calls, _keeps(claim)

    def same(name: str) -> bool:
        changed = False
        for other in (_other_numbers, _another_part, _another_form, _of_a_graph):
            chosen = partial(_is_named, name)
            with _changing(module, chosen, other, most, keeps) as changing:
                after = _ended(claim)
            changed |= changing.times > 0
            alike = _same(unchanged.ended, after) and changing.given == unchanged.handed
            if changing.times and not alike:
                return False
        return changed

    return [name for name in names if same(name)]


def idle_calls(claim: Claim, unchanged: Called) -> list[str]:
    """Of its comparisons and loads, those that can give something else and leave it the same.

    So it is with ``any`` for ``all``: only one of them would have to hold. At most the first
    ``DECIDED`` are tried, each by itself.
    """
    module = unwrapped(tried(claim)).__module__
    idle = []
    for number in range(1, min(unchanged.deciding, DECIDED) + 1):
        same = []
        for other in (_other_numbers, _another_part):
            chosen = _Deciding(number)
            with _changing(module, chosen, other, LONGER * unchanged.calls) as changing:
                after = _ended(claim)
            same += [_same(unchanged.ended, after)] if changing.times else []
        if same and all(same):
            idle.append(f"{chosen.name} ({number} of {unchanged.deciding})")
    return idle


@dataclass
class _Deciding:
    """Chooses the comparison or load of this number, from 1."""

    number: int
    seen: int = 0
    name: str = ""

    def __call__(self, names: Collection[str], _: Sequence[Any]) -> bool:
        found = DECIDING.intersection(names)
        self.seen += bool(found)
        chosen = bool(found) and self.seen == self.number
        if chosen:
            self.name = min(found)
        return chosen


def _is_named(name: str, names: Collection[str], _: Sequence[Any]) -> bool:
    return name in names


def short(name: str) -> str:
    """The last part of a name, as one would say it."""
    return _parts(name)[-1]


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split(".") if part not in ("__get__", "__set__")] or [""]
    last = parts[-1]
    plain = last[2:-2] if last.startswith("__") and last.endswith("__") else last
    return [*parts[:-1], plain[1:] if plain in REFLECTED else plain]


@cache
def _names(function: Callable[..., Any]) -> frozenset[str]:
    """Every name by which a claim may call it: svd, linalg.svd, torch.linalg.svd, linalg_svd."""
    parts = _parts(name_of(function))
    own = short(str(getattr(function, "__name__", "")))
    return frozenset([own, *(".".join(parts[n:]) for n in range(len(parts)))]) - {""}


def _ended(claim: Claim) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return tried(claim)()
    except Exception as error:
        return type(error).__name__, str(error)


class _Changing(TorchFunctionMode):
    """Gives back something else than the calls by the module that ``chosen`` chooses."""

    def __init__(
        self,
        module: str,
        chosen: Chooses,
        other: Callable[[Any], Any],
        most: float,
        keeps: bool,
    ) -> None:
        super().__init__()
        self.module, self.chosen, self.other = module, chosen, other
        self.most, self.keeps = most, keeps
        self.times = self.calls = 0
        self.process = os.getpid()
        self.given: list[Any] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make the call, as it is in a loader's workers."""
        if os.getpid() != self.process:
            return function(*args, **(kwargs or {}))
        written = written_in(self.module, _outside(sys._getframe(1)))
        given = [*args, *(kwargs or {}).values()]
        chosen = written and self.chosen(_names(function), given)
        if written and self.keeps:
            self.given.append([*said_of(given)])
        made = function(*args, **(kwargs or {}))
        self.calls += 1
        large = self.times > 0 and isinstance(made, Tensor) and made.numel() > LARGE
        if large or self.calls > self.most:
            raise RuntimeError("it does not end")
        if not chosen:
            return made
        in_place = short(name_of(function)).endswith("_")
        return self.changed(made, in_place)

    def layer(self, layer: nn.Module, args: tuple[Any, ...], made: Any) -> Any:
        """A hook behind every module: what a layer gives can be changed, too."""
        ours = type(layer).__module__.startswith("torch.nn.")
        written = ours and written_in(self.module, _outside(sys._getframe(1)))
        return self.changed(made) if written and self.chosen([type(layer).__name__], args) else made

    def changed(self, made: Any, in_place: bool = False) -> Any:
        """Something else; what was written in place is written there."""
        with torch._C.DisableTorchFunction():  # a layer's hook is run under the mode
            other = self.other(made)
        self.times += other is not made
        if in_place and isinstance(made, Tensor):
            if other.shape == made.shape:
                made.data.copy_(other.data)
            return made
        return other


def _outside(frame: FrameType | None) -> FrameType | None:
    """The frame that called something here."""
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    return frame


@contextmanager
def _changing(
    module: str,
    chosen: Chooses,
    other: Callable[[Any], Any] = lambda made: made,
    most: float = math.inf,
    keeps: bool = False,
) -> Iterator[_Changing]:
    mode = _Changing(module, chosen, other, most, keeps)

    def indexed(tensor: Tensor, index: Any) -> Any:
        """``tensor[index]``, which torch before 2.4 shows to no mode."""
        return mode.__torch_function__(INDEXED, (), (tensor, index))

    def loaded(*args: Any, **kwargs: Any) -> Any:
        """``torch.load``, which torch shows to no mode."""
        return mode.__torch_function__(LOAD, (), args, kwargs)

    patched = not shows_indexing()
    if patched:
        torch.Tensor.__getitem__ = indexed  # type: ignore
    torch.load = loaded
    hook = nn.modules.module.register_module_forward_hook(mode.layer)
    try:
        with mode:
            yield mode
    finally:
        hook.remove()
        torch.load = LOAD
        if patched:
            torch.Tensor.__getitem__ = INDEXED  # type: ignore[method-assign]


def _other_numbers(made: Any, by: int = 1) -> Any:
    """Other numbers of the same shape; what has no numbers is given back as it is."""
    if isinstance(made, Tensor):
        if made.dtype == torch.bool:
            return ~made
        with torch.no_grad():
            changed = made.detach().clone() + by
        return changed.requires_grad_(made.requires_grad) if _floats(changed) else changed
    if isinstance(made, bool):
        return not made
    if isinstance(made, (int, float)):
        return made + by
    if isinstance(made, (tuple, list)):
        parts = [_other_numbers(own, by + n) for n, own in enumerate(made)]
        same = all(own is was for own, was in zip(parts, made, strict=True))
        return made if same else _again(made, parts)
    if isinstance(made, dict):
        return {name: _other_numbers(own, by + n) for n, (name, own) in enumerate(made.items())}
    if isinstance(made, nn.Module):
        other = copy.deepcopy(made)
        for parameter in other.parameters():
            parameter.data = _other_numbers(parameter.data, by)
        return other
    return made


def _another_part(made: Any) -> Any:
    """One part more of a checkpoint of several, which a value may list."""
    several = isinstance(made, dict) and any(isinstance(own, dict) for own in made.values())
    return {**made, "another part": None} if several else made


def _another_form(made: Any) -> Any:
    """The same numbers in another shape, order of memory and type, a list as a tuple."""
    if isinstance(made, Tensor):
        one, two = (torch.complex128, torch.complex64) if made.is_complex() else DOUBLE_AND_SINGLE
        with torch.no_grad():
            return made.detach().to(two if made.dtype == one else one).unsqueeze(0).transpose(0, -1)
    if isinstance(made, bool):
        return int(made)
    if isinstance(made, (int, float)):
        return float(made) if isinstance(made, int) else complex(made)
    if isinstance(made, tuple):
        parts = [_another_form(own) for own in made]
        same = all(own is was for own, was in zip(parts, made, strict=True))
        return made if same else _again(made, parts)
    return tuple(made) if type(made) is list else made


def _of_a_graph(made: Any) -> Any:
    """The same numbers as the result of a computation that autograd knows."""
    if isinstance(made, Tensor) and _floats(made) and not made.requires_grad:
        with torch.enable_grad():
            return made.detach().requires_grad_() * 1
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
def _loaders(
    module: str, noted: Callable[[Collection[str], Sequence[Any]], None]
) -> Iterator[None]:
    """Shows every loader that code of the module constructs, with all its settings."""
    form = inspect.signature(DATA_LOADER)

    def constructed(*args: Any, **kwargs: Any) -> None:
        if written_in(module, _outside(sys._getframe(1))):
            given = form.bind(*args, **kwargs)
            given.apply_defaults()
            noted([DataLoader.__name__], settings_of(given.arguments))
        DATA_LOADER(*args, **kwargs)

    DataLoader.__init__ = constructed  # type: ignore[method-assign]
    try:
        yield
    finally:
        DataLoader.__init__ = DATA_LOADER  # type: ignore[method-assign]


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
            wrapped = [frame.f_locals.get(key) for key in frame.f_code.co_freevars]
            inner = (short(str(getattr(f, "__name__", ""))) for f in wrapped if callable(f))
            names.update(name.lstrip("_") for name in inner)  # max_pool2d is _max_pool2d inside

    def layer(own: nn.Module, given: Any) -> None:
        names.add(type(own).__name__)

    before, hook = sys.getprofile(), nn.modules.module.register_module_forward_pre_hook(layer)
    sys.setprofile(event)
    try:
        yield
    finally:
        sys.setprofile(before)
        hook.remove()
