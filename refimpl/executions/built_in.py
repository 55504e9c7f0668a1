"""The parts of executions that come with refimpl, as a plugin like any other.

A vendor adds a device, a compiler back end or a wrapper the same way: a ``refimpl_executions``
hook that returns :class:`~refimpl.contract.Execution` objects. They are composed by name
(:mod:`refimpl.composition`).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from refimpl import precision
from refimpl.capabilities import lacks
from refimpl.composition import COMPILER, CPU, MEMORY_FORMAT, REPLICAS, on_device
from refimpl.contract import Execution, Variant
from refimpl.executions import distributed, ensemble
from refimpl.hookspecs import hookimpl
from refimpl.requirements import (
    ESCAPES_AUTOCAST,
    NEEDS_COMPILER,
    NEEDS_CUDA,
    NEEDS_FULLY_SHARD,
    NEEDS_GLOO,
    NEEDS_TF32,
    NEEDS_TWO_CUDA,
    REFUSES_BCE,
)

if TYPE_CHECKING:
    from torch import nn

DETERMINISM = "determinism"


def _has_module(variant: Variant) -> bool:
    return variant.has_module


def _in_torch(variant: Variant) -> bool:
    return not variant.numpy


def _has_shards(variant: Variant) -> bool:
    """A module whose gradients of shards average to those of the batch."""
    return variant.has_module and variant.splits


# --- precisions ----------------------------------------------------------------------------------


def _doubled(device: str) -> Execution:
    return replace(F64, missing=partial(lacks, device, "float64"))


F64 = Execution("f64", "in float64", dtype="float64", per_device=_doubled)


def _casts(variant: Variant) -> bool:
    """A module with a product of matrices, for autocast leaves others as they are.

    Without recurrence: not every processor's oneDNN has an LSTM in bfloat16.
    """
    from torch import nn

    return _has_products(variant) and not variant.has_layer(nn.RNNBase)


def _has_products(variant: Variant) -> bool:
    return variant.has_module and (
        variant.build is None or any(n > 1 for n in _dimensions(variant))
    )


def _has_matrices(variant: Variant) -> bool:
    """A product of matrices, besides convolutions."""
    return 2 in _dimensions(variant)


def _dimensions(variant: Variant) -> Iterator[int]:
    """How many dimensions each parameter has that takes part in a product or a sum."""
    from torch import nn

    assert variant.build is not None
    for layer in variant.build().modules():
        if not isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
            yield from (parameter.ndim for parameter in layer.parameters(recurse=False))


def _autocast(device: str, dtype: str) -> AbstractContextManager[object]:
    import torch

    # It is around a whole step: a cast that was kept would be stale after the first of two updates.
    return torch.autocast(device, getattr(torch, dtype), cache_enabled=False)


def _bce_refused(variant: Variant) -> str | None:
    """Autocast on a GPU raises for BCELoss, which torch documents as unsafe there."""
    from refimpl.training.ingredients import ingredients

    used = ingredients(variant, "stand-in")
    refused = {"loss:BCELoss", "function:binary_cross_entropy"} & {*used}
    return REFUSES_BCE if refused else None


def _autocasting(name: str, dtype: str) -> Execution:
    def on(device: str) -> Execution:
        kind = device.partition(":")[0]
        part = replace(
            basic,
            around=partial(_autocast, kind, dtype),
            missing=lambda: lacks(device, dtype) or lacks(device, "autocast"),
        )
        # What a CPU's oneDNN lacks, a GPU need not lack; and the other way round.
        return part if kind == "cpu" else replace(part, supports=_has_products, unfit=_bce_refused)

    basic = Execution(
        name, f"autocast to {dtype}", supports=_casts, rounding=dtype,
        around=partial(_autocast, "cpu", dtype), per_device=on,
    )  # fmt: skip
    return basic


@contextmanager
def _with_tf32() -> Iterator[None]:
    """TF32 in cuBLAS and cuDNN, as a user turns it on."""
    before = precision.snapshot()
    precision.set_tf32()
    try:
        yield
    finally:
        precision.restore(before)


def _no_tf32() -> str | None:
    import torch

    there = torch.cuda.is_available() and torch.version.cuda is not None
    return None if there and torch.cuda.get_device_capability()[0] >= 8 else NEEDS_TF32


def _tf32_on(device: str) -> Execution:
    only_there = (lambda: NEEDS_TF32) if device.partition(":")[0] != "cuda" else _no_tf32
    return replace(TF32, missing=only_there)


TF32 = Execution(
    "tf32", "products in TF32", supports=_has_products, rounding="tf32", around=_with_tf32,
    missing=_no_tf32, per_device=_tf32_on,
)  # fmt: skip


# --- wrappers ------------------------------------------------------------------------------------


def _channels_last(module: nn.Module) -> nn.Module:
    import torch

    return module.to(memory_format=torch.channels_last)


def _has_images(variant: Variant) -> bool:
    """Memory formats matter only for convolutions over images."""
    from torch import nn

    return variant.has_module and variant.has_layer(nn.Conv2d)


def _compiled(module: nn.Module, **options: Any) -> nn.Module:
    import torch

    torch._dynamo.reset()
    return torch.compile(module, **options)  # type: ignore[return-value]


def _no_compiler() -> str | None:
    found = any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))
    return None if found and sys.platform != "win32" else NEEDS_COMPILER


def _exported(module: nn.Module) -> nn.Module:
    from refimpl.executions.exported import Exported

    return Exported(module)


def _only_cuda(device: str) -> str | None:
    if device.partition(":")[0] != "cuda":
        return NEEDS_CUDA
    return on_device(device).missing()


def _graphs_on(device: str) -> Execution:
    return replace(GRAPHS, missing=partial(_only_cuda, device))


GRAPHS = Execution(
    "graphs", "the module under torch.compile with CUDA graphs (reduce-overhead)",
    wrap=partial(_compiled, mode="reduce-overhead"), supports=_has_module, sets=(COMPILER,),
    missing=partial(_only_cuda, "cpu"), per_device=_graphs_on,
)  # fmt: skip


def _data_parallel(module: nn.Module) -> nn.Module:
    """Over all CUDA devices; if there is none, it only calls the module."""
    import torch
    from torch.nn.parallel import DataParallel

    return DataParallel(module, device_ids=list(range(torch.cuda.device_count())))


def _replicated_on(device: str) -> Execution:
    return replace(DATA_PARALLEL, missing=partial(_only_cuda, device))


DATA_PARALLEL = Execution(
    "data-parallel", "DataParallel over the CUDA devices", wrap=_data_parallel,
    supports=_has_shards, sets=(REPLICAS,), missing=partial(_only_cuda, "cpu"),
    per_device=_replicated_on,
)  # fmt: skip


# --- processes -----------------------------------------------------------------------------------


def _no_processes(device: str) -> str | None:
    import torch
    import torch.distributed as dist

    if device == "cpu":
        return None if dist.is_available() and dist.is_gloo_available() else NEEDS_GLOO
    kind = device.partition(":")[0]
    if kind == "cuda":
        return None if torch.cuda.device_count() > 1 else NEEDS_TWO_CUDA
    return f"needs a distributed back end for {kind}"


def _in_processes_on(device: str) -> Execution:
    return replace(DDP, missing=partial(_no_processes, device))


DDP = Execution(
    "ddp", "DistributedDataParallel in two processes (gloo, NCCL)", supports=_has_shards,
    steps=distributed.distributed_steps, missing=partial(_no_processes, "cpu"),
    sees_outputs=False, sets=(REPLICAS,), per_device=_in_processes_on,
)  # fmt: skip


def _not_sharded(device: str) -> str | None:
    """FSDP came to the CPU, and to its present name, with torch 2.6."""
    import torch.distributed.fsdp as fsdp

    return _no_processes(device) or (None if hasattr(fsdp, "fully_shard") else NEEDS_FULLY_SHARD)


def _sharded_on(device: str) -> Execution:
    return replace(FSDP, missing=partial(_not_sharded, device))


FSDP = Execution(
    "fsdp", "FullyShardedDataParallel in two processes (gloo, NCCL)", supports=_has_shards,
    steps=distributed.sharded_steps, missing=partial(_not_sharded, "cpu"),
    sees_outputs=False, sets=(REPLICAS, MEMORY_FORMAT), per_device=_sharded_on,
)  # fmt: skip
"""It refuses parameters that are not contiguous, so that images cannot be stored channels last."""


# --- many at once --------------------------------------------------------------------------------


def _convolutions_alone(variant: Variant) -> str | None:
    """On the CPU, autocast's list has ``conv2d`` but not what vmap makes of it."""
    escapes = variant.build is not None and not _has_matrices(variant)
    return ESCAPES_AUTOCAST if escapes else ensemble.unfit(variant)


def _together(parts: Sequence[Execution]) -> Execution:
    narrow = any(part.rounding is not None for part in parts)
    on_cpu = all(part.device == "cpu" for part in parts)
    return replace(ENSEMBLE, unfit=_convolutions_alone) if narrow and on_cpu else ENSEMBLE


ENSEMBLE = Execution(
    "ensemble", "many seeds at once under torch.func.vmap", supports=ensemble.supports,
    unfit=ensemble.unfit, steps=ensemble.ensemble_steps, wrappable=False, beside=_together,
)  # fmt: skip


# --- modes ---------------------------------------------------------------------------------------


@contextmanager
def _deterministic() -> Iterator[None]:
    """Torch's deterministic algorithms, and an error where there is none."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    of_cudnn = torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
        torch.backends.cudnn.deterministic = of_cudnn


@hookimpl
def refimpl_executions() -> list[Execution]:
    """The built-in parts."""
    return [
        CPU,
        on_device("cuda"),
        F64,
        _autocasting("bf16", "bfloat16"),
        _autocasting("fp16", "float16"),
        TF32,
        Execution(
            "channels-last", "images stored channels last", wrap=_channels_last,
            supports=_has_images, sets=(MEMORY_FORMAT,),
        ),
        Execution(
            "compile", "the module under torch.compile", wrap=_compiled, supports=_has_module,
            missing=_no_compiler, sets=(COMPILER,),
        ),
        GRAPHS,
        Execution(
            "export", "the graph that torch.export makes of the module", wrap=_exported,
            supports=_has_module, sets=(COMPILER,),
        ),
        DATA_PARALLEL,
        DDP,
        FSDP,
        ENSEMBLE,
        Execution(
            "deterministic", "with deterministic algorithms, and an error where there is none",
            around=_deterministic, supports=_in_torch, sets=(DETERMINISM,),
        ),
    ]  # fmt: skip
