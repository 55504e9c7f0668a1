"""Many training runs, each with its own seed, on this machine or on a cluster.

What is sent to another process is a job: some seeds of one variant. A job has many seeds if they
can be trained together (see :mod:`refimpl.executions.ensemble`), else one. The results of a job are
handed over as soon as it ends, without waiting for other jobs.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from refimpl import threads
from refimpl.baselines.committed import CURVE_POINTS, Run
from refimpl.data import Tier
from refimpl.errors import ContractError, MissingExtraError, RefimplError, one_line
from refimpl.processes import end_with_parent, safe_environment
from refimpl.training.curves import evenly_spaced

if TYPE_CHECKING:
    from refimpl.contract import Variant
    from refimpl.training.loop import History

AT_ONCE = 32
"""The most seeds that are trained together; further ones would gain nothing and take memory."""

RETRIES = 5
"""How often a job is restarted if the cluster loses the machine that had it."""


@dataclass(frozen=True)
class Task:
    """Which variant to train on which data, by name, so that another process can find it itself."""

    example: str
    variant: str
    tier: Tier
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """Seeds of one task that one process trains; several are trained together."""

    task: Task
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """Who does the work: ``workers`` processes of this machine, or the Ray cluster at ``address``.

    Without an ``address``, Ray starts a cluster of this machine alone. Of this machine's processes,
    each may take ``seconds`` for a seed.
    """

    workers: int
    kind: Literal["processes", "ray"] = "processes"
    address: str | None = None
    seconds: float = 3600.0

    def __post_init__(self) -> None:
        if self.kind == "ray":
            _require_ray()
        elif self.address is not None:
            raise RefimplError("--address is for a Ray cluster; add --engine ray")


def jobs(task: Task, seeds: Sequence[int], together: bool, workers: int) -> list[Job]:
    """The seeds of a task as jobs: one seed each, or ``together`` in equal parts for workers."""
    size = min(AT_ONCE, -(-len(seeds) // workers)) if together else 1
    return [Job(task, tuple(seeds[i : i + size])) for i in range(0, len(seeds), size)]


def run_jobs(work: Iterable[Job], engine: Engine) -> Iterator[tuple[Task, list[Run]]]:
    """Do every job; results come in the order in which jobs end."""
    on = _on_cluster if engine.kind == "ray" else _on_processes
    return on(work, engine)


def run_job(job: Job) -> tuple[Task, list[Run]]:
    """Train one variant with the seeds of a job, in the current process."""
    import torch

    from refimpl.loading import registry

    torch.set_num_threads(1)
    task = job.task
    example = registry.load(task.plugins, only=[task.example]).example(task.example)
    try:
        return task, train_seeds(example.variant(task.variant), task.tier, job.seeds)
    except Exception as error:
        named = ", ".join(map(str, job.seeds))
        raise ContractError(
            f"{task.example} · {task.variant} · seed {named}: {type(error).__name__}: {error}"
        ) from error


def train_seeds(variant: Variant, tier: Tier, seeds: Sequence[int]) -> list[Run]:
    """Train a variant with these seeds in the current process; several are trained together."""
    from refimpl.executions.ensemble import train_together
    from refimpl.training.loop import train
    from refimpl.training.problem import pose

    began = time.perf_counter()
    problems = [pose(variant, tier, seed=seed) for seed in seeds]
    if len(problems) == 1:
        histories = [train(variant, problems[0])]
    else:
        histories = train_together(variant, problems)
    seconds = (time.perf_counter() - began) / len(seeds)
    epochs = problems[0].protocol.epochs_on(tier)
    return [as_run(own, seed, seconds, epochs) for own, seed in zip(histories, seeds, strict=True)]


def as_run(history: History, seed: int, seconds: float, epochs: int) -> Run:
    """What a baseline keeps of a history; of a run that ended early, its end for what was left."""
    kept = kept_epochs(epochs)
    figures = [history.epochs[min(epoch, len(history.epochs)) - 1].metrics for epoch in kept]
    curves = {
        name: tuple(own[name] for own in figures)
        for name in history.epochs[-1].metrics
        if len(kept) > 1 and all(name in own for own in figures)
    }
    return Run(seed, dict(history.final), curves, seconds)


def kept_epochs(count: int) -> Sequence[int]:
    """The epochs (from 1) whose figures a baseline keeps: evenly spaced, ends included."""
    return [1 + index for index in evenly_spaced(count, CURVE_POINTS)]


# --- engines -------------------------------------------------------------------------------------


def _on_processes(work: Iterable[Job], engine: Engine) -> Iterator[tuple[Task, list[Run]]]:
    """Do the jobs in processes that end with this one.

    Raises :class:`RefimplError`, which names the seeds in flight, if a process dies or a job takes
    longer than its seeds may.
    """
    from joblib.externals.loky import TimeoutError as LokyTimeout
    from joblib.externals.loky import get_reusable_executor, wait
    from joblib.externals.loky.process_executor import BrokenProcessPool

    one = dict.fromkeys(threads.VARIABLES, "1")
    os.environ.update(safe_environment())  # loky's processes have that of this one
    pool = get_reusable_executor(
        max_workers=engine.workers,
        initializer=end_with_parent,
        initargs=(True, os.getpid()),
        env=one,
        reuse=False,
    )
    running: dict[Future[tuple[Task, list[Run]]], tuple[Job, float]] = {}
    pending = iter(work)
    try:
        while True:
            while len(running) < engine.workers and (job := next(pending, None)) is not None:
                limit = time.monotonic() + engine.seconds * len(job.seeds)
                running[pool.submit(run_job, job)] = job, limit
            if not running:
                return
            left = min(limit for _, limit in running.values()) - time.monotonic()
            done, _ = wait(running, timeout=max(0.0, left), return_when="FIRST_COMPLETED")
            if not done:
                late = [job for job, limit in running.values() if limit <= time.monotonic()]
                raise RefimplError(
                    f"{_named(late)}: not done after {engine.seconds:g} s for each seed; what was "
                    "finished is kept; give --timeout a longer time, or leave the variant out"
                )
            for future in done:
                try:
                    result = future.result()
                except (BrokenProcessPool, LokyTimeout) as error:
                    jobs_lost = [job for job, _ in running.values()]
                    raise RefimplError(
                        f"{_named(jobs_lost)}: a process died of one of these "
                        f"({one_line(error)[:120]}); what was finished is kept, and the same "
                        "command goes on"
                    ) from error
                del running[future]
                yield result
    finally:
        pool.shutdown(wait=False, kill_workers=True)


def _named(lost: Sequence[Job]) -> str:
    """The variants and seeds of jobs, as text."""
    return ", ".join(
        f"{job.task.example} · {job.task.variant} · seed {', '.join(map(str, job.seeds))}"
        for job in lost
    )


def _on_cluster(work: Iterable[Job], engine: Engine) -> Iterator[tuple[Task, list[Run]]]:
    """Do the jobs as Ray tasks: joblib's Ray back end returns nothing before the last job ends.

    A job whose machine is lost is restarted on another.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    if not ray.is_initialized():
        if engine.address is not None:
            _require_answer(engine.address)
        ray.init(address=engine.address, log_to_driver=False, logging_level=logging.ERROR)
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(run_job)
    running: list[ray.ObjectRef[tuple[Task, list[Run]]]] = []
    pending = iter(work)
    while True:
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call, unused-ignore]
        cores = max(1, int(resources.get("CPU", 1)))
        while len(running) < cores and (job := next(pending, None)) is not None:
            running.append(remote.remote(job))
        if not running:
            return
        done, running = ray.wait(running)
        try:
            yield from ray.get(done)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise RefimplError(f"a job was lost by the cluster: {error}") from error


def _require_answer(address: str) -> None:
    """Raise if no cluster answers; Ray itself tries for minutes and then ends the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise RefimplError(
            f"no Ray cluster answers at {address} ({error}); give its address as HOST:PORT"
        ) from error


def _require_ray() -> None:
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"ray cannot be imported ({error}); python -m pip install 'refimpl[ray]'"
        ) from error
