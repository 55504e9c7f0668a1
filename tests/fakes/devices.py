"""Devices that behave as the first GPU run showed them to, emulated on the CPU.

Give this file to ``--plugin``. Each part patches kernels of float32 alone, as a library does that
is wrong in one precision; the rest of the run is the CPU's.

    h200            a weight gradient of convolutions with 5 × 5 kernels of at most 50 images that
                    is off by 6e-4, and a less exact LSTM, under a cuDNN 9.19
    h200-default    the same, and sums that change from run to run, as cuDNN's default kernels do
    out-of-memory   a product of matrices finds no memory
    no-bfloat16     refuses bfloat16
    restless        products of matrices that change from run to run
    hangs           a product of matrices never ends
    not-reproducible  has an operation that warns that it has no reproducible kernel
"""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from unittest import mock

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from refimpl import Execution, environment, hookimpl

aten = torch.ops.aten
LIBRARIES = {"CUDA": "13.0", "cuDNN": "9.19.0"}

environment.libraries = lambda: LIBRARIES
environment.libraries_of = lambda device: LIBRARIES
environment.device_name = lambda device: "NVIDIA H200"


class Kernels(TorchDispatchMode):
    """Gives ``change(func, made, args)`` for every call."""

    def __init__(self, *changes):
        super().__init__()
        self.changes = changes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for change in self.changes:
            made = change(func, made, args)
        return made


def weight_gradient(func, made, args):
    """Off by 6e-4 of itself, for 5 × 5 kernels and at most 50 images; other shapes are right."""
    if func is aten.convolution_backward.default and made[1] is not None:
        first, weight, bias = made
        of_a_few = weight.shape[2:] == (5, 5) and len(args[1]) <= 50
        if weight.dtype == torch.float32 and of_a_few:
            return first, weight * (1 + 6e-4), bias
    return made


ORDERS = cycle(range(-8, 9))
"""An odd number of orders, so that a run and its repetition do not meet the same ones."""


def restless(func, made, args):
    """Added up in another order each time: other last bits."""
    if func is aten.convolution_backward.default and made[1] is not None:
        first, weight, bias = made
        if weight.dtype == torch.float32:
            return first, weight * (1 + next(ORDERS) * 2**-23), bias
    return made


def restless_products(func, made, args):
    if func in (aten.mm.default, aten.addmm.default) and made.dtype == torch.float32:
        return made * (1 + next(ORDERS) * 2**-23)
    return made


def no_memory(func, made, args):
    if func in (aten.mm.default, aten.addmm.default) and made.dtype == torch.float32:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return made


def no_bfloat16(func, made, args):
    if isinstance(made, torch.Tensor) and made.dtype == torch.bfloat16:
        raise RuntimeError('"mm" not implemented for BFloat16')
    return made


def never_ends(func, made, args):
    if func in (aten.mm.default, aten.addmm.default):
        while True:
            time.sleep(0.1)
    return made


def warns(func, made, args):
    if (
        func in (aten.mm.default, aten.addmm.default)
        and torch.are_deterministic_algorithms_enabled()
    ):
        warnings.warn(
            "addmm_fake does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True, warn_only=True)'.",
            stacklevel=2,
        )
    return made


LSTM = nn.LSTM.forward


def less_exact(self, x, state=None):
    """Gates in ten bits and a half, some thirty times less exact than float32."""
    output, last = LSTM(self, x, state)
    if x.dtype != torch.float32:
        return output, last

    def coarse(value):
        return value + (value * 4e-6).detach() * torch.sign(value).detach()

    return coarse(output), tuple(map(coarse, last))


@contextmanager
def emulated(*changes, lstm=False):
    with ExitStack() as stack:
        if lstm:
            stack.enter_context(mock.patch.object(nn.LSTM, "forward", less_exact))
        stack.enter_context(Kernels(*changes))
        yield


def in_torch(variant):
    return not variant.numpy


@hookimpl
def refimpl_executions():
    def part(name, summary, *changes, lstm=False):
        around = partial(emulated, *changes, lstm=lstm)
        return Execution(name, summary, around=around, supports=in_torch)

    return [
        part("h200", "an H200, deterministic", weight_gradient, lstm=True),
        part("h200-default", "an H200 as it is", weight_gradient, restless, lstm=True),
        part("out-of-memory", "a device without memory", no_memory),
        part("no-bfloat16", "a device without bfloat16", no_bfloat16),
        part("restless", "a device whose products change", restless_products),
        part("hangs", "a device that hangs", never_ends),
        part("not-reproducible", "a device with a kernel that warns", warns),
    ]
