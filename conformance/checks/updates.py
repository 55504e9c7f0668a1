"""Updates: a loop clips and schedules as its protocol states, and does neither otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from refimpl.checking.checks import Measurement, Subject, check, true
from refimpl.contract import Step, Variant
from refimpl.training.loop import drive
from refimpl.training.problem import Problem, pose
from refimpl.training.trajectories import plain

UPDATES, MOST_UPDATES = 5, 60
"""How many updates are watched, with an epoch for each, so that a schedule by epochs shows too; and
how many at most until a stated schedule changes the rate."""

ROWS = 8
"""The most rows in a batch: a loop may validate after each epoch, and any batch has a rate."""

CLIPPED = 3
"""How many updates are watched for clipping."""

FAR = 10.0
"""From a start that is so many times as large, gradients reach a norm that is written in a loop."""

UNSEEN = (
    "its learning rate or its gradients are not seen: it has no optimizer, makes no plain steps "
    "along the gradient, or shows other parameters in every step; exempt it from this check"
)

ROUNDING = 1e-6
"""The relative difference allowed in float64; torch itself adds 1e-6 to the norm that it clips."""


@check(
    "updates-as-stated",
    needs="float64",
    reading="the loop clips or schedules otherwise than its protocol says: clip to problem.clip, "
    "take the rate from problem.rate(step), and state both in Protocol(clip=..., schedule=...)",
)
def updates_as_stated(subject: Subject) -> Iterator[Measurement]:
    """Are gradients clipped and learning rates scheduled as stated, and not if nothing is?"""
    variant = subject.trained
    problem = pose(
        variant, subject.tier, seed=variant.seed, execution=subject.execution, dropout=False,
        precision="float64",
    )  # fmt: skip
    short = _in_short_epochs(problem)
    seen = [*_rates(variant, short), *_clipping(variant, short)]
    yield from seen or [true("its updates are seen", holds=False, message=UNSEEN)]


# --- rates ---------------------------------------------------------------------------------------


def _in_short_epochs(problem: Problem) -> Problem:
    """The same problem with an update in each epoch, as far as its data can be cut."""
    longer = replace(problem.protocol, epochs=MOST_UPDATES, stand_in_epochs=None, stop=None)
    return problem.but(protocol=longer).shortened(ROWS, 1)


def _until_it_changes(problem: Problem) -> int:
    """How many updates show the stated schedule."""
    changed = (n for n in range(MOST_UPDATES) if problem.rate(n) != problem.rate(0))
    return min(max(UPDATES, next(changed, 0) + 2), MOST_UPDATES)


def _rates(variant: Variant, problem: Problem) -> Iterator[Measurement]:
    """Whether the learning rate of each update, relative to the others, is that of the schedule."""
    stated = problem.protocol.schedule is not None
    what = "learning rates follow the schedule" if stated else "learning rates stay as they are"
    seen = [update.rates for update in _watched(variant, problem, _until_it_changes(problem))]
    if not all(seen[1:]):
        if stated:
            yield true(what, holds=False, message=UNSEEN)
        return
    expected = [problem.rate(number) for number in range(len(seen))]
    for number, rates in enumerate(seen):
        for place, rate in enumerate(rates):
            at = next(n for n, own in enumerate(seen) if len(own) > place and expected[n])
            # A group of parameters may have a rate of its own; only its course is stated.
            should = seen[at][place] / expected[at] * expected[number]
            if abs(rate - should) > ROUNDING * max(abs(rate), abs(should)):
                hint = "" if stated else "; state it: Protocol(schedule=Schedule(...))"
                message = (
                    f"update {number + 1} has the rate {rate:.6g}, expected {should:.6g}{hint}"
                )
                yield true(what, holds=False, message=message)
                return
    yield true(what, holds=True, message="")


# --- clipping ------------------------------------------------------------------------------------


def _clipping(variant: Variant, problem: Problem) -> Iterator[Measurement]:
    """Whether gradients are used as they are without a clip, and clipped with one."""
    free = problem.but(protocol=replace(problem.protocol, clip=None))
    norms = []
    for scale in (1.0, FAR):
        start = {name: scale * value for name, value in free.values.items()}
        for update in _watched(variant, free.but(values=start), CLIPPED):
            if update.norm is None or update.given:
                continue
            norms.append(update.norm)
            if not update.used_as(1.0):
                yield true(
                    "gradients are used as they are",
                    holds=False,
                    message=f"gradients of norm {update.norm:.6g} are used with norm "
                    f"{update.used_norm:.6g} where no clip is stated; clip to problem.clip, and "
                    "state it: Protocol(clip=...)",
                )
                return
    if norms:
        yield true("gradients are used as they are", holds=True, message="")
    if problem.protocol.clip is None:
        return
    if not norms:
        yield true("gradients are clipped", holds=False, message=UNSEEN)
        return
    limit = 0.5 * min(norms)
    clipped = problem.but(protocol=replace(problem.protocol, clip=limit))
    for update in _watched(variant, clipped, CLIPPED):
        if update.norm is not None:
            share = min(1.0, limit / (update.norm + 1e-6))
            message = (
                f"gradients of norm {update.norm:.6g} are used with norm {update.used_norm:.6g}, "
                f"where problem.clip is {limit:.6g}"
            )
            if not update.used_as(share):
                yield true("gradients are clipped", holds=False, message=message)
                return
    yield true("gradients are clipped", holds=True, message="")


# --- what an update uses -------------------------------------------------------------------------


@dataclass
class _Update:
    """The rates of an update, and its gradients as autograd made them and as they were used."""

    rates: list[float] = field(default_factory=list)
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    given: bool = False

    @property
    def norm(self) -> float | None:
        """The norm of all gradients as autograd made them, if they were seen."""
        return _norm([made for made, _ in self.pairs]) if self.pairs else None

    @property
    def used_norm(self) -> float:
        """The norm of all gradients as they were used."""
        return _norm([used for _, used in self.pairs])

    def used_as(self, share: float) -> bool:
        """Whether each gradient was used times ``share``, also where it is not finite."""
        apart = ROUNDING * share * (self.norm or 0)
        apart = apart if math.isfinite(apart) else 0.0
        return all(
            torch.allclose(used, share * made, rtol=ROUNDING, atol=apart, equal_nan=True)
            for made, used in self.pairs
        )


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.norm() for tensor in tensors]).norm())


def _watched(variant: Variant, problem: Problem, count: int) -> Iterator[_Update]:
    """The updates of a run after its first, by whose step the parameters are known.

    The rates of the first are given too, in an update without gradients.
    """
    made: dict[int, Tensor] = {}
    before = {name: plain(torch.as_tensor(value)) for name, value in problem.values.items()}
    with _noting(made) as noted:
        for step in _steps(variant, problem, count):
            update = _Update(noted.rates, noted.pairs, step.gradients is not None)
            if not step.optimizers and not noted.stepped:
                update = _by_hand(step, before, made)
            for parameter in step.parameters.values():
                _watch(parameter, made)
            before = {n: plain(p) for n, p in step.parameters.items()}
            made.clear()
            noted.clear()
            yield update


def _steps(variant: Variant, problem: Problem, count: int) -> Iterator[Step]:
    for step in drive(variant, problem):
        if isinstance(step, Step):
            yield step
            count -= 1
            if not count:
                return


@dataclass
class _Noted:
    """What the optimizers of one update used, each at its first call in it."""

    made: dict[int, Tensor]
    rates: list[float] = field(default_factory=list)
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    stepped: set[int] = field(default_factory=set)

    def clear(self) -> None:
        self.rates, self.pairs, self.stepped = [], [], set()

    def note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if id(optimizer) in self.stepped:
            return
        self.stepped.add(id(optimizer))
        for group in optimizer.param_groups:
            self.rates.append(float(group["lr"]))
            for parameter in group["params"]:
                made = self.made.get(id(parameter))
                if made is not None and parameter.grad is not None:
                    self.pairs.append((made, plain(parameter.grad)))


@contextmanager
def _noting(made: dict[int, Tensor]) -> Iterator[_Noted]:
    noted = _Noted(made)
    handle = register_optimizer_step_pre_hook(noted.note)
    try:
        yield noted
    finally:
        handle.remove()


WATCHED = "_refimpl_watched"


def _watch(parameter: Any, made: dict[int, Tensor]) -> None:
    """Keep each gradient of a parameter as autograd accumulates it."""
    leaf = torch.is_tensor(parameter) and parameter.is_leaf and parameter.requires_grad
    if leaf and getattr(parameter, WATCHED, None) is not made:
        setattr(parameter, WATCHED, made)
        parameter.register_post_accumulate_grad_hook(lambda p: made.update({id(p): plain(p.grad)}))


def _by_hand(step: Step, before: Mapping[str, Tensor], made: Mapping[int, Tensor]) -> _Update:
    """An update that no optimizer makes: its rate, if it is a plain step along the gradient."""
    gradients = {name: plain(g) for name, g in step.used_gradients().items()}
    pairs = [
        (made[id(step.parameters[name])], gradient)
        for name, gradient in gradients.items()
        if id(step.parameters[name]) in made
    ]
    update = _Update([], pairs, step.gradients is not None)
    if not gradients or not gradients.keys() <= before.keys():
        return update
    moved = torch.cat([
        (plain(step.parameters[name]) - before[name]).flatten() for name in gradients
    ])  # fmt: skip
    slope = torch.cat([gradient.flatten() for gradient in gradients.values()])
    rate = -float(moved @ slope / (slope @ slope).clamp_min(1e-300))
    if float((moved + rate * slope).norm()) <= ROUNDING * float(moved.norm()):
        update.rates.append(rate)
    return update
