"""What a ledger of claims states of a value's code: a function, a layer, an optimizer, a loader."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

SINGLE = 1e-6
"""A number that a document states is the same in float32 within this, relative to itself."""


def made_of(text: str, where: ModuleType) -> Any:
    """The layer of ``torch.nn``, or optimizer of ``torch.optim``, that the text constructs.

    Raises ValueError if it constructs none.
    """
    with _making(text, where) as (kind, arguments, named):
        return kind(*arguments, **named)


def require_made_of(text: str, where: ModuleType) -> None:
    """Raise ValueError if the text names no such layer or optimizer, or arguments it does not take.

    Nothing is constructed: torch imports its compiler with the first optimizer, which takes long.
    """
    with _making(text, where) as (kind, arguments, named):
        inspect.signature(kind).bind(*arguments, **named)


@contextmanager
def _making(
    text: str, where: ModuleType
) -> Iterator[tuple[Callable[..., Any], list[Any], dict[str, Any]]]:
    """What a text would call, with what; errors in the block are of the text, too."""
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        arguments = [ast.literal_eval(own) for own in call.args]
        named = {str(own.arg): ast.literal_eval(own.value) for own in call.keywords}
        if where is torch.optim:
            arguments = [[torch.zeros(1, requires_grad=True)], *arguments]
        yield getattr(where, call.func.id), arguments, named
    except Exception as error:
        raise ValueError(f"{text!r} makes nothing of {where.__name__} ({error})") from error


@dataclass(frozen=True)
class Stated:
    """A function, and arguments that it is given; ``...`` stands for any."""

    name: str
    arguments: tuple[Any, ...]

    def is_made(self, names: Collection[str], given: Sequence[Any]) -> bool:
        """Whether a call is of this function, and is given these arguments in this order."""
        left = iter(given)
        return self.name in names and all(
            any(_is(stated, own) for own in left) for stated in self.arguments
        )


def call_of(text: str) -> Stated | None:
    """The call of a function that a text states, or ``None`` if that is a layer.

    An argument is a number, a text, a list for a tensor's values or a tuple for its shape. Of
    ``DataLoader(batch_size=50, shuffle=True)`` the settings are compared by name.
    Raises ValueError if it is no call with such arguments.
    """
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        name = ast.unparse(call.func)
        if name == DataLoader.__name__:
            named = {str(own.arg): ast.literal_eval(own.value) for own in call.keywords}
            return Stated(name, tuple(settings_of(named)))
        if name[:1].isupper() and not hasattr(torch, name):
            return None
        arguments = [*call.args, *(own.value for own in call.keywords)]
        return Stated(name, tuple(map(ast.literal_eval, arguments)))
    except Exception as error:
        raise ValueError(f"{text!r} is no call with plain arguments ({error})") from error


def settings_of(given: Mapping[str, Any]) -> list[str]:
    """The numbers and switches of a loader."""
    kept = {name: own for name, own in given.items() if isinstance(own, (int, float, str))}
    return [f"{name}={own}" for name, own in sorted(kept.items())]


def function_of(text: str) -> str:
    """The function that a text names, with or without arguments; "" if it names another thing."""
    if "(" not in text:
        return text
    call = None if " * " in text else call_of(text)
    return call.name if call else ""


def _is(stated: Any, own: Any) -> bool:
    """Whether an argument is the stated one."""
    if stated is ...:
        return True
    if isinstance(own, (Tensor, np.ndarray)):
        return _is_array(stated, own)
    if isinstance(own, (list, tuple)):
        return (
            isinstance(stated, (list, tuple))
            and len(own) == len(stated)
            and all(map(_is, stated, own))
        )
    if isinstance(stated, str):
        return stated == str(own)
    if isinstance(stated, float) and isinstance(own, float):
        return math.isclose(stated, own, rel_tol=SINGLE)
    return type(stated) is type(own) and bool(stated == own)


def _is_array(stated: Any, own: Tensor | NDArray[Any]) -> bool:
    if isinstance(stated, tuple):
        return stated == tuple(own.shape)
    if isinstance(own, Tensor):
        if own.is_sparse or own.device.type == "meta":
            return False
        own = own.detach().resolve_conj().resolve_neg().cpu().numpy()
    wanted = np.asarray(stated)
    kinds = {wanted.dtype.kind, own.dtype.kind.replace("u", "i")}
    same = wanted.shape == own.shape and len(kinds) == 1
    return same and bool(np.allclose(own, wanted, rtol=SINGLE, atol=0, equal_nan=True))
