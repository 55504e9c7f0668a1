"""Compares a variant under an execution (device, precision, wrapper, processes) with its oracle.

The oracle is the variant's own float64 run on the CPU. How far rounding alone takes a correct run
from it is shown by draws of that oracle (:mod:`refimpl.parity.rounding`), and by nothing else: a
run of the build that is judged would widen its own budget by its own fault. They also show how long
a run can be compared at all: past the horizon, rounding errors have grown so much that agreement
means nothing.

A few draws may all miss what rounding does rarely: two pixels of a pool may be so nearly equal that
rounding decides which is larger, or a gradient so small that rounding decides its sign. So before a
candidate that exceeds its budget counts as diverged, it is compared with further draws of the
oracle, and then with some in which each such decision falls to the other side
(:mod:`refimpl.parity.ties`). Those decisions are named.

Narrower precisions (bfloat16, float16) are judged by draws moved by half a unit of their own, each
step from the oracle's parameters (:mod:`refimpl.parity.narrow`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, islice

import torch
from torch import nn

from refimpl.composition import CPU, precision_of
from refimpl.contract import Execution, Variant
from refimpl.data import Tier
from refimpl.parity import narrow
from refimpl.parity.lockstep import (
    FIRST,
    FURTHER,
    ORDER,
    Comparison,
    Draws,
    TieDraw,
    compare_steps,
    drawn_at_ties,
    drawn_in_reserve,
    require_finite,
    until_its_end,
)
from refimpl.parity.rounding import first_drawn
from refimpl.parity.trace import first_divergence_inside
from refimpl.training import trajectories
from refimpl.training.comparison import Kind, distance, oracle_scale
from refimpl.training.ladder import to_ladder
from refimpl.training.loop import swiftly
from refimpl.training.problem import Problem, pose
from refimpl.training.trajectories import Observation, first_steps, observations

AMPLIFICATION = 1000.0
"""A run is compared for as long as it amplifies a change of its start by no more than this."""


@dataclass(frozen=True)
class Yardstick:
    """What every execution of a variant is compared with, step by step, up to the horizon.

    ``beyond`` are the oracle's steps past the horizon, which only say what must be finite.
    """

    problem: Problem
    oracle: tuple[list[Observation], ...]
    references: tuple[tuple[list[Observation], ...], ...]
    beyond: tuple[list[Observation], ...] = ()

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
) -> Yardstick:
    """The float64 oracle of the first steps and draws of it in float32, cut at the horizon."""
    problem = pose(variant, tier, seed=seed, dropout=False)
    exact = problem.but(precision="float64")
    oracle = first_steps(variant, exact, steps)
    draws: tuple[list[list[Observation]], ...] = ([],) * FIRST
    horizon = 0
    for number, expected in enumerate(oracle, start=1):
        draws = tuple(first_drawn(variant, exact, k, number) for k in range(FIRST))
        if horizon and _grown(expected, [draw[-1] for draw in draws]):
            break
        horizon = number
    references = tuple(tuple(draw[:horizon]) for draw in draws)
    within, beyond = tuple(oracle[:horizon]), tuple(oracle[horizon:])
    return Yardstick(problem, within, references, beyond)


def forget() -> None:
    """Keep no oracle and no draw any longer, so that each is made anew."""
    yardstick.cache_clear()
    trajectories.forget()


def _grown(oracle: list[Observation], draws: Sequence[list[Observation]]) -> bool:
    """Whether rounding has taken a parameter past the limit."""
    limit = AMPLIFICATION * torch.finfo(torch.float32).eps
    for draw in draws:
        values = {seen.key: seen.value for seen in draw}
        for seen in oracle:
            if seen.kind != "parameter":
                continue
            scale = oracle_scale(seen.value)
            if distance(values[seen.key], seen.value) > limit * scale > 0:
                return True
    return False


def is_narrow(precision: torch.dtype) -> bool:
    """Whether a dtype has fewer digits than float32."""
    return torch.finfo(precision).eps > torch.finfo(torch.float32).eps


def kinds_seen(execution: Execution) -> tuple[Kind, ...]:
    """The kinds of tensors of a step that can be compared under an execution."""
    seen = [kind for kind in ORDER if kind != "output" or execution.sees_outputs]
    if is_narrow(precision_of(execution)):
        seen.remove("parameter")
        seen.remove("buffer")
    elif execution.steps is not None:
        seen.remove("buffer")  # processes of their own show parameters alone
    return tuple(seen)


def compare_execution(
    variant: Variant, execution: Execution, tier: Tier, steps: int, seed: int | None = None
) -> Comparison:
    """Run a variant under an execution and compare each step with the oracle.

    A step that diverges is replayed with every module's inputs and outputs recorded, to name the
    first module that diverges.
    """
    judged_by = precision_of(execution)
    if is_narrow(judged_by):
        return _compare_narrow(variant, execution, tier, seed)
    stick = yardstick(variant, tier, steps, seed)
    # On the plain CPU that means the kernels of whole runs, which the oracle does without.
    candidate = swiftly(
        stick.problem.but(
            execution=execution,
            precision=execution.dtype or "float32",
            horizon=stick.horizon + len(stick.beyond),
        )
    )
    found = observations(variant, candidate, stick.horizon + len(stick.beyond))
    comparison = Comparison(
        f"{variant.name} on {execution.name}",
        "its float64 oracle",
        _in(execution),
        until=_until(stick, steps),
    )
    compare_steps(
        comparison,
        islice(found, stick.horizon),
        stick.oracle,
        Draws(stick.references),
        judged_by,
        kinds_seen(execution),
        drawn_in_reserve(variant, stick.problem),
        partial(drawn_at_ties, variant, stick.problem, torch.float32, None),
    )
    if comparison.divergence is None:
        require_finite(comparison, found, stick.beyond, kinds_seen(execution))
    return _placed(comparison, variant, candidate, stick.problem, judged_by)


def _compare_narrow(
    variant: Variant, execution: Execution, tier: Tier, seed: int | None
) -> Comparison:
    """Compare the first steps, each from the oracle's parameters, and the size of each update."""
    judged_by = precision_of(execution)
    own = torch.float32 if execution.dtype is None else judged_by
    products_in = judged_by if execution.dtype is None else None
    problem = pose(variant, tier, seed=seed, dropout=False)
    # Processes of their own cannot be set back.
    steps = 1 if execution.steps is not None else min(narrow.STEPS, problem.length)
    oracle = first_steps(variant, problem.but(precision="float64"), steps)
    steps = len(oracle)
    candidate = problem.but(
        execution=execution, precision=execution.dtype or "float32", horizon=steps
    )
    comparison = Comparison(
        f"{variant.name} on {execution.name}",
        "its float64 oracle",
        _in(execution),
        until="each from the oracle's parameters" if steps > 1 else "",
    )
    start = {name: torch.as_tensor(value) for name, value in problem.values.items()}
    updates = narrow.Updates(to_ladder(variant, start), oracle, torch.finfo(own).eps)
    found = iter(updates.of_candidate(narrow.restarted(variant, candidate, oracle)))
    if (first := next(found, None)) is not None:
        comparison.within_float32 = _within_float32(variant, execution, tier, seed, first)
        found = chain([first], found)

    def drawn(number: int) -> Iterator[list[Observation]]:
        return updates.of_draw(narrow.draw(variant, problem, oracle, number, own, products_in))

    def at_ties(step: int) -> Iterator[TieDraw]:
        return drawn_at_ties(variant, problem, own, products_in, step) if step == 1 else iter(())

    compare_steps(
        comparison,
        found,
        oracle,
        Draws(tuple(drawn(number) for number in range(FIRST)), judged_by),
        judged_by,
        kinds_seen(execution),
        (drawn(number) for number in range(FIRST, FIRST + FURTHER)),
        at_ties,
    )
    if comparison.divergence is None:
        comparison.skipped = updates.skipped()
        return comparison
    if comparison.divergence.step > 1:
        return comparison
    return _placed(comparison, variant, candidate, problem, judged_by)


def _placed(
    comparison: Comparison,
    variant: Variant,
    candidate: Problem,
    problem: Problem,
    judged_by: torch.dtype,
) -> Comparison:
    """Say inside which module a divergence begins, if there is one."""
    if comparison.divergence is not None:
        where = first_divergence_inside(
            variant, candidate, problem, comparison.divergence.step, judged_by
        )
        comparison.divergence = replace(comparison.divergence, inside=where)
    return comparison


def _until(stick: Yardstick, steps: int) -> str:
    """Why fewer steps are compared than requested, if so."""
    if stick.horizon >= steps:
        return ""
    return until_its_end(stick.problem, steps) or "past which rounding errors have grown too large"


def _within_float32(
    variant: Variant,
    execution: Execution,
    tier: Tier,
    seed: int | None,
    first: list[Observation],
) -> bool:
    """Whether a first step is no further from the oracle than rounding to float32 explains."""
    stick = yardstick(variant, tier, 1, seed)
    exactly = Comparison(f"{variant.name} on {execution.name}", "its float64 oracle", "float32")
    draws, kinds = Draws(stick.references), kinds_seen(execution)
    return compare_steps(exactly, [first], stick.oracle, draws, torch.float32, kinds).agrees


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
    """Gradients of the first batch: whole, as the weighted mean over its shards, and drawn.

    ``drawn`` are those of the whole batch as rounding to float32 may make them. ``rows`` are those
    of each shard, ``shown`` those that its output has; there are none if the variant shows no
    output.
    """

    whole: list[Observation]
    mean: list[Observation]
    drawn: list[list[Observation]]
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
    drawn = [_gradients(first_drawn(variant, problem, k, 1)[0]) for k in range(FIRST)]
    return Sharded(whole, mean, drawn, rows, shown)


def _gradients(step: list[Observation]) -> list[Observation]:
    return [seen for seen in step if seen.kind == "gradient"]
