"""Puts right what is known to be wrong: a kernel, or a layer, is computed in float64 on the CPU.

What then passes failed of that alone. So a known deviation excuses itself and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

from refimpl.contract import Execution
from refimpl.parity.kernel_bounds import in_float64, repeated, results_of


class Righted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives what float64 on the CPU makes of every call of these kernels, rounded once."""

    def __init__(self, kernels: frozenset[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = kernels

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make a call, and put its results right."""
        given = dict(kwargs or {})
        if func._schema.name not in self.kernels:
            return func(*args, **given)
        wide, named = tree_map(in_float64, list(args)), tree_map(in_float64, given)
        made = func(*args, **given)
        with _disable_current_modes(), torch.no_grad():
            exact = repeated(func, wide, named)
            for one, right in zip(results_of(func, args, given, made), exact, strict=True):
                one.copy_(right)
        return made


def _layer_righted(layer: type[nn.Module]) -> AbstractContextManager[object]:
    """Layers of this class compute in float64 on the CPU, and so do their gradients."""
    original: Callable[..., Any] = layer.forward

    def forward(self: nn.Module, *args: Any) -> Any:
        like = next(t for t in (*self.parameters(), *args) if isinstance(t, Tensor))
        if like.dtype == torch.float64:
            return original(self, *args)

        def there(value: Any) -> Any:
            real = isinstance(value, Tensor) and value.is_floating_point()
            return value.to("cpu", torch.float64) if real else value

        def back(value: Any) -> Any:
            real = isinstance(value, Tensor) and value.is_floating_point()
            return value.to(like.device, like.dtype) if real else value

        # A plain call of the same function, with other parameters.
        own = {name: there(value) for name, value in self.named_parameters()}
        made = functional_call(_Called(self, original), {f"own.{n}": v for n, v in own.items()},
                               tree_map(there, args))  # fmt: skip
        return tree_map(back, made)

    return mock.patch.object(layer, "forward", forward)


class _Called(nn.Module):
    """Calls a layer's own function, which its class may have replaced."""

    def __init__(self, own: nn.Module, original: Callable[..., Any]) -> None:
        super().__init__()
        self.own = own
        self.original = original

    def forward(self, *args: Any) -> Any:
        return self.original(self.own, *args)


@dataclass(frozen=True)
class _Around:
    """What an execution does around a step, and inside of it the things that are put right."""

    outer: Callable[[], AbstractContextManager[object]]
    names: tuple[str, ...]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self.outer())
            for name in self.names:
                if "::" not in name:
                    stack.enter_context(_layer_righted(getattr(nn, name)))
            kernels = frozenset(name for name in self.names if "::" in name)
            if kernels:
                stack.enter_context(Righted(kernels))
            yield


def repaired(execution: Execution, names: Sequence[str]) -> Execution:
    """The execution with these kernels (``aten::mm``) and layers (``LSTM``) put right."""
    return replace(execution, around=_Around(execution.around, tuple(names)))


def can_be_repaired(name: str) -> bool:
    """Whether a name is that of a kernel or of a layer of ``torch.nn``."""
    if name.startswith("aten::"):
        return hasattr(torch.ops.aten, name.removeprefix("aten::"))
    layer = getattr(nn, name, None)
    return isinstance(layer, type) and issubclass(layer, nn.Module)
