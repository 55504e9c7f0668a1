"""Faults of kernels: put into torch's dispatcher, so that no code of Python sees a difference.

Each is about one kernel of the CPU and one kind of fault. In float64 the kernel stays right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from refimpl.conformance.mutants.planting import Fault, Mutant, Plant, in_torch

KERNELS = (
    "addmm", "mm", "convolution", "convolution_backward", "relu", "threshold_backward", "sigmoid",
    "sigmoid_backward", "max_pool2d_with_indices", "_log_softmax", "_log_softmax_backward_data",
    "binary_cross_entropy", "mse_loss", "mean", "sum", "embedding_dense_backward", "addcdiv_",
)  # fmt: skip
"""Kernels that the examples reach, forward, backward and in updates."""

SHORT = 8
"""A batch with fewer rows than this is short."""

Change = Callable[[Fault, Tensor], Tensor]


def _scaled(fault: Fault, made: Tensor) -> Tensor:
    return made * (1 + fault.strength)


def _last_row(fault: Fault, made: Tensor) -> Tensor:
    if not made.dim():
        return made
    wrong = made.clone()
    wrong[-1] *= 1.01
    return wrong


def _short_batches(fault: Fault, made: Tensor) -> Tensor:
    return made * 1.01 if made.dim() and len(made) < SHORT else made


def _without_gradients(fault: Fault, made: Tensor) -> Tensor:
    return made if torch.is_grad_enabled() else made * 1.01


_DRAWS = random.Random(0)


def _not_deterministic(fault: Fault, made: Tensor) -> Tensor:
    return made * (1 + 1e-3 * _DRAWS.random())


def _in_half_precision(fault: Fault, made: Tensor) -> Tensor:
    return made.to(torch.bfloat16).to(made.dtype)


FAULTS: dict[str, tuple[Change, str]] = {
    "scaled": (_scaled, "gives too much, by this share of it"),
    "last-row": (_last_row, "gives 1 % too much in the last row"),
    "short-batches": (_short_batches, f"gives 1 % too much for fewer than {SHORT} rows"),
    "without-gradients": (_without_gradients, "gives 1 % too much where gradients are off"),
    "not-deterministic": (_not_deterministic, "gives up to 0.1 % too much, now and again"),
    "in-half-precision": (_in_half_precision, "gives eight bits of its results"),
}


@contextmanager
def replaced(kernel: str, change: Change, fault: Fault) -> Iterator[None]:
    """Put the fault into every overload of a kernel on the CPU, and take it out again."""
    packet = getattr(torch.ops.aten, kernel)
    with ExitStack() as stack:
        library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
        stack.callback(library._destroy)
        for overload in packet.overloads():
            if overload.endswith("out") or "names" in overload or "dtype" in overload:
                continue
            op = getattr(packet, overload)
            try:
                original = torch.library.get_kernel(op, "CPU")
            except (RuntimeError, ValueError):  # another overload calls it
                continue
            name = f"{kernel}.{overload}" if overload != "default" else kernel
            wrong = partial(_wrong, original, change, fault)
            library.impl(name, wrong, "CPU", with_keyset=True)  # type: ignore[no-untyped-call]
        yield


def _wrong(
    original: Any, change: Change, fault: Fault, keys: Any, *args: Any, **kwargs: Any
) -> Any:
    made = original.call_boxed(keys, *args, **kwargs)
    if isinstance(made, tuple):
        return tuple(_changed(change, fault, each) for each in made)
    if made is args[0]:  # in place
        return made.copy_(_changed(change, fault, made))
    return _changed(change, fault, made)


def _changed(change: Change, fault: Fault, made: Any) -> Any:
    if not isinstance(made, Tensor) or made.dtype != torch.float32 or not made.numel():
        return made
    wrong = change(fault, made)
    if wrong is not made and not torch.equal(wrong, made):
        fault.hit()
    return wrong


def _plant(kernel: str, change: Change, fault: Fault) -> Plant:
    within = partial(replaced, kernel, change, fault)

    def predicting_too(module: nn.Module) -> bool:
        forward = module.forward

        def inside(*args: Any, **kwargs: Any) -> Any:
            with within():
                return forward(*args, **kwargs)

        module.forward = inside
        return False

    return Plant(around=within, module=predicting_too)


def _applies(variant: Any) -> bool:
    return in_torch(variant) and hasattr(torch.library, "get_kernel")


def name_of(kernel: str, fault: str) -> str:
    """The name of the mutant of this kernel with this fault."""
    return f"{kernel.strip('_').replace('_', '-')}-{fault}"


ALL = tuple(
    Mutant(
        name_of(kernel, name),
        f"The kernel aten::{kernel} {what}",
        _applies,
        partial(_plant, kernel, change),
        weakest=1e-8 if name == "scaled" else None,
        strongest=1e-3 if name == "scaled" else 1.0,
        of_kernels=True,
    )
    for kernel in KERNELS
    for name, (change, what) in FAULTS.items()
)
"""Every kernel with every fault. Where torch cannot give a kernel (before 2.9), none applies."""
