"""The executions that come with refimpl, as a plugin like any other.

A vendor adds a device, a compiler back end or a wrapper the same way: a ``refimpl_executions``
hook that returns :class:`~refimpl.contract.Execution` objects.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from refimpl.contract import Execution, Variant
from refimpl.errors import UnknownNameError
from refimpl.executions import distributed, ensemble
from refimpl.hookspecs import hookimpl
from refimpl.requirements import NEEDS_COMPILER, NEEDS_CUDA, NEEDS_GLOO, NEEDS_TWO_CUDA
from refimpl.training.problem import CPU

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn


# --- devices -------------------------------------------------------------------------------------


def on_device(device: str) -> Execution:
    """The execution on a device, by torch's name for it: ``cuda``, ``cuda:1``, ``mps``.

    Raises :class:`UnknownNameError` if torch knows no device of that name.
    """
    if device == "cpu":
        return CPU
    import torch

    try:
        torch.device(device)
    except RuntimeError as error:
        raise UnknownNameError(
            f"torch does not know a device {device!r}; use torch's names: cpu, cuda, cuda:1, mps …"
        ) from error
    summary = f"{device}, in the document's own precision"
    return Execution(device, summary, device, missing=_without(device), supports=_not_numpy)


def _without(device: str) -> Callable[[], str | None]:
    """What this machine lacks to run on a device."""

    def missing() -> str | None:
        import torch

        kind, _, index = device.partition(":")
        if kind == "cuda":
            enough = torch.cuda.is_available() and torch.cuda.device_count() > int(index or 0)
            return None if enough else NEEDS_CUDA
        back_end = getattr(torch, kind, None)
        available = getattr(back_end, "is_available", lambda: False)
        return None if available() else f"needs the device {kind}"

    return missing


def _not_numpy(variant: Variant) -> bool:
    return not variant.numpy


def _has_module(variant: Variant) -> bool:
    return variant.has_module


def _has_shards(variant: Variant) -> bool:
    """A module whose gradients of shards average to those of the batch."""
    return variant.has_module and variant.splits


# --- precisions ----------------------------------------------------------------------------------


def _casts(variant: Variant) -> bool:
    """A module with a product of matrices, for autocast leaves others as they are.

    Without recurrence: not every processor's oneDNN has an LSTM in bfloat16.
    """
    from torch import nn

    build = variant.build
    has_matrix = build is None or any(
        parameter.ndim > 1
        for layer in build().modules()
        if not isinstance(layer, (nn.Embedding, nn.EmbeddingBag))
        for parameter in layer.parameters(recurse=False)
    )
    return variant.has_module and has_matrix and not variant.has_layer(nn.RNNBase)


def _autocast(device: str, dtype: str) -> AbstractContextManager[object]:
    import torch

    # It is around a whole step: a cast that was kept would be stale after the first of two updates.
    return torch.autocast(device, getattr(torch, dtype), cache_enabled=False)


# --- wrappers ------------------------------------------------------------------------------------


def _channels_last(module: nn.Module) -> nn.Module:
    import torch

    return module.to(memory_format=torch.channels_last)


def _has_images(variant: Variant) -> bool:
    """Memory formats matter only for convolutions over images."""
    from torch import nn

    return variant.has_module and variant.has_layer(nn.Conv2d)


def _compiled(module: nn.Module) -> nn.Module:
    import torch

    torch._dynamo.reset()
    return torch.compile(module)  # type: ignore[return-value]


def _no_compiler() -> str | None:
    found = any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))
    return None if found and sys.platform != "win32" else NEEDS_COMPILER


def _data_parallel(module: nn.Module) -> nn.Module:
    """Over all CUDA devices; if there is none, it only calls the module."""
    import torch
    from torch.nn.parallel import DataParallel

    return DataParallel(module, device_ids=list(range(torch.cuda.device_count())))


def _fewer_than_two() -> str | None:
    import torch

    return None if torch.cuda.device_count() > 1 else NEEDS_TWO_CUDA


def _no_gloo() -> str | None:
    import torch.distributed as dist

    return None if dist.is_available() and dist.is_gloo_available() else NEEDS_GLOO


@hookimpl
def refimpl_executions() -> list[Execution]:
    """The built-in executions."""
    cuda = on_device("cuda")
    return [
        CPU,
        Execution("cpu-f64", "the CPU in float64", dtype="float64"),
        cuda,
        Execution(
            "channels-last", "images stored channels last on CUDA", "cuda", wrap=_channels_last,
            supports=_has_images, missing=_without("cuda"),
        ),
        Execution(
            "compile", "the module under torch.compile", wrap=_compiled, supports=_has_module,
            missing=_no_compiler,
        ),
        Execution(
            "autocast-bf16", "autocast to bfloat16", supports=_casts, rounding="bfloat16",
            around=partial(_autocast, "cpu", "bfloat16"),
        ),
        Execution(
            "autocast-fp16", "autocast to float16 on CUDA", "cuda", supports=_has_module,
            rounding="float16", around=partial(_autocast, "cuda", "float16"),
            missing=_without("cuda"),
        ),
        Execution(
            "data-parallel", "DataParallel over the CUDA devices", "cuda", wrap=_data_parallel,
            supports=_has_shards, missing=_without("cuda"),
        ),
        Execution(
            "ddp-gloo-2", "DistributedDataParallel in two processes over gloo",
            supports=_has_shards, steps=distributed.distributed_steps, missing=_no_gloo,
            sees_outputs=False,
        ),
        Execution(
            "ddp-nccl-2", "DistributedDataParallel on two GPUs over NCCL", "cuda",
            supports=_has_shards, steps=distributed.distributed_steps, missing=_fewer_than_two,
            sees_outputs=False,
        ),
        Execution(
            "ensemble", "many seeds at once under torch.func.vmap",
            supports=ensemble.supports, steps=ensemble.ensemble_steps,
        ),
    ]  # fmt: skip
