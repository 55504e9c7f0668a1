"""A module as ``torch.export`` writes it down: one graph of plain operations for each kind of call.

The graph computes with the parameters and buffers that the module has at the time of a call, so
that it trains as the module does. A batch of another shape, and evaluation, are exported anew.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten

Key = tuple[object, ...]


class Exported(nn.Module):
    """Calls the exported graph of ``module`` in its place."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._graphs: dict[Key, nn.Module] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the graph gives, computed with the module's present parameters."""
        key = self._key(args, kwargs)
        if key not in self._graphs:
            self._graphs[key] = _graph(self.module, args, kwargs)
        state = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        graph = self._graphs[key]
        own = {name for name, _ in (*graph.named_parameters(), *graph.named_buffers())}
        used = {name: value for name, value in state.items() if name in own}
        return functional_call(graph, used, args, kwargs)

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Key:
        """What a graph depends on: shapes, kinds, plain values, training or evaluation."""
        leaves, spec = tree_flatten((args, kwargs))
        seen = (
            (tuple(leaf.shape), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        )  # fmt: skip
        modes = tuple(layer.training for layer in self.module.modules())
        return (modes, torch.is_grad_enabled(), str(spec), *seen)


def _graph(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    device = next((own.device.type for own in module.parameters()), "cpu")
    # Autocast is for the call: it would be written into the graph, and then be done twice.
    with torch.autocast(device, enabled=False):
        program = torch.export.export(module, args, kwargs, strict=False)
    return program.module()
