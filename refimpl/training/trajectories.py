"""The tensors of the first steps of a run, computed once for all checks that need them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from refimpl.contract import Step, Variant
from refimpl.training.comparison import Kind
from refimpl.training.ladder import to_ladder
from refimpl.training.loop import steps_of
from refimpl.training.problem import Problem
from refimpl.trees import dense, named_leaves

KEPT = 10
"""How many trajectories are kept: the oracle, its two draws and the float32 run of a ladder's first
variant and of the current one, and some. For a large net, one takes a hundred megabytes."""

_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Observation:
    """One tensor of one step, in float64 on the CPU, under its ladder's name."""

    kind: Kind
    name: str
    value: Tensor

    @property
    def key(self) -> tuple[Kind, str]:
        """What identifies it in a comparison."""
        return self.kind, self.name


def observe(variant: Variant, step: Step) -> list[Observation]:
    """Every tensor of a step that can be compared, in the order in which they are computed."""
    seen = [
        Observation("output", name, plain(value))
        for name, value in named_leaves(step.output)
        if value is not None
    ]
    seen.extend(Observation("loss", name, plain(loss)) for name, loss in step.losses.items())
    parameters = {bare_name(name): value for name, value in step.parameters.items()}
    gradients = {bare_name(name): value for name, value in step.used_gradients().items()}
    tensors: tuple[tuple[Kind, dict[str, Tensor]], ...] = (
        ("gradient", to_ladder(variant, _all_plain(gradients))),
        ("parameter", to_ladder(variant, _all_plain(parameters))),
    )
    for kind, named in tensors:
        seen.extend(Observation(kind, name, value) for name, value in sorted(named.items()))
    buffers = step.module.named_buffers() if step.module is not None else ()
    seen.extend(Observation("buffer", bare_name(name), plain(own)) for name, own in buffers)
    return seen


def observations(variant: Variant, problem: Problem, steps: int) -> Iterator[list[Observation]]:
    """The observations of each of the first steps of a run."""
    return (observe(variant, step) for step in steps_of(variant, problem, steps))


def bare_name(name: str) -> str:
    """A parameter's name without what wrappers such as DataParallel put before it."""
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def plain(value: Tensor | float) -> Tensor:
    """A float64 copy on the CPU that later steps do not change; dense, if it was sparse."""
    return dense(torch.as_tensor(value).detach()).to("cpu", torch.float64, copy=True)


def _all_plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: plain(value) for name, value in tensors.items()}


# --- kept ----------------------------------------------------------------------------------------


@dataclass
class _Trajectory:
    """What has been seen of a run so far, and an iterator over its further steps.

    ``variant`` and ``problem`` are kept so that their ids are not reused.
    """

    variant: Variant
    problem: Problem
    further: Iterator[list[Observation]]
    seen: list[list[Observation]] = field(default_factory=list)


_kept: OrderedDict[Hashable, _Trajectory] = OrderedDict()


def first_steps(variant: Variant, problem: Problem, count: int) -> list[list[Observation]]:
    """Like :func:`observations`, but a run that is kept is only continued as far as needed.

    Not for checks of a rerun. Raises what the run raises; the next call then restarts the run.
    """
    if problem.execution.steps is not None or problem.checkpoint is not None:
        return list(observations(variant, problem, count))

    def further() -> Iterator[list[Observation]]:
        return (observe(variant, step) for step in steps_of(variant, problem))

    return continued(_key(variant, problem), variant, problem, further, count)


def first_draws(
    variant: Variant,
    problem: Problem,
    count: int,
    kind: Hashable,
    further: Callable[[], Iterator[list[Observation]]],
) -> list[list[Observation]]:
    """The same for runs of the problem that are made in another way, which ``kind`` identifies."""
    return continued((kind, _key(variant, problem)), variant, problem, further, count)


def continued(
    key: Hashable,
    variant: Variant,
    problem: Problem,
    further: Callable[[], Iterator[list[Observation]]],
    count: int,
) -> list[list[Observation]]:
    """The first steps of the run of this key, continued as far as needed."""
    if key not in _kept:
        _kept[key] = _Trajectory(variant, problem, further())
    _kept.move_to_end(key)
    while len(_kept) > KEPT:
        _kept.popitem(last=False)
    own = _kept[key]
    try:
        own.seen.extend(islice(own.further, max(0, count - len(own.seen))))
    except BaseException:
        del _kept[key]
        raise
    return own.seen[:count]


def forget() -> None:
    """Keep no trajectory any longer, so that each is made anew."""
    _kept.clear()


def _key(variant: Variant, problem: Problem) -> Hashable:
    """Everything that decides a run, except a checkpoint to begin from."""
    start = hashlib.sha256()
    for name, value in sorted(problem.values.items()):
        start.update(name.encode())
        start.update(np.ascontiguousarray(value, dtype=np.float64).tobytes())
    own = problem
    return (
        id(variant), id(own.data), own.tier, own.protocol, own.seed, id(own.execution),
        own.precision, own.dropout, own.shard, own.swift, own.most_rows, id(own.collate),
        start.digest(),
    )  # fmt: skip
