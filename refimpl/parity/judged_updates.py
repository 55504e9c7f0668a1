"""Some steps of a whole run: their updates, judged by the optimizer's formula, and their calls.

A fault may depend on how often something was called: a table that is too short, a count that
overflows, each fiftieth update. So steps from all of a run are judged, and not its first alone.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count as counting
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import _disable_current_modes

from refimpl.composition import CPU
from refimpl.parity.kernel_bounds import UNITS, dtype_name
from refimpl.parity.kernel_judge import JudgedCall, KernelJudge, furthest
from refimpl.parity.layer_definitions import is_defined
from refimpl.parity.leaf_modules import judged_layer, recording
from refimpl.parity.update_definitions import OF_OPTIMIZERS, Formula
from refimpl.trees import dense

FEW = 5


@dataclass
class JudgedUpdates:
    """How many tensors were judged, the largest ratio of an error to its bound, and what is beyond.

    ``stale`` are updates, from 1, that use other gradients than those made since the update before.
    ``kernels`` has the calls of torch that were judged: those of a few whole steps, and the updates
    of optimizers without a formula. ``layers`` are recurrent ones in those steps, whose kernels
    cannot be judged.
    """

    judged: int = 0
    worst: float = 0.0
    beyond: list[JudgedCall] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)
    kernels: KernelJudge = field(default_factory=KernelJudge)
    layers: list[JudgedCall] = field(default_factory=list)

    def add(self, other: JudgedUpdates) -> None:
        """Count what was seen of another run, too."""
        self.judged += other.judged
        self.worst = max(self.worst, other.worst)
        self.beyond += other.beyond[: FEW - len(self.beyond)]
        self.stale += other.stale
        self.kernels.add(other.kernels)
        self.layers += other.layers


@dataclass(frozen=True)
class _Before:
    """Parameters of one kind, and in float64 what an update of them is computed from, end to end.

    They share their constants, and how many updates they have had.
    """

    parameters: tuple[Tensor, ...]
    tensors: tuple[Tensor, ...]
    constants: Mapping[str, Any]

    def updated(self, formula: Formula, magnitudes: bool = False) -> tuple[Tensor, ...]:
        """The same tensors after the update; with ``magnitudes``, those of sizes alone."""
        own = tuple(each.abs() if magnitudes else each.clone() for each in self.tensors)
        constants = {**self.constants, "maximize": False} if magnitudes else self.constants
        formula.update(*([each] for each in own), **constants)
        return own


@dataclass
class _Count:
    """How many updates a parameter has had, and the optimizer's own counter after the last."""

    updates: int
    counter: Any = None


class Watcher:
    """Follows the optimizers of a run, and judges the updates of some numbers, from 1.

    Of the steps ``calls_of``, every call since the update before is judged, too, and of those of
    them that are in ``layers_of``, recurrent layers; so are gradients, if they are used
    ``gradients_as_made``. ``run`` is what the messages call the run; once so many
    ``parameters`` are judged in all updates, no more are.
    """

    def __init__(
        self,
        numbers: Container[int],
        calls_of: Container[int] = (),
        layers_of: Container[int] = (),
        gradients_as_made: bool = False,
        run: str = "the run",
        parameters: float = math.inf,
    ) -> None:
        self.seen = JudgedUpdates()
        self._numbers, self._calls_of, self._layers_of = numbers, calls_of, layers_of
        self._as_made = gradients_as_made
        self._run, self._left = run, parameters
        self._count, self._number, self._looks = counting(1), 0, False
        self._before: list[_Before] = []
        self._layers: list[tuple[nn.Module, Any]] = []
        self._entered = ExitStack()
        self._counts: dict[int, _Count] = {}
        self._made: dict[int, Tensor] = {}
        self._followed: torch.optim.Optimizer | None = None
        self._handles: list[Any] = []

    @contextmanager
    def watching(self) -> Iterator[JudgedUpdates]:
        """Inside the block, the updates of all optimizers are counted."""
        with ExitStack() as hooks:
            hooks.callback(self._entered.close)
            hooks.callback(self._unfollow)
            hooks.callback(register_optimizer_step_pre_hook(self._begins).remove)
            hooks.callback(register_optimizer_step_post_hook(self._ends).remove)
            yield self.seen

    def _begins(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self._number = next(self._count)
        self._count_updates(optimizer)
        if self._looks:
            self._looks = False
            self._entered.close()
            self._compare_gradients(optimizer)
            self._judge_layers()
        if self._number not in self._numbers or self._left <= 0:
            return
        self._left -= sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        formula = OF_OPTIMIZERS.get(type(optimizer))
        if formula is None or len(args) > 1 or named:
            self._judge_calls(f"update {self._number} of {self._run}")
            return
        with _disable_current_modes():  # what is computed here is not the run's
            self._before = [
                _before(formula, optimizer, group, own, self._counts[id(own[0])].updates)
                for group in optimizer.param_groups
                for own in self._alike(optimizer, group["params"])
            ]

    def _count_updates(self, optimizer: torch.optim.Optimizer) -> None:
        """Count the updates of each parameter, this one too; its optimizer's count may be wrong."""
        for parameter in _with_gradients(optimizer):
            counter = optimizer.state.get(parameter, {}).get("step")
            own = self._counts.get(id(parameter))
            if own is None or own.counter is not counter:  # it is new, or its state was loaded
                own = self._counts[id(parameter)] = _Count(0 if counter is None else int(counter))
            own.updates += 1

    def _ends(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for parameter in _with_gradients(optimizer):
            if count := self._counts.get(id(parameter)):
                count.counter = optimizer.state.get(parameter, {}).get("step")
        if self._looks:  # at the calls of an update without a formula
            self._looks = False
            self._entered.close()
        if self._before:
            before, self._before = self._before, []
            with _disable_current_modes():
                for own in before:
                    self._judge(own, optimizer)
        following = self._number + 1
        if self._as_made and following in self._numbers:
            self._looks = True
            self._follow(optimizer)
        if following in self._calls_of:
            self._judge_calls(f"step {following} of {self._run}")
            if following in self._layers_of:
                self._layers = self._entered.enter_context(recording(nn.RNNBase))

    def _judge_layers(self) -> None:
        """Judge each recurrent layer that a step called, by its last call, before the update."""
        layers, self._layers = self._layers, []
        during = self.seen.kernels.during
        for layer, given in {id(layer): (layer, given) for layer, given in layers}.values():
            if is_defined(layer) and isinstance(given, Tensor):
                for call in judged_layer(layer, type(layer).__name__, given, CPU, given.dtype):
                    self.seen.layers.append(replace(call, during=f"{call.during} at {during}"))

    def _judge_calls(self, during: str) -> None:
        """Judge every call until this update ends, or the next one begins."""
        self._looks = True
        self.seen.kernels.during = during
        self._entered.enter_context(self.seen.kernels)

    def _judge(self, own: _Before, optimizer: torch.optim.Optimizer) -> None:
        """The parameters, and what the optimizer keeps of each for its next update."""
        formula = OF_OPTIMIZERS[type(optimizer)]
        exact = own.updated(formula)
        sizes: tuple[Tensor, ...] = ()
        names = ("parameter", *formula.states, *(("step",) if formula.counts else ()))
        for number, name in reversed([*enumerate(names)]):  # what is wrong first is named first
            found = _states(own.parameters, optimizer, name)
            if found is None:
                continue
            made = torch.cat([each.flatten() for each in found])
            place = number + 1 if number else 0  # the second of the tensors is the gradient
            right, before = exact[place].expand(len(made)), own.tensors[place].abs()
            units = UNITS * torch.finfo(made.dtype).eps / 2
            bound = (units * before).expand(len(made))
            far = furthest(made, right, bound)
            if not far.ratio <= 1:  # small beside what is added to it
                sizes = sizes or own.updated(formula, magnitudes=True)
                bound = bound + units * (sizes[place] - before).abs()
                far = furthest(made, right, bound)
            self.seen.judged += len(found)
            if far.ratio <= 1:
                self.seen.worst = max(self.seen.worst, far.ratio)
                continue
            counts = [each.numel() for each in found]
            parts = zip(found, torch.split(right, counts), torch.split(bound, counts), strict=True)
            for each, expected, allowed in parts:
                far = furthest(each.flatten(), expected, allowed)
                if not far.ratio <= 1 and len(self.seen.beyond) < FEW:
                    call = replace(
                        far, kernel=type(optimizer).__name__, role=f"updated {name}",
                        shapes=(tuple(each.shape),), device=each.device.type,
                        dtype=dtype_name(each.dtype),
                        during=f"update {self._number} of {self._run}",
                    )  # fmt: skip
                    self.seen.beyond.append(call)

    def _alike(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]
    ) -> Iterator[tuple[Tensor, ...]]:
        """The parameters that have gradients, those together that an update treats alike."""
        found: dict[Any, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None and parameter.numel():
                updates = self._counts[id(parameter)].updates
                state = tuple(optimizer.state.get(parameter, {}))
                key = updates, state, parameter.dtype, parameter.device
                found.setdefault(key, []).append(parameter)
        yield from map(tuple, found.values())

    # --- gradients -------------------------------------------------------------------------------

    def _follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Note what backward makes from now on for each parameter."""
        self._followed = optimizer
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    self._handles.append(parameter.register_hook(self._noted(id(parameter))))

    def _noted(self, key: int) -> Any:
        def note(gradient: Tensor) -> None:
            own = dense(gradient.detach()).clone()
            self._made[key] = self._made[key] + own if key in self._made else own

        return note

    def _unfollow(self) -> dict[int, Tensor]:
        for handle in self._handles:
            handle.remove()
        made, self._made, self._handles, self._followed = self._made, {}, [], None
        return made

    def _compare_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        followed = self._followed
        made = self._unfollow()
        if followed is not optimizer:
            return
        used = [p for group in optimizer.param_groups for p in group["params"] if id(p) in made]
        same = (torch.equal(dense(p.grad).nan_to_num(), made[id(p)].nan_to_num()) for p in used)
        if not all(same) and len(self.seen.stale) < FEW:
            self.seen.stale.append(self._number)


def _with_gradients(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """The parameters that an update changes."""
    for group in optimizer.param_groups:
        yield from (own for own in group["params"] if own.grad is not None)


def _before(
    formula: Formula,
    optimizer: torch.optim.Optimizer,
    group: dict[str, Any],
    parameters: tuple[Tensor, ...],
    updates: int,
) -> _Before:
    own = _joined(parameters)
    gradient = _joined([dense(each.grad) for each in parameters if each.grad is not None])
    states = (_states(parameters, optimizer, name) for name in formula.states)
    kept = [torch.zeros_like(own) if each is None else _joined(each) for each in states]
    first = optimizer.state.get(parameters[0], {})
    steps = [torch.tensor(float(updates))] if formula.counts else []
    constants = {name: group[name] for name in formula.constants}
    constants |= dict(zip(("beta1", "beta2"), group.get("betas", ()), strict=False))
    if formula.first:
        constants["is_first_step"] = first.get("momentum_buffer") is None
    return _Before(parameters, (own, gradient, *kept, *steps), constants)


def _states(
    parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer, name: str
) -> list[Tensor] | None:
    """What an optimizer keeps of each parameter by this name, or the parameters themselves."""
    if name == "parameter":
        return [each.detach() for each in parameters]
    kept = [optimizer.state.get(each, {}).get(name) for each in parameters]
    found = [each.detach() for each in kept if isinstance(each, Tensor)]
    return found if len(found) == len(kept) else None


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    """All numbers of some tensors, one after the other, in float64 on the CPU."""
    return torch.cat([each.detach().to("cpu", torch.float64).flatten() for each in tensors])
