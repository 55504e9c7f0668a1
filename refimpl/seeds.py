"""One training run for each of many seeds, in processes of this machine or of a cluster.

joblib carries the work out; a seed that is done is handed over at once, whatever the others do.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refimpl.baselines import CURVE_POINTS, Run
from refimpl.data import Tier
from refimpl.errors import ContractError, MissingExtraError

if TYPE_CHECKING:
    from refimpl.contract import Variant
    from refimpl.training import History


@dataclass(frozen=True)
class Task:
    """Which variant to train on what: names, so that another process finds it for itself."""

    example: str
    variant: str
    tier: Tier
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Engine:
    """Who does the work: so many processes of this machine, or a Ray cluster at an address.

    ``address`` may be ``"local"``, which starts Ray on this machine.
    """

    workers: int
    address: str | None = None

    def __post_init__(self) -> None:
        if self.address is not None:
            _require_ray()


def run_seeds(work: Iterable[tuple[Task, int]], engine: Engine) -> Iterator[tuple[Task, Run]]:
    """Train each task with its seed; what is finished first comes first."""
    from joblib import Parallel, delayed, parallel_config

    if engine.address is not None:
        _connect(engine.address)
        configured = parallel_config(backend="ray", n_jobs=-1)
    else:
        configured = parallel_config(backend="loky", n_jobs=engine.workers, inner_max_num_threads=1)
    with configured:
        # A job is begun when another is done, so that what is handed over is on the disk by then.
        pool = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
        yield from pool(delayed(run_seed)(task, seed) for task, seed in work)


def run_seed(task: Task, seed: int) -> tuple[Task, Run]:
    """Train one variant with one seed, in whichever process this is."""
    import torch

    from refimpl import registry

    torch.set_num_threads(1)
    example = registry.load(task.plugins, only=[task.example]).example(task.example)
    try:
        return task, trained(example.variant(task.variant), task.tier, seed)
    except Exception as error:
        raise ContractError(
            f"{task.example} · {task.variant} · seed {seed}: {type(error).__name__}: {error}"
        ) from error


def trained(variant: Variant, tier: Tier, seed: int) -> Run:
    """Train a variant with a seed, here."""
    from refimpl.problem import pose
    from refimpl.training import train

    began = time.perf_counter()
    history = train(variant, pose(variant, tier, seed=seed))
    return as_run(history, seed, time.perf_counter() - began)


def as_run(history: History, seed: int, seconds: float) -> Run:
    """What a baseline keeps of a history."""
    kept = kept_epochs(len(history.epochs))
    curves = {
        name: tuple(history.epochs[epoch - 1].metrics[name] for epoch in kept)
        for name in history.epochs[-1].metrics
        if len(kept) > 1 and all(name in history.epochs[epoch - 1].metrics for epoch in kept)
    }
    return Run(seed, dict(history.final), curves, seconds)


def kept_epochs(count: int) -> Sequence[int]:
    """The epochs, from 1, of which a baseline keeps the figures: evenly spread, ends included."""
    if count <= CURVE_POINTS:
        return range(1, count + 1)
    return [1 + round(i * (count - 1) / (CURVE_POINTS - 1)) for i in range(CURVE_POINTS)]


def _require_ray() -> None:
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"ray is not to be had ({error}); python -m pip install 'refimpl[ray]'"
        ) from error


def _connect(address: str) -> None:
    import ray
    from ray.util.joblib import register_ray

    if not ray.is_initialized():
        ray.init(address=None if address == "local" else address, log_to_driver=False)
    register_ray()  # type: ignore[no-untyped-call, unused-ignore]
