"""Gradients: the slope of the loss, for every parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from refimpl.checking.checks import Measurement, Subject, at_most, check, true
from refimpl.conformance.checks.repetition import AT_REST
from refimpl.conformance.checks.repetition import STEPS as RERUN
from refimpl.contract import Step, Variant
from refimpl.data import philox
from refimpl.errors import ContractError
from refimpl.parity.ties import near_ties
from refimpl.training.checkpoint import take
from refimpl.training.loop import steps_of
from refimpl.training.problem import Problem, pose
from refimpl.training.trajectories import first_steps
from refimpl.trees import dense

STEPS = (1e-7, 1e-6, 1e-8, 1e-5)
"""Step widths, tried until one fits: a kink (ReLU, max-pooling) may lie within the larger ones, and
rounding drowns the smaller ones. A wrong gradient fits none."""

DROWNED = 0.01
"""A width is not tried if rounding could hide so large a part of a typical slope."""

Arrays = Mapping[str, NDArray[Any]]

APART = 1e-3
"""How far the start is moved first. With a zero bias, a unit whose inputs are all zero lies exactly
on the kink of its ReLU, where there is no slope."""

DIRECTIONS = 2
ROWS = 8
"""The most rows in a batch: each loss costs a whole step, and any batch has a slope to check."""

LEARNING = 5
"""The most steps from one start within which every tensor must move; nearly always the first."""

STARTS = 10
"""The most starts that are tried. A third of covid-lstm's saturate its LSTM so much that nothing
reaches the first layer."""

TRUNCATION = 1e-6
"""Relative error allowed for the extrapolated difference (about 1e-9 is seen)."""

NOISE_ULPS = 64
"""Rounding of the losses, in units in the last place; division by the step width magnifies it."""

ROUNDED, NEARBY = 3, 1e-9
"""How often, and how far from the start, the loss's rounding is measured, in case it is more than
that. One minus a probability near one, as in a cross entropy by hand, has lost most digits."""

MARGIN = 8
"""A slope has at most three times the error of a loss over its width; the rest is for chance."""


def _on_a_kink(subject: Subject) -> str:
    """The elements that a change of the start by a few units of float32 takes across a kink."""
    variant = subject.trained
    problem = pose(variant, subject.tier, seed=variant.seed, dropout=False)
    near = near_ties(variant, _in_small_batches(off_the_kinks(problem)), 1)
    return ", ".join(map(str, near[:2]))


@check(
    "gradient-is-the-slope",
    needs="float64",
    ill_posed=_on_a_kink,
    reading="backward of a layer or of the loss is wrong, or the loss has a part that is "
    "detached; autograd is to blame if several examples fail, the plugin if one does",
)
def gradient_is_the_slope(subject: Subject) -> Iterator[Measurement]:
    """In float64, is each tensor's gradient the slope of the loss along random directions?"""
    variant = subject.trained
    posed = pose(
        variant, subject.tier, seed=variant.seed, execution=subject.execution, precision="float64",
        dropout=False,
    )  # fmt: skip
    whole = off_the_kinks(unclipped(posed))
    problem = _in_small_batches(whole)
    first = first_step(variant, problem)
    if len(first.optimizers) > 1:  # a later loss is to be that of the start, not of an update
        whole, problem = _at_rest(whole), _at_rest(problem)
        first = first_step(variant, problem)
    held = held_rows(first)
    gradients, noise = gradients_of(first), {}
    for name, gradient in gradients.items():
        loss = loss_of(first, name)
        if loss not in noise:
            noise[loss] = _noise(variant, problem, first, loss)
        for number in range(DIRECTIONS):
            direction = {name: _direction(philox("directions", name), number, gradient, held, name)}
            best = _best(variant, problem, noise[loss], {name: gradient}, direction, loss)
            what = f"slope error of {name} in direction {number + 1}, of its budget"
            yield best.judged(what, f"the gradient of {name} is wrong")
    one_loss = len(first.optimizers) < 2 and not whole.streams
    if one_loss and len(whole.train) % whole.batch_size:
        yield _of_the_last_batch(variant, whole, first)


def unclipped(problem: Problem) -> Problem:
    """The same problem with gradients as they are: clipped, they are no slope."""
    return problem.but(protocol=replace(problem.protocol, clip=None))


def _at_rest(problem: Problem) -> Problem:
    """The same problem with a learning rate of next to zero, so that no parameter moves."""
    return problem.but(protocol=replace(problem.protocol, learning_rate=AT_REST))


def loss_of(step: Step, parameter: str) -> str | None:
    """The loss whose slope a parameter's gradient is: that of its optimizer; ``None``: the sum."""
    if len(step.optimizers) < 2 or len(step.losses) == 1:
        return None
    own = step.parameters[parameter]
    for name, optimizer in step.optimizers.items():
        if any(p is own for group in optimizer.param_groups for p in group["params"]):
            return name
    raise ContractError(f"no optimizer of the step has the parameter {parameter}")


def off_the_kinks(problem: Problem) -> Problem:
    """The same problem from a start that is moved at random."""
    values = {
        name: np.asarray(value) + APART * philox("apart", name).standard_normal(np.shape(value))
        for name, value in problem.values.items()
    }
    return problem.but(values=values)


def _in_small_batches(problem: Problem) -> Problem:
    """The same rows in smaller batches; without batches in the document, still all at once."""
    size = problem.protocol.batch_size
    if problem.streams or size is None or size >= len(problem.train):
        return problem
    return problem.but(protocol=replace(problem.protocol, batch_size=min(size, ROWS)))


def _of_the_last_batch(variant: Variant, problem: Problem, first: Step) -> Measurement:
    """Whether the short last batch of an epoch has the same weight in gradient and loss."""
    start = {name: np.asarray(value) for name, value in problem.values.items()}
    begin = replace(take(first, 1), step=problem.steps_per_epoch - 1, parameters=start)
    there = problem.but(checkpoint=replace(begin, optimizer=None))
    last = first_step(variant, there)
    gradients, held = gradients_of(last), held_rows(last)
    direction = _directions("directions", 0, gradients, held)
    best = _best(variant, there, _noise(variant, there, last), gradients, direction)
    return best.judged(
        "slope error on the short last batch, of its budget",
        "the gradient on the short last batch is not that of its loss",
    )


@dataclass(frozen=True)
class _Slope:
    """A measured slope, what the gradients claim it is, and their distance over its budget."""

    ratio: float
    measured: float
    claimed: float

    def judged(self, what: str, wrong: str) -> Measurement:
        """The measurement; if it does not hold, ``wrong`` says what is the case."""
        message = (
            f"{wrong}: along a random direction the loss changes by {self.measured:.6g} per unit, "
            f"the gradient says {self.claimed:.6g} ({self.ratio:.3g} times what rounding explains)"
        )
        return replace(at_most(what, self.ratio, 1.0), unit="budget", message=message)


def _direction(
    rng: np.random.Generator,
    number: int,
    gradient: NDArray[Any],
    held: Mapping[str, int],
    name: str,
) -> NDArray[Any]:
    """Random direction ``number`` in one tensor; a row that is held fixed does not move."""
    direction: NDArray[Any] = rng.standard_normal((number + 1, *gradient.shape))[number]
    if name in held:
        direction[held[name]] = 0
    return direction


def _directions(
    stream: str, number: int, gradients: Arrays, held: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """A random direction in all tensors at once."""
    return {
        name: _direction(philox(stream, name), number, gradient, held, name)
        for name, gradient in gradients.items()
    }


def _noise(variant: Variant, problem: Problem, step: Step, of: str | None = None) -> float:
    """How far rounding takes the first loss: how far one close by is from the slope of wider ones.

    The gradients have no part in it, so that a wrong one is not taken for noise.
    """
    loss = value_of(step, of)
    gradients, held = gradients_of(step), held_rows(step)
    if of is not None:
        gradients = {n: own for n, own in gradients.items() if loss_of(step, n) == of}
    noise = NOISE_ULPS * float(np.finfo(np.float64).eps) * abs(loss)
    for number in range(ROUNDED):
        direction = _directions("rounded", number, gradients, held)
        before, close_by, after = (
            first_loss(variant, problem, direction, by, of)
            for by in (-max(STEPS), NEARBY, max(STEPS))
        )
        slope = (after - before) / (2 * max(STEPS))
        noise = max(noise, MARGIN * abs(close_by - loss - NEARBY * slope))
    return noise


def _best(
    variant: Variant,
    problem: Problem,
    noise: float,
    gradients: Arrays,
    direction: Arrays,
    of: str | None = None,
) -> _Slope:
    """The slope that is nearest to what the gradients claim, relative to its width's budget."""
    gradient, moved = (
        np.concatenate([arrays[name].ravel() for name in direction])
        for arrays in (gradients, direction)
    )
    claimed = float((gradient * moved).sum())
    typical = float(np.linalg.norm(gradient) * np.linalg.norm(moved)) / np.sqrt(gradient.size)

    def at(width: float) -> Iterator[_Slope]:
        for slope in _slopes(variant, problem, direction, width, of):
            budget = TRUNCATION * max(typical, abs(slope)) + noise / width
            yield _Slope(float(abs(slope - claimed) / budget), slope, claimed)

    clear = [width for width in STEPS if noise / width <= DROWNED * typical]
    tried = _until_within(1.0, chain.from_iterable(map(at, clear or [max(STEPS)])))
    return min(tried, key=lambda slope: slope.ratio)


def _until_within(limit: float, slopes: Iterable[_Slope]) -> Iterator[_Slope]:
    """The slopes up to the first that is within the limit, that one included."""
    for slope in slopes:
        yield slope
        if slope.ratio <= limit:
            return


def held_rows(step: Step) -> dict[str, int]:
    """Rows that are held fixed by design: the padding row of an embedding gets no gradient."""
    net = step.module
    if net is None:
        return {}
    return {
        f"{name}.weight".lstrip("."): layer.padding_idx
        for name, layer in net.named_modules()
        if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) and layer.padding_idx is not None
    }


def _slopes(
    variant: Variant, problem: Problem, direction: Arrays, step: float, of: str | None = None
) -> Iterator[float]:
    """The slope of the first loss along ``direction``, in the parameters that it names.

    By a central difference, whose error grows with the square of its width, and then by two of
    them, extrapolated to zero: a percentage loss bends so sharply that the error of one is seen.
    """

    def central(h: float) -> float:
        after, before = (first_loss(variant, problem, direction, by, of) for by in (h, -h))
        return (after - before) / (2 * h)

    wide = central(step)
    yield wide
    yield (4 * central(step / 2) - wide) / 3


def first_loss(
    variant: Variant, problem: Problem, direction: Arrays, by: float, of: str | None = None
) -> float:
    """The first loss when the start is moved ``by`` so much along a direction."""
    begin = problem.checkpoint
    moved = dict(begin.parameters if begin else problem.values)
    for name, shift in direction.items():
        moved[name] = moved[name] + by * shift
    changes = {"checkpoint": replace(begin, parameters=moved)} if begin else {"values": moved}
    return value_of(first_step(variant, problem.but(**changes)), of)


def value_of(step: Step, of: str | None) -> float:
    """A loss of a step by its name, or the sum of all."""
    return float(torch.as_tensor(step.total if of is None else step.losses[of]).detach())


def first_step(variant: Variant, problem: Problem) -> Step:
    """The first step of a run; raises :class:`ContractError` if it has none."""
    step = next(steps_of(variant, problem, 1), None)
    if step is None:
        raise ContractError(f"variant {variant.name!r} never yields a Step")
    return step


def gradients_of(step: Step) -> Mapping[str, NDArray[Any]]:
    """The gradients of a step, by name, of the parameters that have one."""
    return {
        name: dense(torch.as_tensor(gradient).detach()).cpu().numpy()
        for name, gradient in step.used_gradients().items()
    }


@check(
    "every-parameter-learns",
    reading="a parameter is not given to the optimizer, is detached, or is never used",
)
def every_parameter_learns(subject: Subject) -> Iterator[Measurement]:
    """Within a few steps, does every trainable tensor get a finite, non-zero gradient and change?

    Makes at most ``LEARNING`` steps from each of at most ``STARTS`` starts, until every tensor has.
    """
    variant = subject.trained
    reached: dict[str, float] = {}
    finite: dict[str, bool] = {}
    moved: dict[str, bool] = {}
    for step, problem in _first_steps_of_some_starts(subject):
        for name, gradient in gradients_of(step).items():
            reached[name] = max(reached.get(name, 0.0), float(np.abs(gradient).max()))
            finite[name] = finite.get(name, True) and bool(np.isfinite(gradient).all())
        for name, moves in _moved(step, problem).items():
            moved[name] = moved.get(name, False) or moves
        if all(moved.values()) and all(reached.get(name, 0.0) > 0 for name in moved):
            break
    if not moved and not reached:
        raise ContractError(f"variant {variant.name!r} never yields a Step")
    tried = f"in {LEARNING} steps from any of {STARTS} starts"
    for name, moves in moved.items():
        yield true(
            f"gradient of {name}",
            finite.get(name, False) and reached.get(name, 0.0) > 0,
            f"{name} gets no finite, non-zero gradient {tried}",
        )
        yield true(f"{name} moves", moves, f"{name} does not move {tried}")
    yield _finite(subject)


def _finite(subject: Subject) -> Measurement:
    """Whether the run from the variant's own seed keeps its gradients finite.

    Uses the steps that are made for the rerun checks anyway.
    """
    variant = subject.trained
    problem = pose(variant, subject.tier, seed=variant.seed, execution=subject.execution)
    for number, step in enumerate(first_steps(variant, problem, RERUN), start=1):
        for seen in step:
            if seen.kind == "gradient" and not seen.value.isfinite().all():
                message = f"the gradient of {seen.name} is not finite at step {number}"
                return true("gradients stay finite", False, f"{message}: the run diverges")
    return true("gradients stay finite", True, "")


def _first_steps_of_some_starts(subject: Subject) -> Iterator[tuple[Step, Problem]]:
    """The first steps from one seed after the other, and the problem that each is of."""
    variant = subject.trained
    for seed in range(variant.seed, variant.seed + STARTS):
        problem = pose(variant, subject.tier, seed=seed, execution=subject.execution)
        for step in steps_of(variant, problem, LEARNING):
            yield step, problem


def _moved(step: Step, problem: Problem) -> dict[str, bool]:
    """Whether each trained tensor differs from its start value."""
    moved = {}
    for name, parameter in step.parameters.items():
        tensor = torch.as_tensor(parameter)
        if step.gradients is not None or tensor.requires_grad:
            start = torch.tensor(np.asarray(problem.values[name])).to(tensor.dtype)
            moved[name] = bool((tensor.detach().cpu() != start).any())
    return moved
