"""Watching which functions of torch are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

Noted = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], None]


class EachCall(TorchFunctionMode):
    """While it is entered, each call of torch is first given to ``noted``."""

    def __init__(self, noted: Noted) -> None:
        super().__init__()
        self.noted = noted

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Note the call, and make it."""
        self.noted(function, args, kwargs or {})
        return function(*args, **(kwargs or {}))
