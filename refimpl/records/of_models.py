"""What a variant's model is made of, as a record: each layer's constructor arguments, and calls."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

from torch import Tensor, nn

from refimpl.calls import EachCall
from refimpl.contract import Variant
from refimpl.data import Tier
from refimpl.training.loop import steps_of
from refimpl.training.problem import pose

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

WITHOUT_A_LAYER = (
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout",
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus",
    "sigmoid", "logsigmoid", "tanh", "hardtanh", "softmax", "log_softmax", "clamp",
    "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "nll_loss",
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss",
)  # fmt: skip
"""Functions whose choice no shape and no parameter shows."""

TELLING = (
    "p", "reduction", "label_smoothing", "ignore_index", "negative_slope", "approximate",
    "min", "max",
)  # fmt: skip
"""Arguments of such a function that are noted with it."""

FEW_ROWS = 8
"""An update of so many rows makes the same calls."""

SIMPLE = (bool, int, float, str, type(None))


def record(variant: Variant, tier: Tier) -> dict[str, Any]:
    """The layers of the module that the variant trains, and what its first update calls by name.

    Also those of the module that ``build`` makes, where they are others, and the constants that the
    plugin's code reads.
    """
    module, calls = _calls(variant, tier)
    found: dict[str, Any] = {}
    if module is not None:
        found["layers"] = layers(module)
    if variant.build is not None and (built := layers(variant.build())) != found.get("layers"):
        found["layers that build makes"] = built
    if calls:
        found["calls"] = sorted(calls)
    if own := constants(variant):
        found["constants"] = own
    return found


def layers(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Each layer by its path: its kind, and the arguments that it was constructed with.

    Modules of the plugin's own are there if they keep arguments of their constructor.
    """
    found = {}
    for path, layer in module.named_modules():
        given = dict(arguments(layer))
        of_torch = type(layer).__module__.startswith("torch.")
        if isinstance(layer, CONTAINERS) or not (of_torch or given):
            continue
        kind = {"kind": type(layer).__name__} if of_torch else {}
        found[path or "the module itself"] = {**kind, **given}
    return found


def arguments(layer: nn.Module) -> Iterator[tuple[str, Any]]:
    """The constructor arguments that a layer keeps, as it keeps them now."""
    for name in _parameters_of(type(layer)):
        value = getattr(layer, name, _ABSENT)
        if name == "bias" and not isinstance(value, bool):
            value = value is not None and value is not _ABSENT
        if isinstance(value, (tuple, list)) and all(isinstance(own, SIMPLE) for own in value):
            yield name, list(value)
        elif isinstance(value, SIMPLE):
            yield name, value


def described(layer: nn.Module) -> str:
    """The layer as text, with the arguments of its constructor that are not the default."""
    takes = _parameters_of(type(layer))
    left_out = ["bias"] if "affine" in takes else []  # only newer versions of torch have it
    given = ", ".join(
        f"{name}={value}"
        for name, value in arguments(layer)
        if value != takes[name].default and name not in left_out
    )
    return f"{type(layer).__name__}({given})"


@contextmanager
def made_by(module: str) -> Iterator[list[nn.Module]]:
    """The layers of torch that code of this module makes inside the block, in their order."""
    made: list[nn.Module] = []
    begun = nn.Module.__init__

    def begins(own: nn.Module, *args: Any, **kwargs: Any) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__", "").startswith("torch.nn."):
            frame = frame.f_back
        of_torch = type(own).__module__.startswith("torch.nn.")
        if of_torch and frame is not None and frame.f_globals.get("__name__") == module:
            made.append(own)
        begun(own, *args, **kwargs)

    nn.Module.__init__ = begins  # type: ignore[assignment, method-assign]
    try:
        yield made
    finally:
        nn.Module.__init__ = begun  # type: ignore[method-assign]


_ABSENT = object()


def _parameters_of(kind: type) -> dict[str, inspect.Parameter]:
    """By name, what the constructors of a class and of those it derives from take."""
    found: dict[str, inspect.Parameter] = {}
    for own in kind.__mro__:
        if own is nn.Module:
            break
        if "__init__" not in vars(own):
            continue
        for name, parameter in inspect.signature(vars(own)["__init__"]).parameters.items():
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if named and name not in ("self", "device", "dtype") and name[0] != "_":
                found.setdefault(name, parameter)
    return found


def constants(variant: Variant) -> dict[str, Any]:
    """The named numbers of the plugin's module that its loop, module, loss and metrics read."""
    found: dict[str, Any] = {}
    used = (variant.steps, variant.build, variant.loss, variant.prepare, variant.collate)
    left: list[Any] = [*used, *(variant.metrics or {}).values()]
    seen: set[int] = set()
    while left:
        own = left.pop()
        if id(own) in seen:
            continue
        seen.add(id(own))
        left.append(getattr(own, "__wrapped__", own))
        own = getattr(own, "func", own)  # of a partial
        if isinstance(own, type):
            left.extend(vars(own).values())
        code = getattr(own, "__code__", None)
        for name in _names_in(code) if code is not None else ():
            value = own.__globals__.get(name)
            if name.isupper() and isinstance(value, (bool, int, float)):
                found[name] = value
            elif callable(value) and getattr(value, "__module__", None) == own.__module__:
                left.append(value)
    return dict(sorted(found.items()))


def _names_in(code: CodeType) -> set[str]:
    """The names that a function reads, with those of the functions inside it."""
    inner = (own for own in code.co_consts if isinstance(own, CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


def comparable(found: Any, recorded: Any) -> Any:
    """What was found, without what only one of two versions of torch has as an argument.

    What is recorded of a constructor that no longer takes it cannot be found, and what it takes
    since then was not recorded; with its default, it says nothing.
    """
    if not isinstance(found, dict) or not isinstance(recorded, dict):
        return found
    if "kind" not in found or found["kind"] != recorded.get("kind"):
        return {key: comparable(own, recorded.get(key)) for key, own in found.items()}
    takes = _parameters_of(_class_of(found["kind"]))
    lost = {name: own for name, own in recorded.items() if name != "kind" and name not in takes}
    new = [n for n in found if n in takes and n not in recorded and found[n] == takes[n].default]
    return {**{name: own for name, own in found.items() if name not in new}, **lost}


def _class_of(kind: str) -> type:
    return getattr(nn, kind, nn.Module)


def _calls(variant: Variant, tier: Tier) -> tuple[nn.Module | None, set[str]]:
    """The module of a first update, and which of the functions above it calls, and how."""
    seen: set[str] = set()

    def noted(
        function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        name = str(getattr(function, "__name__", "")).rstrip("_")
        if name in WITHOUT_A_LAYER and args and isinstance(args[0], Tensor):
            seen.add(f"{name}({_told(function, args, dict(kwargs))})")

    with EachCall(noted):
        step = next(steps_of(variant, pose(variant, tier).shortened(FEW_ROWS, 1), 1), None)
    return (step.module if step is not None else None), seen


def _told(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):  # built in
        plain = [f"{own}" for own in args[1:] if isinstance(own, SIMPLE)]
        return ", ".join(
            [*plain, *(f"{name}={kwargs[name]}" for name in TELLING if name in kwargs)]
        )
    else:
        bound.apply_defaults()
        given = dict(bound.arguments)
    return ", ".join(f"{name}={given[name]}" for name in TELLING if name in given)
