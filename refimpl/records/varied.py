"""Whether an exact value depends on anything: a number in its code, or what a function gives.

One that stays the same whatever is changed tests nothing: a result that is compared with itself, an
answer that was the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refimpl.contract import Exact
from refimpl.records.called import called, short, unmoved

DEEP = 3
"""How far functions of the plugin that a value calls are followed."""

MANY = 30
"""So many numbers of a list are changed, one at a time."""

JUDGES = (
    "equal", "allclose", "isclose", "eq", "ne", "all", "any", "item", "tolist", "numpy", "detach",
    "bool", "array", "is_contiguous", "clone", "cpu", "to",
)  # fmt: skip
"""Functions that compare or hand over what others computed."""


def shows_something(value: Exact) -> bool:
    """Whether changing a number in its code, or what a function gives, changes or breaks it.

    Numbers are constants, those that the module has by name, and what a partial or a default gives.
    """
    if _depends_on_a_number(value):
        return True
    seen = called(value)
    names = [name for name in sorted(seen.of_torch) if short(name) not in JUDGES]
    return len(unmoved(value, names, seen)) < len(names)


def _depends_on_a_number(value: Exact) -> bool:
    before = _ended(value.compute)
    return any(
        not _same(before, _ended(other), value.digits) for other in _variations(value.compute)
    )


def _ended(compute: Callable[[], Any]) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return compute()
    except Exception as error:
        return type(error).__name__, str(error)


def _variations(given: Any, depth: int = DEEP) -> Iterator[Callable[..., Any]]:
    """The same function with one number changed, for each that it can be found to use."""
    if isinstance(given, partial):
        for place, own in enumerate(given.args):
            for other in _changed(own):
                args = (*given.args[:place], other, *given.args[place + 1 :])
                yield partial(given.func, *args, **given.keywords)
        for name, own in given.keywords.items():
            for other in _changed(own):
                yield partial(given.func, *given.args, **{**given.keywords, name: other})
        for func in _variations(given.func, depth):
            yield partial(func, *given.args, **given.keywords)
    if not isinstance(given, FunctionType):
        return
    for code in _codes(given.__code__):
        yield _with(given, code, given.__globals__)
    defaults = given.__defaults__ or ()
    for place, own in enumerate(defaults):
        for other in _changed(own):
            made = _with(given, given.__code__, given.__globals__)
            made.__defaults__ = (*defaults[:place], other, *defaults[place + 1 :])
            yield made
    for name in _names(given.__code__):
        own = given.__globals__.get(name)
        others: Iterator[Any] = _changed(own)
        if isinstance(own, FunctionType) and own.__module__ == given.__module__ and depth:
            others = _variations(own, depth - 1)
        for other in others:
            yield _with(given, given.__code__, {**given.__globals__, name: other})


def _with(given: FunctionType, code: CodeType, names: dict[str, Any]) -> FunctionType:
    made = FunctionType(code, names, given.__name__, given.__defaults__, given.__closure__)
    made.__kwdefaults__ = given.__kwdefaults__
    return made


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code with one of its constants changed, also of a function inside it."""
    for place, own in enumerate(code.co_consts):
        others = _codes(own) if isinstance(own, CodeType) else _changed(own)
        for other in others:
            consts = (*code.co_consts[:place], other, *code.co_consts[place + 1 :])
            yield code.replace(co_consts=consts)


def _names(code: CodeType) -> list[str]:
    inner = (name for own in code.co_consts if isinstance(own, CodeType) for name in _names(own))
    return list(dict.fromkeys((*code.co_names, *inner)))


def _changed(own: Any) -> Iterator[Any]:
    """Another number, or numbers of which the first is another; nothing for anything else."""
    if isinstance(own, bool):
        yield not own
    elif isinstance(own, (int, float)):
        yield own + 1
    elif isinstance(own, (Tensor, np.ndarray)) and own.dtype not in (bool, torch.bool):
        other = own.detach().clone() if isinstance(own, Tensor) else own.copy()
        other.reshape(-1)[:1] += 1
        yield other
    elif type(own) in (list, tuple) and own:
        for place, each in enumerate(own[:MANY]):
            for other in islice(_changed(each), MANY):
                yield type(own)([*own[:place], other, *own[place + 1 :]])
        yield own[:-1]


def _same(one: Any, other: Any, digits: int | None) -> bool:
    """Whether both are the same, to the printed digits."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_same(a, b, digits) for a, b in pairs)
    try:
        found, wanted = (np.asarray(_plain(each)) for each in (one, other))
        if found.shape != wanted.shape or found.dtype.kind != wanted.dtype.kind:
            return False
        if found.dtype.kind in "fc":
            half = 0 if digits is None else 0.5 * 10.0**-digits
            return bool(np.allclose(found, wanted, rtol=0, atol=half, equal_nan=True))
        return bool((found == wanted).all())
    except (TypeError, ValueError, RuntimeError):
        return False


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value
