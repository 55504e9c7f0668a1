"""Checks the fields of a contract's object against the contract's own annotations."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

_CONTRACT = ("refimpl.contract", "refimpl.data")

_STAND_FOR: dict[str, Any] = {
    "Arrays": Mapping[str, Any],
    "Loss": Callable[..., Any],
    "Metric": Callable[..., Any],
    "NDArray": Iterable,
    "Start": Callable[..., Any],
    "Steps": Any,
    "Problem": Any,
    "Tensor": Any,
    "Tree": Any,
    "nn": SimpleNamespace(Module=Any),
    "torch": SimpleNamespace(optim=SimpleNamespace(Optimizer=Any)),
}
"""Stand-ins for what the contract imports for type checkers only, checked as far as possible
without torch."""


class WrongField(NamedTuple):
    """A field that is not what the contract says; ``path`` leads to it."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path} must be {self.expected}, found {self.found}"


def wrong_fields(contracted: Any, path: str = "") -> Iterator[WrongField]:
    """Each field, at any depth, whose value is not of the type that the contract gives it."""
    kind: Any = type(contracted)  # Any: mypy considers no class hashable, as the cache requires
    for name, hint in _hints(kind).items():
        dotted = f"{path}.{name}" if path else name
        yield from _wrong(getattr(contracted, name), hint, dotted)


def _wrong(value: Any, hint: Any, path: str) -> Iterator[WrongField]:
    kind: Any = type(value)
    if not _fits(value, hint):
        yield WrongField(path, _said(hint), _found(value))
    elif hint is not Any and _hints(kind):
        yield from wrong_fields(value, path)
    else:
        for element, part, key in _parts(value, hint):
            yield from _wrong(element, part, f"{path}[{key}]")


def _parts(value: object, hint: Any) -> Iterator[tuple[object, Any, str]]:
    """The elements of a tuple or mapping, the type each must have, and what to call it."""
    if _is_union(hint):
        hint = next(option for option in get_args(hint) if _fits(value, option))
    options = get_args(hint)
    if isinstance(value, tuple) and options:
        each = options[:1] * len(value) if options[-1] is Ellipsis else options
        for index, (element, option) in enumerate(zip(value, each, strict=True)):
            name = getattr(element, "name", None)
            yield element, option, repr(name) if isinstance(name, str) else str(index)
    elif isinstance(value, Mapping) and options:
        for key, element in value.items():
            yield key, options[0], f"key {key!r}"
            yield element, options[1], repr(key)


def _fits(value: object, hint: Any) -> bool:
    """Whether the value itself is of this type, regardless of its elements."""
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        number = Integral if hint is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    if _is_union(hint):
        return any(_fits(value, option) for option in get_args(hint))
    return _fits_generic(value, hint, get_origin(hint), get_args(hint))


def _fits_generic(value: object, hint: Any, origin: Any, options: tuple[Any, ...]) -> bool:
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in options)
    if origin is Callable:
        return callable(value)
    if origin is type:
        return isinstance(value, type) and issubclass(value, options[0])
    if origin is tuple and options[-1] is not Ellipsis:
        return isinstance(value, tuple) and len(value) == len(options)
    return isinstance(value, origin or hint)


def _said(hint: Any) -> str:
    """The type in words."""
    origin, options = get_origin(hint), get_args(hint)
    if hint is None or hint is type(None):
        return "None"
    if _is_union(hint):
        return " or ".join(_said(option) for option in options)
    if origin is Literal:
        return " or ".join(repr(option) for option in options)
    if origin is Callable:
        return "callable"
    if origin is type:
        return f"a subclass of {_said(options[0])}"
    if origin is tuple:
        if options[-1] is Ellipsis:
            return f"a tuple of {_said(options[0])}"
        return f"a tuple of {len(options)} {_said(options[0])}"
    if origin is Mapping:
        return f"a mapping of {_said(options[0])} to {_said(options[1])}"
    return str(getattr(hint, "__name__", "anything"))


def _found(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, str | bool | Real):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    """The contract's types for the fields of ``cls``; empty if it is no class of the contract."""
    ours = next((c for c in cls.__mro__ if c.__module__ in _CONTRACT and is_dataclass(c)), None)
    if ours is None:
        return {}
    hints = get_type_hints(ours, localns=_STAND_FOR)
    return {field.name: hints[field.name] for field in fields(ours)}
