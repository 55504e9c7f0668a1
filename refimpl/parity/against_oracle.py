"""Compares a variant under an execution (device, precision, wrapper, processes) with its oracle.

The oracle is the variant's own float64 run on the CPU. How far rounding alone takes a float32 run
from it is measured twice: by the float32 run on the CPU, and by the oracle itself from a start
moved by half a unit in the last place of float32. The second also shows how long a run can be
compared at all: past the horizon, rounding errors have grown so much that agreement means nothing.

One float32 run is one draw. If a small gradient is the difference of large terms, or two pixels of
a pool are so nearly equal that rounding decides which is larger, the next draw may be ten times as
far away. So before a candidate that exceeds its budget counts as diverged, it is compared with
further draws: float32 runs from starts moved by half a unit, in which everything is rounded anew.
(A float64 candidate is compared with float64 runs, moved by half a unit of theirs: not every kernel
has the same errors in both, relative to the unit.)

Narrower precisions (bfloat16, float16) are judged by oracles moved by half a unit of their own:
errors of that size change the sign of units of a net that errors of float32's size do not. Only the
output, loss and gradients of the first step are judged. The first update of an adaptive optimizer
is ± its rate, by the sign of each gradient, and the sign of a gradient that is smaller than its
rounding error means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from refimpl.contract import Execution, Variant
from refimpl.data import Tier, philox
from refimpl.parity.lockstep import ORDER, Comparison, Draws, compare_steps, until_its_end
from refimpl.parity.trace import first_divergence_inside
from refimpl.training.comparison import Kind, distance, oracle_scale
from refimpl.training.loop import swiftly
from refimpl.training.problem import CPU, Problem, pose
from refimpl.training.trajectories import Observation, first_steps, observations

AMPLIFICATION = 1000.0
"""A run is compared for as long as it amplifies a change of its start by no more than this."""

DRAWS = 16
"""The most further float32 runs for a candidate that exceeds its budget without them. A candidate
that is just one more such draw is the furthest of them all in one case of eighteen; to diverge, it
must be ``FACTOR`` times as far away as all the others."""


@dataclass(frozen=True)
class Yardstick:
    """What every execution of a variant is compared with, step by step, up to the horizon."""

    problem: Problem
    oracle: tuple[list[Observation], ...]
    references: tuple[tuple[list[Observation], ...], ...]
    precision: torch.dtype

    @property
    def horizon(self) -> int:
        """How many steps can be compared."""
        return len(self.oracle)


@lru_cache(maxsize=4)
def yardstick(
    variant: Variant,
    tier: Tier,
    steps: int,
    seed: int | None = None,
    precision: torch.dtype = torch.float32,
) -> Yardstick:
    """The float64 oracle of the first steps and the references, cut at the horizon.

    ``precision`` is the dtype whose rounding the references show: float32 or a narrower one.
    """
    problem = pose(variant, tier, seed=seed, dropout=False)
    exact = problem.but(precision="float64")
    oracle = tuple(first_steps(variant, exact, steps))
    moved = [
        tuple(observations(variant, exact.but(values=_moved(problem.values, precision, k)), steps))
        for k in range(_oracles_moved(precision))
    ]
    horizon = _horizon(oracle, moved[0], precision)
    # A narrower run rounds in float32 too; where gradients cancel, only that rounding is left.
    references = [*moved, tuple(first_steps(variant, problem.but(precision="float32"), steps))]
    cut = tuple(reference[:horizon] for reference in references)
    return Yardstick(problem, oracle[:horizon], cut, precision)


def _oracles_moved(precision: torch.dtype) -> int:
    return 2 if is_narrow(precision) else 1


def redrawn(problem: Problem, precision: torch.dtype = torch.float32) -> Iterator[Problem]:
    """The problem on the CPU, each time from another start moved by half a unit.

    In float32, or in float64 if the unit is its own; a narrower unit is of a run in float32 too.
    """
    first = _oracles_moved(precision)
    computed = "float64" if precision == torch.float64 else "float32"
    for number in range(first, first + DRAWS):
        moved = _moved(problem.values, precision, number)
        yield problem.but(values=moved, precision=computed, execution=CPU)


def _moved(
    values: Mapping[str, NDArray[Any]], precision: torch.dtype, number: int
) -> dict[str, NDArray[Any]]:
    """Every value moved up or down by half a unit in the last place, at random."""
    half_unit = torch.finfo(precision).eps / 2
    moved = {}
    for name, value in values.items():
        up_or_down = philox("moved", name, number).choice((-1.0, 1.0), value.shape)
        moved[name] = value * (1 + half_unit * up_or_down)
    return moved


def _horizon(
    oracle: tuple[list[Observation], ...],
    perturbed: tuple[list[Observation], ...],
    precision: torch.dtype,
) -> int:
    """The number of steps before the perturbation grows past the limit; at least one."""
    limit = AMPLIFICATION * torch.finfo(precision).eps
    for number, (expected, found) in enumerate(zip(oracle, perturbed, strict=True)):
        values = {seen.key: seen.value for seen in found}
        for seen in expected:
            if seen.kind != "parameter":
                continue
            scale = oracle_scale(seen.value)
            if distance(values[seen.key], seen.value) > limit * scale > 0:
                return max(number, 1)
    return len(oracle)


def is_narrow(precision: torch.dtype) -> bool:
    """Whether a dtype has fewer digits than float32."""
    return torch.finfo(precision).eps > torch.finfo(torch.float32).eps


def kinds_seen(execution: Execution) -> tuple[Kind, ...]:
    """The kinds of tensors of a step that can be compared under an execution."""
    seen = [kind for kind in ORDER if kind != "output" or execution.sees_outputs]
    if is_narrow(precision_of(execution)):
        seen.remove("parameter")
    return tuple(seen)


def precision_of(execution: Execution) -> torch.dtype:
    """The dtype by whose rounding an execution is judged."""
    dtype: torch.dtype = getattr(torch, execution.rounding or execution.dtype or "float32")
    return dtype


def compare_execution(
    variant: Variant, execution: Execution, tier: Tier, steps: int, seed: int | None = None
) -> Comparison:
    """Run a variant under an execution and compare each step with the oracle.

    A step that diverges is replayed with every module's inputs and outputs recorded, to name the
    first module that diverges.
    """
    judged_by = precision_of(execution)
    if is_narrow(judged_by):
        stick = yardstick(variant, tier, 1, seed, judged_by)
    else:
        stick = yardstick(variant, tier, steps, seed)
    candidate = stick.problem.but(
        execution=execution, precision=execution.dtype or "float32", horizon=stick.horizon
    )
    if not is_narrow(judged_by):
        # On the plain CPU that means the kernels of whole runs; the references do without them.
        candidate = swiftly(candidate)
    drawn_in = judged_by if judged_by == torch.float64 else stick.precision
    found, references = _without_repeats(
        observations(variant, candidate, stick.horizon), stick.references
    )
    comparison = compare_steps(
        Comparison(
            f"{variant.name} on {execution.name}",
            "its float64 oracle",
            _in(execution),
            repeats_a_reference=len(references) < len(stick.references),
            until=_until(stick, steps, judged_by),
        ),
        found,
        stick.oracle,
        Draws(references, stick.precision),
        judged_by,
        kinds_seen(execution),
        Draws(_further_runs(variant, stick, drawn_in), drawn_in),
    )
    if comparison.divergence is not None:
        where = first_divergence_inside(
            variant, candidate, stick.problem, comparison.divergence.step, judged_by
        )
        comparison.divergence = replace(comparison.divergence, inside=where)
    return comparison


def _until(stick: Yardstick, steps: int, judged_by: torch.dtype) -> str:
    """Why fewer steps are compared than requested, if so."""
    if stick.horizon >= steps:
        return ""
    if is_narrow(judged_by):
        return "since a narrow precision is judged by the first alone"
    return until_its_end(stick.problem, steps) or "past which rounding errors have grown too large"


def _without_repeats(
    candidate: Iterator[list[Observation]], references: Sequence[tuple[list[Observation], ...]]
) -> tuple[Iterator[list[Observation]], Sequence[tuple[list[Observation], ...]]]:
    """The candidate, and the references that do not have its first step to the bit.

    Anything agrees with itself, so a repeated reference would prove nothing.
    """
    first = next(candidate, None)
    if first is None:
        return candidate, references
    others = [own for own in references if not _to_the_bit(first, own[0])]
    return chain([first], candidate), others


def _to_the_bit(one: list[Observation], other: list[Observation]) -> bool:
    values = {seen.key: seen.value for seen in other}
    return all(seen.key in values and torch.equal(seen.value, values[seen.key]) for seen in one)


def _further_runs(
    variant: Variant, stick: Yardstick, precision: torch.dtype
) -> Iterator[Iterable[list[Observation]]]:
    """The runs that are made only for a candidate that exceeds its budget without them."""
    for problem in redrawn(stick.problem, precision):
        yield observations(variant, problem, stick.horizon)


@contextmanager
def wrapped_calls(execution: Execution) -> Iterator[tuple[Execution, list[str]]]:
    """The execution, and a list that gets the class name of every module that it wraps."""
    calls: list[str] = []
    wrap = execution.wrap
    if wrap is None:
        yield execution, calls
        return

    def counted(module: nn.Module) -> nn.Module:
        calls.append(type(module).__name__)
        return wrap(module)

    yield replace(execution, wrap=counted), calls


def _in(execution: Execution) -> str:
    return execution.rounding or execution.dtype or "float32"


@dataclass(frozen=True)
class Sharded:
    """Gradients of the first batch: whole, as the weighted mean over its shards, and in float32.

    All but the last are in float64. ``rows`` are those of each shard, ``shown`` those that its
    output has; there are none if the variant shows no output.
    """

    whole: list[Observation]
    mean: list[Observation]
    rounded: list[Observation]
    rows: tuple[int, ...]
    shown: tuple[int, ...]


def shard_gradients(
    variant: Variant,
    tier: Tier,
    shards: int,
    seed: int | None = None,
    execution: Execution = CPU,
) -> Sharded:
    """Split the first batch into ``shards`` parts and make the first step of each.

    Data parallelism requires that the mean of the gradients is that of the whole batch; it is not
    if a loss or a layer computes across the rows of a batch.
    """
    problem = pose(
        variant, tier, seed=seed, dropout=False, horizon=1, execution=execution, precision="float64"
    )
    # The mean of clipped gradients is not the clipped mean.
    problem = problem.but(protocol=replace(problem.protocol, clip=None))
    whole = _gradients(next(observations(variant, problem, 1)))
    shards = min(shards, problem.batch_size)
    together = min(problem.protocol.accumulate, problem.batches_per_epoch)
    rows = tuple(together * len(range(rank, problem.batch_size, shards)) for rank in range(shards))
    steps = [
        next(observations(variant, problem.but(shard=(rank, shards)), 1)) for rank in range(shards)
    ]
    outputs = ([seen for seen in step if seen.kind == "output"] for step in steps)
    shown = tuple(len(of_step[0].value) for of_step in outputs if of_step)
    parts = [_gradients(step) for step in steps]
    mean = []
    for number, seen in enumerate(whole):
        weighted = [part[number].value * n for part, n in zip(parts, rows, strict=True)]
        mean.append(replace(seen, value=torch.stack(weighted).sum(dim=0) / sum(rows)))
    rounded = _gradients(next(observations(variant, problem.but(precision="float32"), 1)))
    return Sharded(whole, mean, rounded, rows, shown)


def _gradients(step: list[Observation]) -> list[Observation]:
    return [seen for seen in step if seen.kind == "gradient"]
