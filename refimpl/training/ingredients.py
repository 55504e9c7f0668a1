"""What a variant's first step is made of: its layers, loss, optimizer and torch functions.

Failures that have one cause share an ingredient that nothing which passes has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

from torch import nn
from torch.nn.modules.loss import _Loss as Loss
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from refimpl.contract import Variant
from refimpl.data import Tier
from refimpl.training.loop import steps_of
from refimpl.training.problem import pose

LAYER, LOSS, OPTIMIZER, METRIC, FUNCTION = "layer", "loss", "optimizer", "metric", "function"


@lru_cache(maxsize=128)
def ingredients(variant: Variant, tier: Tier) -> tuple[str, ...]:
    """``kind:name`` for everything of torch that the first step calls, and for each metric.

    Empty if the variant makes no step here: then its checks say why.
    """
    found: set[str] = set()
    try:
        problem = pose(variant, tier)
        with _recording(found):
            next(steps_of(variant, problem, 1), None)
    except Exception:
        return ()
    found.update(f"{METRIC}:{name}" for name in variant.metrics or ())
    return tuple(sorted(found))


@contextmanager
def _recording(found: set[str]) -> Iterator[None]:
    def called(module: nn.Module, given: Any, made: Any) -> None:
        if not any(module.children()):
            kind = LOSS if isinstance(module, Loss) else LAYER
            found.add(f"{kind}:{type(module).__name__}")

    def stepped(optimizer: Any, args: Any, options: Any) -> None:
        found.add(f"{OPTIMIZER}:{type(optimizer).__name__}")

    class Functions(TorchFunctionMode):
        def __torch_function__(
            self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if str(getattr(function, "__module__", "")).startswith("torch.nn.functional"):
                found.add(f"{FUNCTION}:{function.__name__}")
            return function(*args, **(kwargs or {}))

    with ExitStack() as hooks:
        for handle in (
            register_module_forward_hook(called),
            register_optimizer_step_pre_hook(stepped),
        ):
            hooks.callback(handle.remove)
        hooks.enter_context(Functions())
        yield
