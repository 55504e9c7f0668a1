"""Data parallelism in real processes, started by torch's own elastic launcher: DDP and FSDP.

Each process computes on its shard of every batch. Gradients are weighted by the sizes of the
shards, so they equal those of the whole batch even if the shards are uneven. Under FSDP each
process keeps a part of every parameter, of its gradient and of the optimizer's state.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refimpl.contract import Step, Variant
from refimpl.errors import RefimplError
from refimpl.loading.discovery import find_spec
from refimpl.processes import end_with_parent
from refimpl.training.loop import steps_of
from refimpl.training.problem import Problem
from refimpl.trees import leaves, rows_of

PROCESSES = 2

Wrap = Callable[[nn.Module], nn.Module]


class DistributedError(RefimplError):
    """A process of a distributed run did not finish."""


def distributed_steps(variant: Variant, problem: Problem) -> Iterator[Step]:
    """The variant under DDP in :data:`PROCESSES` processes on this machine, over gloo or NCCL.

    ``problem.horizon`` must say how many steps to make. Raises :class:`DistributedError` if it does
    not, if a batch of them has fewer rows than there are processes, or if a process fails.
    """
    return _in_processes(variant, problem, _weighted_ddp)


def sharded_steps(variant: Variant, problem: Problem) -> Iterator[Step]:
    """The same under FSDP (``fully_shard``): no process has all of the parameters."""
    return _in_processes(variant, problem, _weighted_fsdp)


def _in_processes(variant: Variant, problem: Problem, replicated: Wrap) -> Iterator[Step]:
    """The steps of a variant whose modules are ``replicated`` in every process.

    It is a generator, so that nothing starts before the first step is asked for.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if problem.horizon is None:
        raise DistributedError("a distributed run needs a horizon: how many steps to make")
    _require_rows_for_each(problem, problem.horizon)
    multiprocessing.set_forkserver_preload(["torch", "refimpl.executions.distributed"])
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=PROCESSES,
            start_method="forkserver",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.1,
            run_id=Path(folder).name,
        )
        try:
            elastic_launch(config, _process)(_packed(variant, problem), replicated, folder)
        except ChildFailedError as error:
            raise DistributedError(f"a process of the distributed run failed: {error}") from error
        shards = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(PROCESSES)]
    yield from _gathered(shards)


def _require_rows_for_each(problem: Problem, horizon: int) -> None:
    """Refuse a batch that leaves a process without a row: the other processes would hang."""
    per_epoch, size = problem.steps_per_epoch, problem.batch_size
    rows = len(problem.train) - (per_epoch - 1) * size if horizon >= per_epoch else size
    if rows < PROCESSES:
        raise DistributedError(
            f"a batch of the first {horizon} has {rows} row, too few for {PROCESSES} processes; "
            f"compare fewer than {per_epoch} steps, or use another batch size"
        )


def _packed(variant: Variant, problem: Problem) -> bytes:
    """Variant and problem, by value if another process cannot import their module."""
    import cloudpickle

    named = {variant.steps, variant.build, *_callables(problem.execution)}
    found = (sys.modules.get(getattr(each, "__module__", None) or "") for each in named)
    # Whether a process with the same path finds it; that it is loaded here does not show it.
    modules = {m.__name__: m for m in found if m is not None and find_spec(m.__name__) is None}
    for module in modules.values():
        cloudpickle.register_pickle_by_value(module)
    try:
        packed: bytes = cloudpickle.dumps((variant, problem))
        return packed
    finally:
        for module in modules.values():
            cloudpickle.unregister_pickle_by_value(module)


def _callables(value: Any) -> Iterator[Any]:
    """The functions and classes of an execution, also those inside of composed and partial ones."""
    if isinstance(value, partial):
        yield from _callables((value.func, *value.args))
    elif isinstance(value, tuple):
        for each in value:
            yield from _callables(each)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _callables(tuple(getattr(value, each.name) for each in fields(value)))
    elif callable(value):
        yield value


def _process(packed: bytes, replicated: Wrap, folder: str) -> None:
    """One process: trains on its shard of every batch and saves what it sees to a file."""
    import cloudpickle
    import torch.distributed as dist

    end_with_parent(at_once=True)
    torch.set_num_threads(1)
    variant, problem = cloudpickle.loads(packed)
    on_gpu = problem.device.type == "cuda"
    rank = int(os.environ["RANK"])
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        # Everything but how its steps are made: a precision, a compiler, a mode.
        whole = problem.execution
        execution = replace(
            whole, device=f"cuda:{rank}" if on_gpu else "cpu", steps=None,
            wrap=partial(_wrapped, replicated, whole.wrap),
        )  # fmt: skip
        own = replace(problem, execution=execution, shard=(rank, dist.get_world_size()))
        seen = []
        for step in steps_of(variant, own, problem.horizon):
            rows = rows_of(step.target) if step.target is not None else own.batch_size
            seen.append(
                {
                    "loss": torch.as_tensor(step.total).detach().cpu(),
                    "rows": rows,
                    "gradients": _copies(step.used_gradients()),
                    "parameters": _copies(step.parameters),
                }
            )
        torch.save(seen, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def _wrapped(replicated: Wrap, inner: Wrap | None, module: nn.Module) -> nn.Module:
    """What the execution puts around the module, and DDP or FSDP around that."""
    return replicated(module if inner is None else inner(module))


def _weighted_ddp(module: nn.Module) -> nn.Module:
    """``module`` under DDP, with gradients averaged over rows instead of processes."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    wrapped = DistributedDataParallel(module)
    rows = torch.zeros(())

    def count(_: nn.Module, args: tuple[Any, ...]) -> None:
        rows.fill_(rows_of(args))

    def weighted(_, bucket):  # type: ignore[no-untyped-def]  # torch refuses string annotations
        total = rows.clone().to(bucket.buffer().device)
        dist.all_reduce(total)
        share = float(rows) / float(total)
        work = dist.all_reduce(bucket.buffer().mul_(share), async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    wrapped.register_forward_pre_hook(count)
    wrapped.register_comm_hook(None, weighted)
    return wrapped


def _weighted_fsdp(module: nn.Module) -> nn.Module:
    """``module`` under FSDP, with gradients averaged over rows instead of processes."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(module.parameters()).device.type
    fully_shard(module, mesh=init_device_mesh(device, (dist.get_world_size(),)))
    share = torch.ones(())

    def count(_: nn.Module, args: tuple[Any, ...]) -> None:
        rows = torch.tensor(float(rows_of(args)), device=device)
        total = rows.clone()
        dist.all_reduce(total)
        share.fill_(dist.get_world_size() * float(rows) / float(total))

    def weighted(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        # FSDP takes the mean over processes; what goes back into the module is scaled for it.
        own = float(share)
        for leaf in leaves(output):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                leaf.register_hook(lambda gradient: gradient * own)  # type: ignore[no-untyped-call]

    module.register_forward_pre_hook(count)
    module.register_forward_hook(weighted)
    return module


def _copies(tensors: Any) -> dict[str, Tensor]:
    whole = {n: t.full_tensor() if hasattr(t, "full_tensor") else t for n, t in tensors.items()}
    return {n: t.detach().cpu().clone() for n, t in whole.items() if t is not None}


def _gathered(shards: list[list[dict[str, Any]]]) -> Iterator[Step]:
    """One step from the same step of every process; the loss is the mean over all rows."""
    for parts in zip(*shards, strict=True):
        rows = sum(part["rows"] for part in parts)
        loss = sum(part["loss"].double() * part["rows"] for part in parts) / rows
        yield Step(loss, parts[0]["parameters"], gradients=parts[0]["gradients"])
