"""How a training bug is planted in one variant, and in nothing else.

A planted variant advances the original's own generator. The bug is in force only while that
generator runs: patches are applied before each of its steps and undone after it, so that neither
the code that drives it nor the run it is compared with ever sees them. Objects that belong to the
candidate alone (its module, its optimizer, its rows) are changed for good.

The planted variant is a separate object, so that whatever is kept by a variant's identity
(references of a ladder, whole training runs) is kept apart from the original's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from functools import cache, partial, update_wrapper
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from refimpl.contract import Execution, Step, Steps, Variant
from refimpl.training.loop import written_steps
from refimpl.training.problem import Problem, TensorRows
from refimpl.training.starts import torch_default

Arrays = Mapping[str, NDArray[Any]]
Replacement = Callable[..., Any]
"""Called with the original and its arguments; ``NotImplemented`` leaves the call as it was."""


# --- a bug, and where it is planted --------------------------------------------------------------


@dataclass
class Fault:
    """One bug at one strength, in one variant.

    ``hits`` counts how often it took effect; ``resting`` is true while framework code runs within
    a variant's code.
    """

    variant: Variant | None = None
    strength: float = 1.0
    hits: int = 0
    resting: bool = False

    def hit(self) -> None:
        """Note that the bug took effect."""
        self.hits += 1

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Suspend the bug while framework code runs."""
        before, self.resting = self.resting, True
        try:
            yield
        finally:
            self.resting = before


@dataclass(frozen=True)
class Plant:
    """Where a bug is planted in one run. It is made anew for each run, so it may keep state.

    - ``start`` changes the values that the variant's start gives;
    - ``problem`` changes the problem itself;
    - ``train``, ``valid`` change the rows of that split, and get those of the other too; ``order``
      changes the row order of a whole epoch, and gets the epoch and the rows in a batch too;
    - ``module`` changes the module before its start is loaded; returns whether it did;
    - ``optimizer`` changes each optimizer once it is made; returns whether it did;
    - ``resume`` returns whether the optimizer of a resumed run stays new, despite this state;
    - ``calls`` replaces functions of torch, by name, within a step; ``forward`` does so within the
      module, or whatever the variant predicts with, in evaluation too;
    - ``after_backward`` gets the leaves whose gradients were just made, and the size of the batch
      over that of a full one;
    - ``around`` makes a context for each step; ``step`` changes what is shown of it.
    """

    start: Callable[[Arrays], Arrays] | None = None
    problem: Callable[[Problem], Problem] | None = None
    train: Callable[[TensorRows, TensorRows | None], TensorRows] | None = None
    valid: Callable[[TensorRows, TensorRows], TensorRows] | None = None
    order: Callable[[Tensor, int, int], Tensor] | None = None
    module: Callable[[nn.Module], bool] | None = None
    optimizer: Callable[[torch.optim.Optimizer], bool] | None = None
    resume: Callable[[Any, Mapping[str, Any]], bool] | None = None
    calls: Mapping[str, Replacement] = field(default_factory=dict)
    forward: Mapping[str, Replacement] = field(default_factory=dict)
    after_backward: Callable[[Sequence[Tensor], float], bool] | None = None
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    step: Callable[[Step], Step] | None = None


@dataclass(frozen=True)
class Mutant:
    """A training bug: ``imitates`` says which, ``applies`` tells in which variants it can occur.

    ``mutate(fault)`` is called for each run and returns where the bug is planted; alternatively,
    ``execution(fault)`` makes a wrong execution. A bug with a magnitude has the ``weakest`` and
    the ``strongest`` worth trying, between which the smallest that is caught is searched for.
    One ``of_kernels`` meets the checks of kernels first.
    """

    name: str
    imitates: str
    applies: Callable[[Variant], bool]
    mutate: Callable[[Fault], Plant] | None = None
    execution: Callable[[Fault], Execution] | None = None
    weakest: float | None = None
    strongest: float = 1.0
    of_kernels: bool = False

    @property
    def has_magnitude(self) -> bool:
        """Whether it can be weak or strong."""
        return self.weakest is not None


def anything(variant: Variant) -> bool:
    """Every variant."""
    return True


def in_torch(variant: Variant) -> bool:
    """Variants that compute with torch."""
    return not variant.numpy


def has_module(variant: Variant) -> bool:
    """Variants that train a module."""
    return variant.has_module


def _named(function: Callable[..., object]) -> tuple[str, str]:
    if not function.__doc__ and sys.flags.optimize < 2:
        raise TypeError(f"{function.__name__} needs a docstring: what it imitates")
    what = " ".join((function.__doc__ or function.__name__).split()).removesuffix(".")
    return function.__name__.replace("_", "-"), what


def mutant(
    applies: Callable[[Variant], bool] = in_torch,
    weakest: float | None = None,
    strongest: float = 1.0,
) -> Callable[[Callable[[Fault], Plant]], Mutant]:
    """Turn a function that plants a bug into a mutant; its docstring says what it imitates."""

    def made(mutate: Callable[[Fault], Plant]) -> Mutant:
        name, what = _named(mutate)
        return Mutant(name, what, applies, mutate, weakest=weakest, strongest=strongest)

    return made


def wrong_execution(
    applies: Callable[[Variant], bool] = in_torch,
) -> Callable[[Callable[[Fault], Execution]], Mutant]:
    """Turn a function that makes a wrong execution into a mutant."""

    def made(execution: Callable[[Fault], Execution]) -> Mutant:
        name, what = _named(execution)
        return Mutant(name, what, applies, execution=execution)

    return made


@mutant(anything)
def sound(fault: Fault) -> Plant:
    """Nothing: the machinery of planting, with no bug in it."""
    return Plant()


# --- the planted variant -------------------------------------------------------------------------


def _steps_with_the_bug(
    original: Variant, mutate: Callable[[Fault], Plant], fault: Fault, problem: Problem
) -> Steps:
    """The steps of one run of ``original``, with the bug in force while it computes."""
    injection = Injection(original, fault, mutate(fault))
    steps = iter(written_steps(original, injection.posed(problem)))
    while True:
        with injection.in_force():
            step = next(steps, None)
        if step is None:
            return
        yield injection.shown(step) if isinstance(step, Step) else step


def planted(variant: Variant, bug: Mutant, fault: Fault) -> Variant:
    """``variant`` with a bug in it."""
    if bug.mutate is None:
        raise TypeError(f"{bug.name} is about executions, not about variants")
    fault.variant = variant
    own = {f.name: getattr(variant, f.name) for f in fields(Variant)}
    change = bug.mutate(fault).start
    if change is not None:
        own.update(_started(variant, fault, change))
    steps = partial(_steps_with_the_bug, variant, bug.mutate, fault)
    own["steps"] = update_wrapper(steps, variant.steps) if variant.steps else steps
    return Variant(**own)


def _started(variant: Variant, fault: Fault, change: Callable[[Arrays], Arrays]) -> dict[str, Any]:
    """The start of a variant with a bug in it."""
    draw = variant.start or (torch_default(variant.build) if variant.build else None)

    def changed(values: Arrays) -> Arrays:
        made = change(values)
        if not all(np.array_equal(made[name], value) for name, value in values.items()):
            fault.hit()
        return made

    printed = variant.documented_start
    return {
        "start": draw and (lambda rng: changed(draw(rng))),
        "documented_start": printed and changed(printed),
    }


class Injection:
    """A bug in one run of a variant."""

    def __init__(self, variant: Variant, fault: Fault, plant: Plant) -> None:
        self.variant, self.fault, self.plant = variant, fault, plant
        self.leaves: list[Tensor] = []
        self.share = 1.0
        self.rows: dict[str, TensorRows] = {}
        self._calls = dict(plant.calls)
        if not has_module(variant):
            self._calls.update(plant.forward)
        if plant.after_backward is not None:
            self._calls["backward"] = self._backward  # says itself whether it did anything

    def posed(self, problem: Problem) -> Problem:
        """The problem as the variant gets it."""
        if self.plant.problem is not None:
            with self.fault.rest():
                changed = self.plant.problem(problem)
            if changed is not problem:
                self.fault.hit()
                problem = changed
        return _of(problem, self)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Activate the bug while the variant computes."""
        with ExitStack() as stack:
            if self.plant.optimizer is not None:
                constructor = _noting(torch.optim.Optimizer.__init__, self._optimizer)
                stack.enter_context(patch.object(torch.optim.Optimizer, "__init__", constructor))
            stack.enter_context(self.plant.around())
            if self._calls:
                stack.enter_context(Calls(self.fault, self._calls))
            yield

    def shown(self, step: Step) -> Step:
        """A step as it is shown to the checks."""
        model = step.model
        if self.plant.forward and model is not None and not isinstance(model, nn.Module):
            step.model = self._predicting(model)
        return self.plant.step(step) if self.plant.step is not None else step

    def module(self, module: nn.Module) -> None:
        """Plant the bug in a module."""
        if self.plant.module is not None and self.plant.module(module):
            self.fault.hit()
        if self.plant.forward:
            module.forward = self._predicting(module.forward)

    def changed(self, split: str, rows: TensorRows, other: TensorRows | None) -> TensorRows:
        """The rows of a split as the variant sees them."""
        change = getattr(self.plant, split)
        if change is None:
            return rows
        if split not in self.rows:
            self.rows[split] = change(rows, other)
            new = self.rows[split]
            if not (_same(new.x, rows.x) and _same(new.y, rows.y)):
                self.fault.hit()
        return self.rows[split]

    def _predicting(self, model: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def predict(*args: Any, **kwargs: Any) -> Tensor:
            with Calls(self.fault, self.plant.forward):
                return model(*args, **kwargs)

        return predict

    def _optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        if self.plant.optimizer is not None and self.plant.optimizer(optimizer):
            self.fault.hit()

    def _backward(self, original: Replacement, *args: Any, **kwargs: Any) -> Any:
        self.fault.hits -= 1
        made = original(*args, **kwargs)
        assert self.plant.after_backward is not None
        with torch.no_grad():
            if self.plant.after_backward(self.leaves, self.share):
                self.fault.hit()
        return made


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _noting(original: Callable[..., None], note: Callable[[Any], None]) -> Callable[..., None]:
    def constructor(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        note(self)

    return constructor


class Calls(TorchFunctionMode):
    """Replaces functions of torch, by name and for every caller, in this context alone.

    Calls made within a replaced function are left alone. Setting ``.grad`` has the name ``grad=``.
    """

    def __init__(self, fault: Fault, replacements: Mapping[str, Replacement]) -> None:
        super().__init__()
        self.fault, self.replacements = fault, replacements

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Make one call of a torch function, replaced or not."""
        given = kwargs or {}
        replacement = self.replacements.get(_name(func))
        if replacement is None or self.fault.resting:
            return func(*args, **given)
        before = self.fault.hits
        self.fault.hit()  # before the call, which may raise
        made = replacement(func, *args, **given)
        if made is not NotImplemented:
            return made
        self.fault.hits = before
        return func(*args, **given)


def _name(function: Any) -> str:
    name: str = getattr(function, "__name__", "")
    if name == "__set__" and getattr(function, "__self__", None) is Tensor.grad:
        return "grad="
    return name


# --- the problem that it is given ----------------------------------------------------------------


class _PlantedProblem(Problem):
    """What a planted variant gets to solve: mixed in before the problem's own class."""

    injection: Injection

    @property
    def train(self) -> TensorRows:
        with self.injection.fault.rest():
            return self.injection.changed("train", super().train, super().valid)

    @property
    def valid(self) -> TensorRows | None:
        with self.injection.fault.rest():
            rows = super().valid
            return rows and self.injection.changed("valid", rows, super().train)

    def row_order(self, epoch: int) -> Tensor:
        change = self.injection.plant.order
        with self.injection.fault.rest():
            if change is None:
                return super().row_order(epoch)
            sound = Problem.row_order(self.but(checkpoint=None, shard=(0, 1)), epoch)
            order = change(sound, epoch, self._whole_batch)
        if not _same(order, sound):
            self.injection.fault.hit()
        order = order[self._rows_done(epoch) :]
        rank, shards = self.shard
        if shards == 1:
            return order
        return torch.cat([batch[rank::shards] for batch in torch.split(order, self._whole_batch)])

    def epoch_batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        with self.injection.fault.rest():
            batches = self._batches_of(epoch)
        while True:
            with self.injection.fault.rest():
                batch = next(batches, None)
            if batch is None:
                return
            self.injection.share = len(batch[0]) / self.batch_size
            yield batch

    def _batches_of(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        if self.injection.plant.order is None:
            return super().epoch_batches(epoch)
        x, y = self.train.x, self.train.y
        orders = torch.split(self.row_order(epoch).to(self.device), self.batch_size)
        return ((x[rows], y[rows]) for rows in orders)

    @property
    def start(self) -> dict[str, Tensor]:
        with self.injection.fault.rest():
            start = super().start
        self.injection.leaves = list(start.values())
        return start

    def load(self, module: Any) -> Any:
        with self.injection.fault.rest():
            self.injection.module(module)
            loaded = super().load(module)
        self.injection.leaves = list(module.parameters())
        return loaded

    def resume(self, optimizer: Any, name: str = "") -> Any:
        forgets = self.injection.plant.resume
        state = self.checkpoint.optimizer if self.checkpoint else None
        if forgets is None or state is None or not forgets(optimizer, state):
            return super().resume(optimizer, name)
        self.injection.fault.hit()
        return optimizer

    def but(self, **changes: Any) -> Problem:
        return _of(super().but(**changes), self.injection)


def _of(problem: Problem, injection: Injection) -> Problem:
    """The same problem, with a bug."""
    kind = type(problem)
    if not issubclass(kind, _PlantedProblem):
        kind = _planted_kind(kind)  # type: ignore[arg-type]
    made: Problem = object.__new__(kind)
    made.__dict__.update(problem.__dict__)
    made.__dict__["injection"] = injection
    return made


@cache
def _planted_kind(kind: type[Problem]) -> type[Problem]:
    return type(f"Planted{kind.__name__}", (_PlantedProblem, kind), {})


def gradients(leaves: Iterable[Tensor]) -> list[Tensor]:
    """The gradients that the leaves have."""
    return [leaf.grad for leaf in leaves if leaf.grad is not None]
