"""Exact values, failures and errata with every call, layer and update of theirs judged by itself.

A value may be right although something in it is wrong: a shape says nothing about the numbers, and
a minimum is found in spite of some updates that are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from refimpl.composition import CPU
from refimpl.parity.judged_updates import JudgedUpdates, Watcher
from refimpl.parity.kernel_judge import JudgedCall, KernelJudge
from refimpl.parity.layer_definitions import is_defined
from refimpl.parity.leaf_modules import judged_layer, recording

EACH, PARAMETERS = range(1, 1_000_000), 200_000
"""All updates of a value are judged, until so many parameters are in all of them."""

MOST = 100_000
"""Numbers that are judged of each kernel's results, of each value."""


@dataclass
class JudgedValues:
    """The calls of torch that values make, and the results of their layers and optimizers."""

    kernels: KernelJudge = field(default_factory=KernelJudge)
    updates: JudgedUpdates = field(default_factory=JudgedUpdates)
    layers: list[JudgedCall] = field(default_factory=list)


def judge_values(values: Mapping[str, Callable[[], object]]) -> JudgedValues:
    """Compute each value, by its name, and judge what it calls."""
    found = JudgedValues()
    layers: dict[str, tuple[nn.Module, Tensor]] = {}
    for key, compute in values.items():
        judge = KernelJudge(repr(key), most=MOST)
        watcher = Watcher(EACH, run=repr(key), parameters=PARAMETERS)
        with torch.random.fork_rng(devices=[]), watcher.watching(), recording() as calls:
            torch.manual_seed(0)
            with suppress(Exception), judge:  # how it ends is for the value's own check
                compute()
        found.kernels.add(judge)
        found.updates.add(watcher.seen)
        for layer, given in calls:
            if is_defined(layer) and isinstance(given, Tensor) and given.numel():
                layers.setdefault(f"{layer} {tuple(given.shape)}", (layer, given))
    for layer, given in layers.values():
        name = type(layer).__name__
        found.layers += judged_layer(layer, name, _varied(given), CPU, torch.float32)
    return found


def _varied(given: Tensor) -> Tensor:
    """An input as it was, or, if it is the same number everywhere, numbers in its place."""
    if given.is_floating_point() and bool((given == given.flatten()[0]).all()):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(given.shape, generator=generator)
    return given
