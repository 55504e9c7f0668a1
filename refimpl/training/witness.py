"""What is seen of a run while it is made, so that it can be compared with its protocol afterwards.

Nothing is declared for it: optimizers are seen as they step, rows by the targets that a step shows
and by what the module is called with, modes by the module itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from refimpl.contract import Step, Variant
from refimpl.training.problem import Problem
from refimpl.trees import mapped

BEGINNING = 2
"""The inputs of so many updates of each epoch are compared with the rows."""

CLOSELY = 25
"""About so many epochs of a run are looked at closely: inputs, constants but rates."""

OWN_BUSINESS = ("params", "fused", "foreach", "capturable", "differentiable")
"""What a parameter group holds that does not change what an update computes."""

FEW = 5


@dataclass(frozen=True)
class Constants:
    """The optimizer of an update, counted from 0, and the constants of each parameter group."""

    update: int
    optimizer: str
    groups: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Shown:
    """What an update of the last epoch showed: its loss, output and target, without gradients."""

    loss: Any
    output: Any
    target: Any


@dataclass
class Witness:
    """What was seen of one run.

    ``constants`` has an entry for the first update and for each at which they changed. ``rates``
    are those of updates that no optimizer makes, with the error that rounding explains, by update.
    ``other_rows`` are updates, from 1, whose targets are not those of their batch;
    ``other_inputs`` those whose inputs are not. ``orders`` identify the targets of each epoch in
    the order in which they were read. ``not_training`` are epochs, from 1, with an update that was
    made in evaluation mode. ``last`` is the last epoch's updates.
    """

    constants: list[Constants] = field(default_factory=list)
    rates: dict[int, tuple[float, float]] = field(default_factory=dict)
    other_rows: list[int] = field(default_factory=list)
    other_inputs: list[int] = field(default_factory=list)
    inputs_seen: int = 0
    rows_seen: int = 0
    orders: list[str] = field(default_factory=list)
    not_training: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    last: list[Shown] = field(default_factory=list)


class Watch:
    """Fills a :class:`Witness` while a run is made."""

    def __init__(self, variant: Variant, problem: Problem) -> None:
        self.seen = Witness()
        self._variant, self._problem = variant, problem
        self._per_epoch = problem.steps_per_epoch
        self._stride = max(1, problem.protocol.epochs_on(problem.tier) // CLOSELY)
        self._closely = True
        ends_early = problem.protocol.stop is not None
        self._kept_from = 0 if ends_early else problem.length - self._per_epoch
        self._stepped: list[torch.optim.Optimizer] = []
        self._before: dict[str, Tensor] | None = None
        self._given: list[Any] = []
        self._hooked: nn.Module | None = None
        self._handles: list[Any] = []
        self._read: dict[int, Tensor] = {}
        self._rates: list[tuple[torch.optim.Optimizer, dict[str, Any], Any]] = []
        self._targets: Any = None
        self._rows: Tensor | None = None
        self._whole = problem.but(checkpoint=None)
        self._shuffles = not problem.streams and problem.shuffles
        train = None if problem.streams else problem.train
        plain = (
            train is not None
            and problem.collate is None
            and problem.protocol.accumulate == 1
            and isinstance(train.x, Tensor)
            and isinstance(train.y, Tensor)
        )
        self._train = train if plain else None

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Optimizers are seen inside the block."""
        handle = register_optimizer_step_pre_hook(lambda own, *_: self._stepped.append(own))
        self._handles.append(handle)
        try:
            yield self
        finally:
            for each in self._handles:
                each.remove()

    def saw(self, step: Step, number: int) -> None:
        """The update of this number, counted from 0, has just been made."""
        at = number % self._per_epoch
        if at == 0:
            self._begin_epoch(number // self._per_epoch)
        if number >= self._kept_from:
            parts = (step.loss, step.output, step.target)
            self.seen.last.append(Shown(*map(_without_graph, parts)))
        self._constants(step, number, at)
        if self._train is not None and isinstance(step.target, Tensor):
            self._read[at] = step.target.detach()
        module = step.module
        if module is not None:
            self._mode_of(module, number)
            self._inputs_of(module, number, at)
        if at == self._per_epoch - 1:
            self._rows_of(number // self._per_epoch)
            self.seen.losses.append(float(torch.as_tensor(step.total).detach()))

    def _begin_epoch(self, epoch: int) -> None:
        self.seen.last, self._read = [], {}
        self._closely = epoch % self._stride == 0
        if self._train is not None and (self._rows is None or self._shuffles):
            self._rows = self._whole.row_order(epoch).to(self._train.y.device)
            self._targets = taken(self._train.y, self._rows)

    # --- constants -------------------------------------------------------------------------------

    def _constants(self, step: Step, number: int, at: int) -> None:
        stepped, self._stepped = self._stepped, []
        if stepped and not (self._closely and at == 0) and self._as_before(stepped):
            return
        own = set(map(id, step.parameters.values())) if stepped else set()
        used = {id(o): o for o in stepped if _updates(o, own)}
        self._rates = [(o, g, g.get("lr")) for o in used.values() for g in o.param_groups]
        if used:
            now = [
                (type(o).__name__, tuple(_of_group(g) for g in o.param_groups))
                for o in used.values()
            ]
            name, groups = "+".join(n for n, _ in now), tuple(g for _, gs in now for g in gs)
            last = self.seen.constants[-1] if self.seen.constants else None
            if last is None or (last.optimizer, last.groups) != (name, groups):
                self.seen.constants.append(Constants(number, name, groups))
            return
        if at == 0 and self._before is not None:
            rate = _rate(step, self._before)
            if rate is not None:
                self.seen.rates[number] = rate
        self._before = None
        epoch = number // self._per_epoch + 1
        if at == self._per_epoch - 1 and epoch % self._stride == 0 and not self.seen.constants:
            self._before = {
                name: torch.as_tensor(p).detach().clone() for name, p in step.parameters.items()
            }

    def _as_before(self, stepped: list[torch.optim.Optimizer]) -> bool:
        """Whether the same optimizers step at the rates of the update before."""
        known = {id(own) for own, *_ in self._rates}
        return {id(own) for own in stepped} == known and all(
            group.get("lr") == rate for _, group, rate in self._rates
        )

    # --- rows ------------------------------------------------------------------------------------

    def _rows_of(self, epoch: int) -> None:
        """The targets of an epoch that has ended: in which order they were read, and of which rows.

        All are compared at once, and one by one only if some are not those of their batch.
        """
        if not self._read:
            self.seen.orders.append("")
            return
        size, first = self._problem.batch_size, epoch * self._per_epoch + 1
        read = torch.cat([target.reshape(-1) for target in self._read.values()])
        self.seen.orders.append(_digest_of(read))
        self.seen.rows_seen += len(self._read)
        sizes = [target.numel() for target in self._read.values()]
        if sizes == [own.numel() for own in torch.split(self._targets, size)] and _same(
            read, self._targets
        ):
            return
        for at, target in self._read.items():
            same = _same(target, self._targets[at * size : (at + 1) * size])
            if not same and len(self.seen.other_rows) < FEW:
                self.seen.other_rows.append(first + at)

    def _inputs_of(self, module: nn.Module, number: int, at: int) -> None:
        given, self._given = self._given, []
        if self._hooked is not module and self._hooked is None:
            self._hooked = module
            self._handles.append(module.register_forward_pre_hook(self._called))
        if (
            not self._closely
            or at >= BEGINNING
            or self._train is None
            or not given
            or self._rows is None
        ):
            return
        size = self._problem.batch_size
        rows = taken(self._train.x, self._rows[at * size : (at + 1) * size])
        prepare = self._variant.prepare or (lambda own: own)
        expected = prepare(rows)
        if not isinstance(expected, Tensor) or given[0].shape != expected.shape:
            return
        self.seen.inputs_seen += 1
        if not torch.equal(given[0], expected) and len(self.seen.other_inputs) < FEW:
            self.seen.other_inputs.append(number + 1)

    def _called(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if (
            self._closely
            and torch.is_grad_enabled()
            and not self._given
            and args
            and isinstance(args[0], Tensor)
        ):
            self._given.append(args[0].detach())

    def _mode_of(self, module: nn.Module, number: int) -> None:
        epoch = number // self._per_epoch + 1
        if not module.training and self.seen.not_training[-1:] != [epoch]:
            self.seen.not_training.append(epoch)


def taken(tensor: Tensor, rows: Tensor) -> Tensor:
    """Rows of a tensor, taken by NumPy: batches are taken by torch, which may take others."""
    if tensor.dtype == torch.bfloat16:
        return tensor[rows]
    own = tensor.detach().cpu().numpy()[rows.cpu().numpy()]
    return torch.from_numpy(own).to(tensor.device)


def _updates(optimizer: torch.optim.Optimizer, parameters: set[int]) -> bool:
    return any(id(p) in parameters for g in optimizer.param_groups for p in g["params"])


def _same(targets: Tensor, others: Tensor) -> bool:
    if targets.numel() != others.numel():
        return False
    return torch.equal(targets.reshape(-1).to(others.dtype), others.reshape(-1))


def _digest_of(targets: Tensor) -> str:
    """What identifies the targets of an epoch in their order."""
    return hashlib.blake2b(targets.cpu().numpy().tobytes(), digest_size=8).hexdigest()


def _of_group(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: float(value) if isinstance(value, Tensor) else value
        for name, value in group.items()
        if name not in OWN_BUSINESS
    }


def _rate(step: Step, before: Mapping[str, Tensor]) -> tuple[float, float] | None:
    """The rate of a plain step along the gradient, and the error that rounding explains."""
    gradients = step.used_gradients()
    if not gradients or not gradients.keys() <= before.keys():
        return None

    def joined(tensors: Mapping[str, Any]) -> Tensor:
        return torch.cat(
            [torch.as_tensor(tensors[n]).detach().cpu().double().flatten() for n in gradients]
        )

    was, slope = joined(before), joined(gradients)
    moved = joined(step.parameters) - was
    length = float(slope @ slope)
    if not length > 0:
        return None
    rate = -float(moved @ slope) / length
    dtype = torch.as_tensor(next(iter(step.parameters.values()))).dtype
    explained = torch.finfo(dtype).eps * float(was.norm()) / length**0.5
    if float((moved + rate * slope).norm()) > 1e-3 * float(moved.norm()) + explained * length**0.5:
        return None
    return rate, explained


def _without_graph(tree: Any) -> Any:
    return mapped(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)
