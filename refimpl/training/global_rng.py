"""Finds out whether a computation draws from a generator that its seed does not control.

Start, batches and data come from :func:`refimpl.data.philox`, so that one seed means the same on
every machine and version. The seeds that the training loop sets would hide a draw from a global
generator; it shows when those generators are seeded differently.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from refimpl.composition import CPU
from refimpl.contract import Execution, Step, Variant
from refimpl.data import Tier
from refimpl.training.loop import written_steps
from refimpl.training.problem import Problem, pose, start_values
from refimpl.training.trajectories import observe

STEPS = 3
"""How many updates are made to see whether they draw from a global generator."""

Numbers = Sequence[NDArray[Any]]

NOBODY_SEEDS = "a source that is not seeded: a rerun differs"


@dataclass(frozen=True)
class Generator:
    """A global generator: how to seed it, and its state in a form that can be compared."""

    name: str
    seed: Callable[[int], object]
    state: Callable[[], object]


def _cuda_devices() -> list[int]:
    """The devices that this process uses; the query itself must not initialise CUDA."""
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return list(range(torch.cuda.device_count())) if begun else []


def _state_of_torch() -> tuple[bytes, ...]:
    """Of the CPU and of every GPU: ``torch.manual_seed`` seeds them all."""
    of_gpus = [torch.cuda.get_rng_state(device) for device in _cuda_devices()]
    return tuple(bytes(state) for state in (torch.get_rng_state(), *of_gpus))


GENERATORS = (
    Generator("torch's global generator", torch.manual_seed, _state_of_torch),
    Generator("NumPy's global generator", np.random.seed, lambda: str(np.random.get_state())),
    Generator("Python's global generator", random.seed, random.getstate),
)


def draws_from(compute: Callable[[], Numbers]) -> list[str]:
    """Which of the global generators the numbers returned by ``compute()`` are drawn from.

    It is called two to six times. A generator that it only touches is not named, for example
    when layers are constructed and their parameters then overwritten. The generators' states are
    restored afterwards.
    """
    with _left_alone():
        first, touched = _under(compute)
        if _equal(first, _under(compute, others=touched)[0]):
            return []
        again, _ = _under(compute)
        if not _equal(first, again):
            return [NOBODY_SEEDS]
        return [
            generator.name
            for generator in touched
            if not _equal(first, _under(compute, others=[generator])[0])
        ] or [NOBODY_SEEDS]  # for they did differ


def start_draws_from(variant: Variant) -> list[str]:
    """Which global generators the start of a variant is drawn from."""
    return draws_from(lambda: list(start_values(variant, 0).values()))


def steps_draw_from(variant: Variant, tier: Tier, execution: Execution = CPU) -> list[str]:
    """Which global generators a variant's first steps draw from, without dropout."""
    problem = _Unseeding.of(pose(variant, tier, seed=0, dropout=False, execution=execution))
    return draws_from(lambda: _first_steps(variant, problem))


class _Unseeding(Problem):
    """A problem that does not seed torch's global generator, so that draws from it show."""

    @classmethod
    def of(cls, problem: Problem) -> _Unseeding:
        return cls(**{f.name: getattr(problem, f.name) for f in fields(problem)})

    @property
    def generator(self) -> torch.Generator:
        """One that nothing draws from, to be seeded instead."""
        return torch.Generator()


def _first_steps(variant: Variant, problem: Problem) -> list[NDArray[Any]]:
    """Every number of the first steps, without the seeds that the training loop sets."""
    steps = (step for step in written_steps(variant, problem) if isinstance(step, Step))
    return [seen.value.numpy() for step in islice(steps, STEPS) for seen in observe(variant, step)]


def _under(
    compute: Callable[[], Numbers], others: Collection[Generator] = ()
) -> tuple[Numbers, list[Generator]]:
    """The numbers with every generator seeded, ``others`` differently; and the ones it touched."""
    for generator in GENERATORS:
        generator.seed(2 if generator in others else 1)
    before = [generator.state() for generator in GENERATORS]
    numbers = compute()
    touched = [g for g, state in zip(GENERATORS, before, strict=True) if g.state() != state]
    return numbers, touched


def _equal(some: Numbers, others: Numbers) -> bool:
    return len(some) == len(others) and all(
        np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
        for one, other in zip(some, others, strict=True)
    )


@contextmanager
def _left_alone() -> Iterator[None]:
    of_numpy, of_python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=_cuda_devices()):
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)
