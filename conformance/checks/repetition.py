"""The same run again: from its seed, from its checkpoint, from the middle."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from refimpl.checking.checks import Measurement, Subject, check, equal, true
from refimpl.contract import Variant
from refimpl.errors import ContractError
from refimpl.reproducible import by_default, irreproducible, reproducible
from refimpl.training.checkpoint import Checkpoint, load, save, take
from refimpl.training.global_rng import start_draws_from, steps_draw_from
from refimpl.training.loop import predictor, steps_of
from refimpl.training.problem import Problem, pose
from refimpl.training.trajectories import Observation, first_steps, observations, observe
from refimpl.trees import leaves

STEPS = 12
"""Enough steps to see a difference, and to stop in the middle."""

FEW = 2
"""Enough steps to see that it is another run."""

EPOCHS, UPDATES, FEW_ROWS = 4, 3, 8
"""How many epochs a run resumed across their borders has, of how many updates each, and the most
rows in a batch of it."""

AT_REST = 1e-300
"""A learning rate that moves nothing; not every optimizer takes zero."""

ROWS = 64
"""Rows that are predicted."""


@check(
    "same-seed-same-bits",
    reading="an operation is not deterministic, or something is drawn from another source than "
    "the seed",
)
def same_seed_same_bits(subject: Subject) -> Iterator[Measurement]:
    """Is a rerun with the same seed equal to the last bit, and a run with another seed not?"""
    variant, own = subject.trained, subject.trained.seed
    problem, elsewhere = (
        pose(variant, subject.tier, seed=seed, execution=subject.execution)
        for seed in (own, own + 1)
    )
    first = _everything(first_steps(variant, problem, STEPS))
    again = _everything(observations(variant, problem, STEPS))
    other = _everything(observations(variant, elsewhere, FEW))
    different = [name for name in first if not _same_bits(first[name], again[name])]
    yield _none_of("tensors that differ in a rerun", different, "a rerun differs")
    same = [n for n in other if n.startswith("loss") and _same_bits(first[n], other[n])]
    yield true(
        "another seed is another run",
        len(same) < sum(n.startswith("loss") for n in other),
        f"seed {own + 1} gives the losses of seed {own}: the seed decides nothing",
    )
    alike = all(np.array_equal(start, elsewhere.values[n]) for n, start in problem.values.items())
    message = f"seed {own + 1} starts where seed {own} does"
    yield true("another seed starts elsewhere", not alike, message)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether they are equal; NaN equals NaN, since other checks report what is not finite."""
    if one.shape != other.shape:
        return False
    return bool(torch.isclose(one, other, rtol=0, atol=0, equal_nan=True).all())


def _everything(steps: Iterable[list[Observation]]) -> dict[str, Tensor]:
    """Every tensor of some steps, by kind, name and step."""
    return {
        f"{_label(seen)} of step {number}": seen.value
        for number, step in enumerate(steps, start=1)
        for seen in step
    }


def _none_of(what: str, different: list[str], wrong: str) -> Measurement:
    """That nothing differs; if something does, ``wrong`` and the first few of it say so."""
    more = f" and {len(different) - 3} more" if len(different) > 3 else ""
    message = f"{wrong}: {', '.join(different[:3])}{more}"
    return replace(equal(what, different, []), message=message if different else "")


@check(
    "spread-by-default",
    applies=lambda subject: subject.execution.device != "cpu",
    reading="it only says how far apart two runs are when kernels are not asked to be reproducible",
)
def spread_by_default(subject: Subject) -> Iterator[Measurement]:
    """How far apart are two runs of one seed in torch's default mode, in units of rounding?

    A figure and no limit: torch's documentation says that such runs differ. The operations that
    have no reproducible kernel at all are named.
    """
    variant = subject.trained
    problem = pose(variant, subject.tier, seed=variant.seed, execution=subject.execution)
    with by_default():
        first, again = (_everything(observations(variant, problem, STEPS)) for _ in range(2))
    apart, furthest = max(((_units_apart(first[n], again[n]), n) for n in first), default=(0.0, ""))
    what = "units of rounding between two runs of one seed, in the default mode"
    yield Measurement(what, apart, "counted", True, where=furthest if apart else "")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with reproducible(subject.execution.device):
            _everything(observations(variant, problem, FEW))
    without = irreproducible(str(each.message) for each in seen)
    what = "operations without a reproducible kernel"
    yield Measurement(what, len(without), "counted", True, where=", ".join(without))


def _units_apart(one: Tensor, other: Tensor) -> float:
    """The largest difference of two tensors, in units of float32 of the largest value of one."""
    scale = float(one.abs().max()) if one.numel() else 0.0
    if not scale:
        return float("inf") if bool(other.any()) else 0.0
    return float((one - other).abs().max()) / (scale * float(torch.finfo(torch.float32).eps))


@check(
    "seed-decides-everything",
    reading="something is drawn from a global generator; draw it from the generator of the problem",
)
def seed_decides_everything(subject: Subject) -> Iterator[Measurement]:
    """Are all random numbers of start and steps drawn from generators that the seed controls?

    Draws from a global generator do repeat, since the training loop seeds it, but they differ on
    another version or device.
    """
    start = start_draws_from(subject.trained)
    yield equal("what else the start is drawn from", start, [])
    steps = steps_draw_from(subject.trained, subject.tier, subject.execution)
    yield equal("what else the steps draw from", steps, [])


@check(
    "checkpoint-predicts-the-same",
    reading="something that the model needs is not in its state dict",
)
def checkpoint_predicts_the_same(subject: Subject) -> Iterator[Measurement]:
    """Does a checkpoint load with ``weights_only`` and predict the same, to the last bit?"""
    variant = subject.trained
    problem = pose(variant, subject.tier, seed=variant.seed, execution=subject.execution)
    *_, last = steps_of(variant, problem, FEW)
    number = min(FEW, problem.length)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        save(take(last, number), path)
        loaded = load(path)
    yield equal("step", loaded.step, number)
    for name, value in last.parameters.items():
        stored = torch.from_numpy(loaded.parameters[name])
        yield true(
            f"{name} as saved",
            torch.equal(stored, torch.as_tensor(value).detach().cpu()),
            f"{name} is not what was saved",
        )
    rows = problem.sample(ROWS)
    with predictor(variant, last) as predict:
        before = predict(rows)
    after = _predict_from(subject, problem, loaded, rows)
    apart = [
        float((one.cpu().double() - other.cpu().double()).abs().max())
        for one, other in zip(leaves(before), leaves(after), strict=True)
        if not torch.equal(one, other)
    ]
    yield true(
        "predictions",
        not apart,
        f"predictions differ by up to {max(apart, default=0.0):.3g} after loading",
    )


def _predict_from(subject: Subject, problem: Problem, checkpoint: Checkpoint, rows: Any) -> Any:
    """Predictions of the model with the checkpoint's parameters, without further training.

    A learning rate of next to zero lets the variant itself build its model around them; the
    generator is left at the first step, so that nothing else changes.
    """
    frozen = replace(problem.protocol, learning_rate=AT_REST)
    weights_only = Checkpoint(0, checkpoint.parameters, checkpoint.buffers, parameters_only=True)
    still = problem.but(protocol=frozen, checkpoint=weights_only)
    step = next(steps_of(subject.trained, still, 1), None)
    if step is None:
        raise ContractError("the run from a checkpoint yields no step")
    if step.module is not None:
        with torch.no_grad():  # running statistics have seen one more batch
            for name, buffer in step.module.named_buffers():
                buffer.copy_(checkpoint.buffers[name])
    for name, kept in step.state.items():  # and averages of the weights one more update
        if isinstance(kept, nn.Module):
            kept.load_state_dict(checkpoint.state[name])
    with predictor(subject.trained, step) as predict:
        return predict(rows)


@check(
    "resumed-run-is-the-same",
    reading="the optimizer's state, or the place in the data, is not in the checkpoint",
)
def resumed_run_is_the_same(subject: Subject) -> Iterator[Measurement]:
    """Does a run resumed from a checkpoint match the uninterrupted run, to the last bit?"""
    variant = subject.trained
    problem = pose(variant, subject.tier, seed=variant.seed, execution=subject.execution)
    steps = min(STEPS, problem.length)
    if steps < 2:
        raise ContractError("the run has only one update, so it cannot be resumed; train longer")
    whole = first_steps(variant, problem, steps)
    *_, last = steps_of(variant, problem, steps // 2)
    yield from _resumed(variant, problem, whole, take(last, steps // 2), "step")
    short = _with_short_epochs(problem)
    if short is not None:
        whole, checkpoints = _with_checkpoints_about_a_border(variant, short)
        for checkpoint in checkpoints:
            where = f"short epochs, from {checkpoint.step}: step"
            yield from _resumed(variant, short, whole, checkpoint, where)


def _with_checkpoints_about_a_border(
    variant: Variant, short: Problem
) -> tuple[list[list[Observation]], list[Checkpoint]]:
    """The first epochs, and checkpoints before, at and after the end of the first of them."""
    length = min(EPOCHS * short.steps_per_epoch, short.length)
    border = short.steps_per_epoch
    stops = {max(border - 1, 1), border, border + 1} - {length}
    whole, checkpoints = [], []
    for number, step in enumerate(steps_of(variant, short, length), 1):
        whole.append(observe(variant, step))
        if number in stops:
            checkpoints.append(take(step, number))
    return whole, checkpoints


def _resumed(
    variant: Variant,
    problem: Problem,
    whole: list[list[Observation]],
    checkpoint: Checkpoint,
    where: str,
) -> Iterator[Measurement]:
    """Whether the run from a checkpoint goes on as the whole run did."""
    stop = checkpoint.step
    resumed = problem.but(checkpoint=checkpoint)
    rest = list(observations(variant, resumed, len(whole) - stop))
    named = "steps after resuming" if where == "step" else f"{where}s after resuming"
    yield equal(named, len(rest), len(whole) - stop)
    for number, (expected, found) in enumerate(zip(whole[stop:], rest, strict=False), stop + 1):
        own = {_label(seen): seen.value for seen in found}
        different = [_label(s) for s in expected if not torch.equal(s.value, own[_label(s)])]
        what = f"tensors that differ at {where} {number}"
        yield _none_of(what, different, f"the resumed run differs at {where} {number}")


def _with_short_epochs(problem: Problem) -> Problem | None:
    """The same problem on fewer rows, so that a run soon crosses the borders of epochs.

    ``None`` if the epochs of a stream are long, for those cannot be cut.
    """
    protocol = problem.protocol
    if problem.streams:
        return problem if problem.steps_per_epoch <= STEPS // 2 else None
    longer = replace(protocol, epochs=EPOCHS + 1, stand_in_epochs=None)
    return problem.but(protocol=longer).shortened(FEW_ROWS, UPDATES)


def _label(seen: Observation) -> str:
    return f"{seen.kind} {seen.name}".strip()
