"""One update, and everything that it changes: to be put back, and to be compared with another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from refimpl.contract import Step
from refimpl.trees import dense, leaves

if TYPE_CHECKING:
    from refimpl.contract import Loss

CHANGE, STATE = "change of the parameters", "state of the optimizer"


@dataclass(frozen=True)
class Update:
    """Forward, loss, backward and update on a batch: ``update(x, y)`` gives the step."""

    model: nn.Module
    forward: Callable[[Any], Any]
    loss: Loss
    optimizer: torch.optim.Optimizer

    def __call__(self, x: Any, y: Any) -> Step:
        """Update once with the inputs and targets of a batch."""
        output = self.forward(x)
        loss = self.loss(output, y)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return Step(loss, self.model, output, y, self.optimizer)

    @property
    def parameters(self) -> list[Tensor]:
        """Those of the model, and any others that the optimizer updates."""
        own = list(self.model.parameters())
        known = set(map(id, own))
        groups = self.optimizer.param_groups
        return [*own, *(p for g in groups for p in g["params"] if id(p) not in known)]

    @property
    def state(self) -> list[Tensor]:
        """The tensors of the optimizer's state."""
        states = self.optimizer.state.values()
        return [value for own in states for value in own.values() if torch.is_tensor(value)]


class Before:
    """All that an update changes, as it is now; ``restore`` puts it back where it was."""

    def __init__(self, update: Update, generator: torch.Generator) -> None:
        self._update, self._generator = update, generator
        self._optimizer = update.optimizer
        tensors = [*update.parameters, *update.model.buffers(), *update.state]
        self._values = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self._gradients = [(p, p.grad) for p in update.parameters]
        self._states = {p: (state, dict(state)) for p, state in update.optimizer.state.items()}
        self._groups = [(group, dict(group)) for group in update.optimizer.param_groups]
        self._draws = generator.get_state()

    def restore(self) -> None:
        """Every tensor keeps its address; what was not there then is removed."""
        for parameter in [p for p in self._optimizer.state if p not in self._states]:
            del self._optimizer.state[parameter]
        for own, was in [*self._states.values(), *self._groups]:
            own.clear()
            own.update(was)
        with torch.no_grad():
            for tensor, value in self._values:
                tensor.copy_(value)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        self._generator.set_state(self._draws)

    def seen(self, step: Step) -> Seen:
        """What the update from here has computed, in copies."""
        update = self._update
        parameters = update.parameters
        were = [value for _, value in self._values[: len(parameters)]]
        return Seen(
            {
                "loss": _copies(step.losses.values()),
                "output": _copies(leaves(step.output)),
                "gradient": _copies(p.grad for p in parameters),
                "buffer": _copies(update.model.buffers()),
                CHANGE: [p.detach() - was for p, was in zip(parameters, were, strict=True)],
                STATE: _copies(update.state),
            },
            max(map(_grain, parameters, were), default=0.0),
        )


def _copies(values: Iterable[Any]) -> list[Tensor]:
    return [dense(v.detach()).clone() for v in values if torch.is_tensor(v)]


def _grain(parameter: Tensor, was: Tensor) -> float:
    """How far rounding may take a change of this parameter, relative to its largest change."""
    moved = (parameter.detach() - was).abs()
    if not moved.numel() or not moved.any():
        return 0.0
    return float(torch.finfo(was.dtype).eps * was.abs().max() / moved.max())


@dataclass(frozen=True)
class Seen:
    """The numbers of one update, by kind. ``grain`` is what rounding explains of ``CHANGE``."""

    numbers: Mapping[str, list[Tensor]]
    grain: float = 0.0

    def same_as(self, other: Seen) -> bool:
        """Whether all of them have the same bits."""
        return all(apart(own, other.numbers[kind]) == 0 for kind, own in self.numbers.items())


def apart(some: list[Tensor], others: list[Tensor]) -> float:
    """The largest difference, relative to the largest number of its tensor; infinite if another
    number of tensors, another shape or a NaN is on one side only.
    """
    if [t.shape for t in some] != [t.shape for t in others]:
        return float("inf")
    return max(map(_apart, some, others), default=0.0)


def _apart(one: Tensor, other: Tensor) -> float:
    one, other = one.cpu().double(), other.cpu().double()  # a device need not have float64
    same = (one == other) | (one.isnan() & other.isnan())
    if same.all():
        return 0.0
    relative = (one - other)[~same].abs().max() / one.abs().max()
    return float("inf") if relative.isnan() else float(relative)


def attributes(*holders: object) -> list[Any]:
    """What modules (and a loss that is one) keep in Python: numbers by value, all else by identity.

    A recording does not change them, so that an update that does cannot be recorded.
    """
    modules = [m for holder in holders if isinstance(holder, nn.Module) for m in holder.modules()]
    return [(id(m), name, _known_by(v)) for m in modules for name, v in vars(m).items()]


def plain_attributes(*holders: object) -> list[tuple[dict[str, Any], str]]:
    """Where the numbers and words are that modules keep: their mode, a dropout's ``p``."""
    modules = [m for holder in holders if isinstance(holder, nn.Module) for m in holder.modules()]
    return [
        (vars(m), name)
        for m in modules
        for name, value in vars(m).items()
        if isinstance(value, (int, float, str))
    ]


def _known_by(value: Any) -> Any:
    if isinstance(value, (int, float, str, bool, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [_known_by(each) for each in value]
    if isinstance(value, dict):
        return [(_known_by(name), _known_by(each)) for name, each in value.items()]
    return id(value)
