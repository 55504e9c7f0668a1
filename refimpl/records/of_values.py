"""What values, failures and errata are computed by: the calls of torch that their code makes.

A value may be right and test nothing: a result that is compared with itself, a minimum that was the
start. So it is recorded which functions the plugin's code calls, and with what: shapes, sizes of
the numbers, constants. Calls that torch makes inside are left out; they differ between versions.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import zip_longest
from types import CodeType, FrameType, FunctionType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import resolve_name
from torch.utils.data import DataLoader

from refimpl.calls import EachCall
from refimpl.contract import Erratum, Exact, Example, Failure
from refimpl.records import of_models
from refimpl.requirements import missing
from refimpl.whereabouts import unwrapped

FIRST, LAST = 40, 10
"""How many calls are kept at both ends; those between are counted, and their names digested."""

SEEDS = (0, 1)
"""A value is recorded with each: what depends on a seed that the plugin leaves open is not kept."""

TOLERANCE = 1e-3
"""How far sizes of numbers may be apart: other machines round otherwise before the call."""

STEADY = 1e-5
"""A number is kept if other kernels change it less: the rounding of another torch may do more."""

WRAPPERS = ("torch.overrides", "torch._tensor", "torch.functional", "torch.nn.functional")
"""Modules in which a public function of torch itself is written in Python."""

OF_THE_FORM = frozenset(
    f"torch.Tensor.{name}"
    for name in (
        "shape.__get__", "dtype.__get__", "device.__get__", "layout.__get__", "ndim.__get__",
        "is_leaf.__get__", "requires_grad.__get__", "grad_fn.__get__", "size", "dim", "numel",
        "stride", "is_contiguous", "data_ptr", "element_size", "type",
    )
)  # fmt: skip
"""Calls that do not look at numbers, which may be what was in memory before."""

FROM_NUMPY, DATA_LOADER = torch.from_numpy, DataLoader.__init__
INDEXED = torch.Tensor.__getitem__

Call = list[Any]
Claim: TypeAlias = "Exact | Failure | Erratum"


@dataclass
class Calls:
    """The calls that one module's own code makes while it is watched."""

    module: str
    recorded: int = 0
    """How many calls are recorded; of those between its first and last, only names are kept."""
    seen: list[Call] = field(default_factory=list)
    layers: list[nn.Module] = field(default_factory=list)

    def noted(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """A call that torch shows to a mode."""
        if written_in(self.module, sys._getframe(2)):  # past the mode
            self.note(name_of(function), (*args, *kwargs.values()))

    def from_numpy(self, array: NDArray[Any]) -> Tensor:
        """``torch.from_numpy``, which torch shows to no mode."""
        if written_in(self.module, sys._getframe(1)):
            self.note("torch.from_numpy", (array,))
        return FROM_NUMPY(array)

    def indexed(self, tensor: Tensor, index: Any) -> Tensor:
        """``tensor[index]``, which torch before 2.4 shows to no mode."""
        if sys._getframe(2).f_globals.get("__name__") == self.module:  # past the function put there
            self.note("torch.Tensor.__getitem__", (tensor, index))
        found: Tensor = INDEXED(tensor, index)
        return found

    def note(self, name: str, given: tuple[Any, ...]) -> None:
        """Keep a call and what it was given."""
        if FIRST <= len(self.seen) < self.recorded - LAST:
            self.seen.append([name])
            return
        parts = [said for each in given for said in said_of(each)]
        sizes = name not in OF_THE_FORM
        self.seen.append(
            [name, *(p for p in parts if sizes or not (p is None or isinstance(p, float)))]
        )

    def loads(self, loader: DataLoader[Any], *args: Any, **kwargs: Any) -> None:
        """The constructor of a loader, whose numbers and switches are no call of torch."""
        if written_in(self.module, sys._getframe(2)):  # past the constructor that stands in
            set_ = sorted((k, own) for k, own in kwargs.items() if isinstance(own, (int, float)))
            self.note("DataLoader", tuple(f"{name}={own}" for name, own in set_))
        DATA_LOADER(loader, *args, **kwargs)

    def called(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A hook for every module of torch that the code calls."""
        if type(module).__module__.startswith("torch.nn.") and written_in(
            self.module, sys._getframe(1)
        ):
            self.note(type(module).__name__, args)


def written_in(module: str, frame: FrameType | None) -> bool:
    """Whether a call was written in this module, and not somewhere in torch."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == module:
            return True
        in_torch = name in WRAPPERS or name == "torch.nn.modules.module"
        if not in_torch and frame.f_code not in _put_in_place():
            return False
        frame = frame.f_back
    return False


@cache
def name_of(func: Callable[..., Any]) -> str:
    """What torch calls a function, also if something else was put in its place."""
    try:
        name = resolve_name(func)
    except Exception:  # a function that torch does not list
        name = None
    own = getattr(func, "__name__", type(func).__name__)
    if name is None and getattr(func, "__module__", None) == "torch" and hasattr(torch, own):
        name = f"torch.{own}" if getattr(torch, own) is not func else None
    # Of a method, torch shows what stands in its place.
    return _put_in_place().get(getattr(func, "__code__", None), str(name or own))


@cache
def _put_in_place() -> Mapping[CodeType | None, str]:
    """Functions that stood where torch's own do when this was first called, and what those are."""
    places: dict[Any, str] = {
        torch: "torch", Tensor: "torch.Tensor",
        nn.Module: "torch.nn.Module", nn.functional: "torch.nn.functional",
    }  # fmt: skip
    return {
        value.__code__: f"{name}.{key}"
        for place, name in places.items()
        for key, value in vars(place).items()
        if isinstance(value, FunctionType) and not value.__module__.startswith("torch")
    }


def said_of(value: Any) -> Iterator[Any]:
    """What is kept of an argument: of numbers their shape and size, of a constant its text."""
    if torch._C._get_tracing_state() is not None:  # shapes are tensors then
        return
    if isinstance(value, (Tensor, np.ndarray)):
        yield list(value.shape)
        yield _size(value)
    elif isinstance(value, (list, tuple)):
        for each in value[:LAST]:
            yield from said_of(each)
    elif isinstance(value, (bool, int, str, torch.dtype, slice, type(Ellipsis))):
        yield str(value)
    elif isinstance(value, float):
        yield value


def _size(value: Any) -> float | None:
    """A number that other numbers do not have: the mean, with weights that see their order."""
    if isinstance(value, Tensor):
        if value.is_complex() or value.is_sparse or value.device.type == "meta":
            return None
        value = value.detach().cpu().to(torch.float64).numpy()
    if value.dtype.kind not in "fiub" or not value.size:
        return None
    flat = np.abs(value, dtype=np.float64).reshape(-1)
    mean = float(flat @ _weights(flat.size)) / flat.size
    return float(f"{mean:.6g}") if np.isfinite(mean) else None


@lru_cache(maxsize=16)
def _weights(count: int) -> NDArray[np.float64]:
    return 1 + np.arange(count) / count


@cache
def shows_indexing() -> bool:
    """Whether this torch shows ``tensor[index]`` to a mode."""
    seen: list[Any] = []
    tensor = torch.zeros(1)
    with EachCall(lambda *call: seen.append(call)):
        _ = tensor[0]
    return bool(seen)


@contextmanager
def _watching(module: str, recorded: int) -> Iterator[Calls]:
    calls = Calls(module, recorded)
    hook = nn.modules.module.register_module_forward_pre_hook(calls.called)
    torch.from_numpy = calls.from_numpy  # type: ignore[assignment]
    DataLoader.__init__ = lambda *args, **kwargs: calls.loads(*args, **kwargs)  # type: ignore
    patched = not shows_indexing()
    if patched:
        torch.Tensor.__getitem__ = lambda *args: calls.indexed(*args)  # type: ignore
    try:
        with EachCall(calls.noted), of_models.made_by(module) as calls.layers:
            yield calls
    finally:
        torch.from_numpy = FROM_NUMPY
        DataLoader.__init__ = DATA_LOADER  # type: ignore[method-assign]
        if patched:
            torch.Tensor.__getitem__ = INDEXED  # type: ignore[method-assign]
        hook.remove()


@contextmanager
def _other_kernels() -> Iterator[None]:
    """Kernels that round otherwise, and other masks of dropout: versions draw them differently."""
    hook = nn.modules.module.register_module_forward_hook(_another_mask)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        hook.remove()


def _another_mask(module: nn.Module, _: Any, output: Any) -> Any:
    drops = isinstance(module, nn.modules.dropout._DropoutNd) and module.training
    return output.flip(0) if drops and isinstance(output, Tensor) else output


# --- records -------------------------------------------------------------------------------------


def possible(example: Example) -> Iterator[tuple[str, Claim]]:
    """Each exact value, documented failure and erratum that can be tried here, by its key."""
    kinds: tuple[tuple[str, tuple[Claim, ...]], ...] = (
        ("{}", example.values), ("failure: {}", example.failures), ("erratum: {}", example.errata),
    )  # fmt: skip
    for key, claims in kinds:
        for claim in claims:
            if missing(claim.needs) is None:
                yield key.format(claim.name), claim


def record(example: Example) -> dict[str, Any]:
    """Of each value, failure and erratum that can be tried here, what it is computed by."""
    return {key: of_value(value, SEEDS, other_kernels=True) for key, value in possible(example)}


def of_value(
    value: Claim,
    seeds: Sequence[int] = SEEDS[:1],
    other_kernels: bool = False,
    fills_caches: bool = True,
    recorded: int = 0,
) -> dict[str, Any]:
    """How many calls it makes, the first and the last of them, and how it ends.

    What is not the same with all ``seeds``, or with other kernels, is left out. The first time, the
    plugin's own caches may be filled; then it is computed again, unless ``fills_caches`` is false.
    If as many calls are ``recorded``, those that are not kept are not looked at.
    """
    if fills_caches:
        _calls_of(value, seeds[0])
    (steady, ends, layers), *others = (_calls_of(value, seed, recorded) for seed in seeds)
    for calls, *_ in others:
        steady = [_steady(*pair) for pair in zip(steady, calls, strict=False)]
    if other_kernels:
        with _other_kernels():
            calls, *_ = _calls_of(value, seeds[0])
        steady = [_steady(*pair, STEADY) for pair in zip(steady, calls, strict=False)]
    names = "\n".join(call[0] for call in steady).encode()
    return {
        "ends": ends,
        "calls": len(steady),
        "names": hashlib.blake2b(names, digest_size=4).hexdigest(),
        "first": steady[:FIRST],
        "last": steady[FIRST:][-LAST:],
        **({"layers": layers} if layers else {}),
    }


def _calls_of(claim: Claim, seed: int, recorded: int = 0) -> tuple[list[Call], str, list[str]]:
    """Its calls, how it ends, and the first of the layers that it makes."""
    compute = tried(claim)
    module = unwrapped(compute).__module__
    with torch.random.fork_rng(devices=[]), _watching(module, recorded) as calls:
        torch.manual_seed(seed)
        try:
            compute()
        except Exception as error:
            return calls.seen, type(error).__name__, _layers(calls)
    return calls.seen, "value", _layers(calls)


def _layers(calls: Calls) -> list[str]:
    return [of_models.described(layer) for layer in calls.layers[:FIRST]]


def tried(claim: Claim) -> Callable[[], object]:
    """What is called to try it."""
    if isinstance(claim, Exact):
        return claim.compute
    return claim.attempt if isinstance(claim, Failure) else claim.holds


def _steady(call: Call, other: Call, tolerance: float = TOLERANCE) -> Call:
    """A call without what another seed, or another kernel, makes another."""
    if len(call) != len(other) or call[0] != other[0]:
        return call[:1]
    both = zip(call, other, strict=True)
    return [own if _same(own, its, tolerance) else None for own, its in both]


def _same(own: Any, other: Any, tolerance: float = TOLERANCE) -> bool:
    if isinstance(own, float) and isinstance(other, float):
        return abs(own - other) <= tolerance * max(abs(own), abs(other)) + 1e-6
    return bool(own == other)


def moved(value: Claim, recorded: Mapping[str, Any]) -> str:
    """What is computed otherwise than recorded, in words; "" if nothing is."""
    quickly = of_value(value, fills_caches=False, recorded=recorded["calls"])
    if not difference(quickly, recorded):
        return ""
    return difference(of_value(value), recorded)


def difference(found: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """What is computed otherwise than recorded, in words; "" if nothing is.

    Where the value ends in another way, it is of another version, and nothing is compared.
    """
    if found["ends"] != recorded["ends"]:
        return ""
    for part in ("first", "last"):
        for number, (own, was) in enumerate(zip(found[part], recorded[part], strict=False), 1):
            if _without_bars(own[0]) != _without_bars(was[0]):
                return f"its {_place(part, number)} call is {own[0]}, recorded {was[0]}"
            if not _alike(own, was):
                given = f"{own[0]} is given {_shown(own)}, recorded {_shown(was)}"
                return f"in its {_place(part, number)} call, {given}"
    if "layers" in recorded and found.get("layers", []) != recorded["layers"]:
        pairs = zip_longest(found.get("layers", []), recorded["layers"], fillvalue="nothing")
        now, was = next(pair for pair in pairs if pair[0] != pair[1])
        return f"it makes {now}, recorded {was}"
    if found["calls"] != recorded["calls"]:
        return f"it makes {found['calls']} calls of torch, recorded {recorded['calls']}"
    between = recorded["calls"] > FIRST + LAST and shows_indexing()
    if between and found["names"] != recorded["names"]:
        return "between its first and last calls it calls other functions than recorded"
    return ""


def _place(part: str, number: int) -> str:
    return f"{number}." if part == "first" else f"{number}. of the last"


def _without_bars(name: str) -> str:
    """``torch.Tensor.eq`` of ``torch.Tensor.__eq__``: some versions show ``==`` as the one."""
    folder, _, last = name.rpartition(".")
    return f"{folder}.{last[2:-2]}" if last.startswith("__") and last.endswith("__") else name


def _alike(own: Call, was: Call) -> bool:
    return len(own) == len(was) and all(
        a is None or b is None or _same(a, b) for a, b in zip(own[1:], was[1:], strict=True)
    )


def _shown(call: Call) -> str:
    return ", ".join(
        str(tuple(part)) if isinstance(part, list) else "…" if part is None else f"{part}"
        for part in call[1:]
    )
