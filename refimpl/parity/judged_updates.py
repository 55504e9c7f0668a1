"""Some updates of a whole run, each judged by the formula of its optimizer and with its own inputs.

A fault may depend on how often something was called: a table that is too short, a count that
overflows, each fiftieth update. So updates from all of a run are judged, and not its first alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from refimpl.parity.kernel_bounds import UNITS
from refimpl.parity.kernel_judge import JudgedCall, KernelJudge, furthest
from refimpl.parity.update_definitions import OF_OPTIMIZERS, Formula
from refimpl.trees import dense

FEW = 5


@dataclass
class JudgedUpdates:
    """How many tensors were judged, the largest ratio of an error to its bound, and what is beyond.

    ``stale`` are updates, from 1, that use other gradients than those made since the update before.
    Optimizers without a formula are judged call by call, by ``kernels``.
    """

    judged: int = 0
    worst: float = 0.0
    beyond: list[JudgedCall] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)
    kernels: KernelJudge = field(default_factory=KernelJudge)


@dataclass(frozen=True)
class _Before:
    """A parameter, and in float64 what an update of it is computed from."""

    parameter: Tensor
    tensors: tuple[Tensor, ...]
    constants: Mapping[str, Any]

    def updated(self, formula: Formula, magnitudes: bool = False) -> Tensor:
        """The parameter after the update; with ``magnitudes``, that of sizes alone."""
        own = [each.abs() if magnitudes else each.clone() for each in self.tensors]
        constants = {**self.constants, "maximize": False} if magnitudes else self.constants
        formula.update(*([each] for each in own), **constants)
        return own[0]


class Watcher:
    """Follows the optimizers of a run, and judges the updates of some numbers, from 1."""

    def __init__(self, numbers: Collection[int], gradients_as_made: bool) -> None:
        self.seen = JudgedUpdates()
        self._numbers, self._as_made = numbers, gradients_as_made
        self._count, self._number = count(1), 0
        self._before: list[_Before] = []
        self._entered = ExitStack()
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
        self._compare_gradients(optimizer)
        if self._number not in self._numbers:
            return
        formula = OF_OPTIMIZERS.get(type(optimizer))
        if formula is None or len(args) > 1 or named:
            self.seen.kernels.during = f"update {self._number} of the run"
            self._entered.enter_context(self.seen.kernels)
            return
        self._before = [
            _before(formula, optimizer, group, parameter)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]

    def _ends(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._entered.close()
        before, self._before = self._before, []
        for own in before:
            self._judge(own, optimizer)
        if self._as_made and self._number + 1 in self._numbers:
            self._follow(optimizer)

    def _judge(self, own: _Before, optimizer: torch.optim.Optimizer) -> None:
        formula = OF_OPTIMIZERS[type(optimizer)]
        found = own.parameter.detach()
        size, exact = own.tensors[0].abs(), own.updated(formula)
        units = UNITS * torch.finfo(found.dtype).eps / 2
        far = furthest(found, exact, units * size)
        if not far.ratio <= 1:  # small beside what is added to it
            moved = (size - own.updated(formula, magnitudes=True)).abs()
            far = furthest(found, exact, units * (size + moved))
        self.seen.judged += 1
        self.seen.worst = max(self.seen.worst, far.ratio) if far.ratio <= 1 else self.seen.worst
        if not far.ratio <= 1 and len(self.seen.beyond) < FEW:
            call = replace(
                far, kernel=type(optimizer).__name__, role="updated parameter",
                shapes=(tuple(found.shape),), dtype=str(found.dtype).removeprefix("torch."),
                device=found.device.type, during=f"update {self._number} of the run",
            )  # fmt: skip
            self.seen.beyond.append(call)

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


def _before(
    formula: Formula, optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: Tensor
) -> _Before:
    state = optimizer.state.get(parameter, {})
    own = parameter.detach().to("cpu", torch.float64, copy=True)
    assert parameter.grad is not None
    gradient = dense(parameter.grad.detach()).to("cpu", torch.float64, copy=True)
    kept = [_kept(state.get(name), own) for name in formula.states]
    steps = [_kept(state.get("step"), torch.zeros(())) + 1] if formula.counts else []
    constants = {name: group[name] for name in formula.constants}
    constants |= dict(zip(("beta1", "beta2"), group.get("betas", ()), strict=False))
    if formula.first:
        constants["is_first_step"] = state.get("momentum_buffer") is None
    return _Before(parameter, (own, gradient, *kept, *steps), constants)


def _kept(value: Any, like: Tensor) -> Tensor:
    if value is None:
        return torch.zeros_like(like)
    return torch.as_tensor(value).detach().to("cpu", like.dtype, copy=True)
