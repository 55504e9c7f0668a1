"""Bugs of executions: their precision, their shards, their averages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from refimpl.composition import CPU
from refimpl.conformance.mutants.planting import (
    Calls,
    Fault,
    Injection,
    Plant,
    gradients,
    has_module,
    wrong_execution,
)
from refimpl.contract import Epoch, Execution, Step, Variant
from refimpl.training.loop import written_steps
from refimpl.training.problem import Problem

SUMMARY = "wrong on purpose"


def _divides(variant: Variant) -> bool:
    """Variants with a module whose batches can be split into shards."""
    return has_module(variant) and variant.splits


def _planted_steps(variant: Variant, problem: Problem, plant: Plant, fault: Fault) -> Iterator[Any]:
    injection = Injection(variant, fault, plant)
    steps = iter(written_steps(variant, injection.posed(problem.but(execution=CPU))))
    while True:
        with injection.in_force():
            step = next(steps, None)
        if step is None:
            return
        yield step


@wrong_execution(_divides)
def shards_not_averaged(fault: Fault) -> Execution:
    """Processes train apart, each on its shard: their gradients are never averaged."""

    def steps(variant: Variant, problem: Problem) -> Iterator[Step | Epoch]:
        fault.hit()
        yield from written_steps(variant, problem.but(shard=(0, 2), execution=CPU))

    return Execution("shards-not-averaged", SUMMARY, steps=steps, sees_outputs=False)


@wrong_execution(_divides)
def shards_summed(fault: Fault) -> Execution:
    """Gradients of two processes are added up, and not divided by two."""

    def doubled(leaves: Any, share: float) -> bool:
        for gradient in gradients(leaves):
            gradient.mul_(2)
        return True

    def steps(variant: Variant, problem: Problem) -> Iterator[Step | Epoch]:
        yield from _planted_steps(variant, problem, Plant(after_backward=doubled), fault)

    return Execution("shards-summed", SUMMARY, steps=steps, sees_outputs=False)


@wrong_execution(has_module)
def products_in_ten_bits(fault: Fault) -> Execution:
    """Products keep ten bits of the mantissa, as TF32 does where nobody turns it off."""

    def coarse(x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        bits = x.detach().contiguous().view(torch.int32)
        kept = ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)
        return x + (kept - x).detach()

    def product(original: Any, left: Tensor, right: Tensor, *args: Any, **kwargs: Any) -> Any:
        rounded = coarse(left), coarse(right)
        if torch.equal(rounded[0], left) and torch.equal(rounded[1], right):
            return NotImplemented
        return original(*rounded, *args, **kwargs)

    products = dict.fromkeys(("linear", "conv1d", "conv2d", "matmul", "__matmul__"), product)
    return Execution("products-in-ten-bits", SUMMARY, around=lambda: Calls(fault, products))


def _casts(variant: Variant) -> bool:
    """Variants with layers that autocast computes in another precision."""
    return has_module(variant) and variant.has_layer(nn.Linear, nn.modules.conv._ConvNd)


@wrong_execution(_casts)
def autocast_left_on(fault: Fault) -> Execution:
    """Autocast to bfloat16 is on where float32 is claimed."""

    def around() -> AbstractContextManager[object]:
        fault.hit()
        return torch.autocast("cpu", torch.bfloat16)

    return Execution("autocast-left-on", SUMMARY, around=around)


@wrong_execution(has_module)
def never_synchronised(fault: Fault) -> Execution:
    """What a replica computes never reaches the parameters: their gradients are zeroed."""

    def lost(leaves: Any, share: float) -> bool:
        for gradient in gradients(leaves):
            gradient.zero_()
        return True

    def steps(variant: Variant, problem: Problem) -> Iterator[Step | Epoch]:
        yield from _planted_steps(variant, problem, Plant(after_backward=lost), fault)

    return Execution("never-synchronised", SUMMARY, steps=steps, sees_outputs=False)
