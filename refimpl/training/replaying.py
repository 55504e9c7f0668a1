"""Whole runs on a GPU: each update, and each evaluation, as one graph that is replayed.

Between two kernels of a small net, a GPU waits for Python. A run begins eagerly; then a step is
captured, and replayed beside the eager one from the same state, on other rows than those of the
capture and with another seed. It is only used if it computes the same numbers:

- losses, outputs and gradients in the same bits, or, where two eager updates of one state differ,
  at most ``SPREAD`` times as far apart as these two;
- the parameters' changes too, and beyond it what an optimizer's capturable form explains: it takes
  βⁿ in the parameters' dtype, so that one rounding over 1 − β is lost, and ``OPERATIONS`` more.

Whatever is raised, or is not the same, leaves the run as the eager update leaves it, and eager.
Draws of dropout are the eager ones: the driver seeds the generator in each step, and a replay takes
seed and offset from it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from refimpl.contract import Step
from refimpl.errors import one_line
from refimpl.training.graphs import Graphs, Work, graphs_on
from refimpl.training.updates import (
    CHANGE,
    STATE,
    Before,
    Seen,
    Update,
    apart,
    attributes,
    plain_attributes,
)
from refimpl.trees import leaves, mapped

if TYPE_CHECKING:
    from refimpl.contract import Loss
    from refimpl.training.problem import Problem

PROBES = 2
"""So many updates, and evaluations, are made both ways: the second follows on the first."""

WORTHWHILE, EPOCHS = 30, 10
"""Shorter runs stay eager: warming up, capture and probes take as long as eight updates."""

SPREAD = 4.0
OPERATIONS = 8.0

STEPS, EVALUATION = "steps", "evaluation"
OWN_LOOP = "its plugin runs its own loop"
NOT_PLAIN = "its protocol accumulates batches, clips gradients or schedules the rate"

MARK = "_refimpl_replays"
"""The attribute of an optimizer by which its updates find the :class:`Replays` of their run."""

Batches = Iterable[tuple[Any, Any]]
Scored = Iterator[tuple[Any, "Tensor | None"]]
Score = Callable[[Callable[[Any], Any], Batches, Any], Scored]


class Replays:
    """What one run replays, and in words why not what it does not; without graphs, only why."""

    def __init__(
        self, graphs: Graphs | None, updates: int = WORTHWHILE, epochs: int = EPOCHS
    ) -> None:
        self.graphs, self._epochs = graphs, epochs
        self.replayed = 0
        self.reasons: dict[str, str] = {}
        self._given_up = graphs is None or updates < WORTHWHILE
        if updates < WORTHWHILE:
            self.reasons[STEPS] = f"it has only {updates} updates"
        self._known: list[Replayed] = []
        self._scoring: Scoring | None = None
        self._asked = False

    @property
    def why_not(self) -> str:
        """Why steps or evaluations were not replayed; empty if they were."""
        found = dict(self.reasons)
        if not self._asked:
            found.setdefault(STEPS, OWN_LOOP)
        elif self.usable is not None and not self.replayed:
            found.setdefault(STEPS, "its batches differ in shape")
        return "; ".join(why if of == STEPS else f"{of}: {why}" for of, why in found.items())

    def release(self) -> None:
        """Let go of the graphs and their memory."""
        self._known, self._scoring = [], None

    def refuse(self, reason: str) -> None:
        """This run's updates are not of a kind that can be captured."""
        self._asked = True
        self.reasons.setdefault(STEPS, reason)

    def give_up(self, of: str, reason: str) -> None:
        """Nothing more is replayed: after a capture that failed, other graphs may draw wrongly."""
        self.reasons[of] = reason
        self._given_up = True

    @property
    def usable(self) -> Graphs | None:
        """The device's graphs, unless they were given up."""
        return None if self._given_up else self.graphs

    def of(self, update: Update) -> Callable[[Any, Any], Step]:
        """The same update, replayed where it can be."""
        self._asked = True
        reason = uncapturable(update.optimizer)
        if isinstance(update.model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            reason = "its module is spread over devices"
        if reason:
            self.refuse(reason)
        if reason or self.usable is None:
            return update
        for known in self._known:
            if known.is_of(update):
                return known
        self._known.append(Replayed(update, self))
        return self._known[-1]

    def scoring(self, model: object) -> Score:
        """What scores this model on batches that stay the same; see :func:`scored`."""
        if self.usable is None or self._epochs < EPOCHS or not isinstance(model, nn.Module):
            return scored
        if self._scoring is None or self._scoring.model is not model:
            self._scoring = Scoring(model, self)
        return self._scoring


def replays_for(problem: Problem) -> Replays | None:
    """What a whole run may replay; ``None`` on devices without graphs and under wrappers."""
    execution = problem.execution
    graphs = graphs_on(problem.device)
    if graphs is None or execution.wrap is not None or execution.steps is not None:
        return None
    updates = problem.length - problem.first_step
    return Replays(graphs, updates, updates // problem.steps_per_epoch)


def uncapturable(optimizer: torch.optim.Optimizer) -> str:
    """Why a recording of this optimizer's update would be wrong; empty if it would not.

    One that counts its updates in Python would go on with the number of the capture.
    """
    if type(optimizer) is torch.optim.SGD:
        return ""
    if all("capturable" in group for group in optimizer.param_groups):
        return ""
    return f"{type(optimizer).__name__} has no capturable="


@contextmanager
def updating(
    model: nn.Module,
    forward: Callable[[Any], Any],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
) -> Iterator[Callable[[Any, Any], Step]]:
    """Gives ``update(x, y)`` for a loop over batches; on leaving, the optimizer is as it was made.

    It is eager unless ``optimizer`` came through the ``resume`` of a problem with replays.
    """
    update = Update(model, forward, loss, optimizer)
    replays: Replays | None = getattr(optimizer, MARK, None)
    own = update if replays is None else replays.of(update)
    try:
        yield own
    finally:
        if isinstance(own, Replayed):
            own.leave()


# --- an update -----------------------------------------------------------------------------------


class Replayed:
    """An update that is made eagerly, then both ways, then by replaying its graph."""

    def __init__(self, update: Update, replays: Replays) -> None:
        self.update, self.replays = update, replays
        self._parameters = update.parameters
        self._first: tuple[Any, Any] | None = None
        self._recorded: Recorded | None = None
        self._probes = 0

    def is_of(self, update: Update) -> bool:
        """Whether it is the same model, loss and optimizer, with the same parameters."""
        own = self.update
        mine = [own.model, own.loss, own.optimizer, *self._parameters]
        theirs = [update.model, update.loss, update.optimizer, *update.parameters]
        return list(map(id, mine)) == list(map(id, theirs))

    def __call__(self, x: Any, y: Any) -> Step:
        """Update once with the inputs and targets of a batch."""
        graphs = self.replays.usable
        if graphs is None:
            return self._eagerly(x, y)
        if self._first is None:
            self._first = (x, y)
            if _form(self._first) is None:
                self.replays.give_up(STEPS, "its batches are not all tensors")
            return self._eagerly(x, y)  # the first update makes the optimizer's state
        if _form((x, y)) != _form(self._first):
            return self._eagerly(x, y)  # a short last batch
        self._recorded = self._recorded or self._record(graphs)
        if self._recorded is None:
            return self._eagerly(x, y)
        if self._probes < PROBES:
            return self._probed(graphs, self._recorded, x, y)
        if not self._recorded.is_current():
            self.replays.give_up(STEPS, "rates, modes or what is trained change during it")
            return self._eagerly(x, y)
        self.replays.replayed += 1
        return self._recorded.step(x, y)

    def _eagerly(self, x: Any, y: Any) -> Step:
        """The step by the optimizer as it was made, without its graph of autograd.

        What a run keeps of that graph would go on adding gradients on the stream where it was made,
        which a capture on another stream must not touch.
        """
        self.leave()
        step = self.update(x, y)
        step.loss, step.output = _detached(step.loss), mapped(_detached, step.output)
        return step

    def leave(self) -> None:
        """The optimizer is as it was made, with the state that it has now."""
        if self._recorded is not None:
            self._recorded.capturable.turn_off()

    def _record(self, graphs: Graphs) -> Recorded | None:
        assert self._first is not None
        before = Before(self.update, graphs.generator)
        try:
            return Recorded(self.update, graphs, *self._first)
        except Exception as error:  # a back end may raise anything
            self.replays.give_up(STEPS, f"its step cannot be captured: {one_line(error)}")
            return None
        finally:
            before.restore()

    def _probed(self, graphs: Graphs, recorded: Recorded, x: Any, y: Any) -> Step:
        """The update both ways from the same state; it is left as the eager one leaves it."""
        update, self._probes = self.update, self._probes + 1
        before = Before(update, graphs.generator)

        def eagerly() -> tuple[Step, Seen]:
            before.restore()
            step = self._eagerly(x, y)
            return step, before.seen(step)

        in_python = attributes(update.model, update.loss)
        try:
            by_graph = before.seen(recorded.step(x, y))
        except Exception as error:
            before.restore()
            self.replays.give_up(STEPS, f"its graph cannot be replayed: {one_line(error)}")
            return self._eagerly(x, y)
        step, by_eager = eagerly()
        reason = ""
        if attributes(update.model, update.loss) != in_python:
            reason = "a step changes what its modules keep in Python"
        elif not by_eager.same_as(by_graph):
            step, again = eagerly()
            reason = unexplained(by_eager, by_graph, again, update.optimizer)
        if reason:
            self.replays.give_up(STEPS, reason)
        return step


class Recorded:
    """The graph of an update, and the tensors at the addresses that it reads and writes.

    Making one leaves everything as the warm-up leaves it, and raises what the back end raises.
    """

    def __init__(self, update: Update, graphs: Graphs, x: Any, y: Any) -> None:
        self._update = update
        self._x, self._y = mapped(_copy, x), mapped(_copy, y)
        self.capturable = Capturable(update.optimizer)
        self.capturable.turn_on()
        made: list[Step] = []

        def work() -> None:
            made[:] = [update(self._x, self._y)]

        with warnings.catch_warnings():
            # Torch advises against it where nothing is captured; here it follows.
            warnings.filterwarnings("ignore", message=".*capturable=True")
            graphs.warm_up(work)
        made.clear()
        self._replay = graphs.capture(work)
        self._loss, self._output = _detached(made[0].loss), mapped(_detached, made[0].output)
        self._parameters = update.parameters
        self._gradients = [p.grad for p in self._parameters]
        self._plain = plain_attributes(update.model, update.loss)
        self._settings = self._now()

    def is_current(self) -> bool:
        """Whether all that the graph takes for constant is as it was at its capture."""
        self.capturable.turn_on()
        return self._now() == self._settings

    def _now(self) -> tuple[Any, ...]:
        groups = self._update.optimizer.param_groups
        return (
            [{n: v for n, v in group.items() if n != "params"} for group in groups],
            [own.get(name) for own, name in self._plain],
            [(p.data_ptr(), p.requires_grad) for p in self._parameters],
        )

    def step(self, x: Any, y: Any) -> Step:
        """Update once by replaying; the tensors that the step shows are its own."""
        self.capturable.turn_on()
        mapped(_fill, self._x, x)
        mapped(_fill, self._y, y)
        self._replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        own = self._update
        return Step(_copy(self._loss), own.model, mapped(_copy, self._output), y, own.optimizer)


class Capturable:
    """An optimizer whose numbers of updates are tensors on the device, for as long as it is on."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._groups = [g for g in optimizer.param_groups if "capturable" in g]
        self._made = [group["capturable"] for group in self._groups]
        self._counts: list[tuple[dict[str, Any], str, Tensor, Tensor]] = []
        for group in self._groups:
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                # Powers of the count are taken in its dtype, and eagerly in Python's floats.
                exact = parameter.dtype == torch.float64 and not group.get("fused")
                for name, value in state.items():
                    if torch.is_tensor(value) and value.ndim == 0:
                        dtype = torch.float64 if exact and name == "step" else value.dtype
                        there = value.to(parameter.device, dtype, copy=True)
                        self._counts.append((state, name, value, there))

    def turn_on(self) -> None:
        """Go on counting in the device's tensors."""
        for state, name, _, there in self._counts:
            if state[name] is not there:
                there.copy_(state[name])
                state[name] = there
        for group in self._groups:
            group["capturable"] = True

    def turn_off(self) -> None:
        """Go on counting as the optimizer was made to."""
        for state, name, here, there in self._counts:
            if state[name] is there:
                here.copy_(there)
                state[name] = here
        for group, made in zip(self._groups, self._made, strict=True):
            group["capturable"] = made


def unexplained(eager: Seen, graph: Seen, again: Seen, optimizer: torch.optim.Optimizer) -> str:
    """By what a replayed update differs more than two eager ones and rounding explain."""
    for kind, own in eager.numbers.items():
        found, between = apart(own, graph.numbers[kind]), apart(own, again.numbers[kind])
        allowed = SPREAD * between
        if kind in (CHANGE, STATE):
            allowed += max(_corrections(group) for group in optimizer.param_groups)
        if kind == CHANGE and "capturable" in optimizer.param_groups[0]:
            allowed += eager.grain
        if not found <= allowed:
            return (
                f"its graph computes another {kind}: {found:.1e} apart, where two eager steps are "
                f"{between:.1e} and at most {allowed:.1e} is allowed"
            )
    return ""


def _corrections(group: dict[str, Any]) -> float:
    """What is rounded in the dtype of the parameters, where the eager form has Python's floats."""
    if "capturable" not in group:
        return 0.0
    eps = max(torch.finfo(p.dtype).eps for p in group["params"])
    beta = max(group.get("betas", (0.0,)))
    return float(eps / max(1.0 - beta, eps)) + OPERATIONS * eps


# --- an evaluation -------------------------------------------------------------------------------


def scored(predict: Callable[[Any], Any], batches: Batches, loss: Loss | None) -> Scored:
    """The output of each batch, and its loss if there is one."""
    for x, y in batches:
        output = predict(x)
        yield output, loss(output, y) if loss else None


class Scoring:
    """Outputs and losses of batches that stay the same: eagerly, both ways, then by their graph."""

    def __init__(self, model: nn.Module, replays: Replays) -> None:
        self.model, self._replays = model, replays
        self._batches: object = None
        self._made: list[tuple[Any, Tensor | None]] = []
        self._replay: Work | None = None
        self._settings: Any = None
        self._times = 0
        self._eager = False

    def __call__(
        self, predict: Callable[[Any], Any], batches: Batches, loss: Loss | None
    ) -> Scored:
        """As :func:`scored`; the results are overwritten by the next call."""
        graphs, self._times = self._replays.usable, self._times + 1
        self._batches = batches if self._times == 1 else self._batches
        if graphs is None or self._eager or self._times == 1 or batches is not self._batches:
            return scored(predict, batches, loss)
        if self._replay is None:
            self._replay = self._record(graphs, lambda: scored(predict, batches, loss))
            self._settings = self._now()
        if self._replay is None:
            return scored(predict, batches, loss)
        if self._now() != self._settings:
            self._refuse("its model changes what is no tensor")
            return scored(predict, batches, loss)
        draws = graphs.generator.get_state()
        self._replay()
        if self._times > 1 + PROBES:
            return iter(self._made)
        graphs.generator.set_state(draws)
        eager = list(scored(predict, batches, loss))
        if apart(_tensors(eager), _tensors(self._made)) > 0:
            self._refuse("its graph computes other numbers")
        return iter(eager)

    def _record(self, graphs: Graphs, score: Callable[[], Scored]) -> Work | None:
        def work() -> None:
            self._made[:] = list(score())

        draws = graphs.generator.get_state()
        try:
            graphs.warm_up(work)
        except Exception as error:
            self._refuse(f"it cannot be captured: {one_line(error)}")
            return None
        finally:
            graphs.generator.set_state(draws)
        try:
            return graphs.capture(work)
        except Exception as error:
            self._replays.give_up(EVALUATION, f"it cannot be captured: {one_line(error)}")
            return None
        finally:
            graphs.generator.set_state(draws)

    def _refuse(self, reason: str) -> None:
        self._eager = True
        self._replays.reasons[EVALUATION] = reason

    def _now(self) -> tuple[Any, ...]:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return attributes(self.model), [tensor.data_ptr() for tensor in tensors]


# --- tensors -------------------------------------------------------------------------------------


def _form(batch: Any) -> list[tuple[Any, ...]] | None:
    """What must be the same in a batch that is put where another was; ``None`` if it cannot be."""
    own = leaves(batch)
    if not all(map(torch.is_tensor, own)):
        return None
    return [(leaf.shape, leaf.stride(), leaf.dtype, leaf.device) for leaf in own]


def _tensors(results: Iterable[tuple[Any, Tensor | None]]) -> list[Tensor]:
    return [leaf for result in results for leaf in leaves(result) if torch.is_tensor(leaf)]


def _copy(value: Any) -> Any:
    return value.detach().clone() if torch.is_tensor(value) else value


def _detached(value: Any) -> Any:
    return value.detach() if torch.is_tensor(value) else value


def _fill(place: Tensor, value: Tensor) -> Tensor:
    return place.copy_(value)
