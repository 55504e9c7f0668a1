"""Runs variants: the training loop, the history of a run, and how it stops and resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from refimpl import precision, threads
from refimpl.contract import Epoch, Step, Stop, Variant
from refimpl.errors import ContractError
from refimpl.training.ladder import to_ladder
from refimpl.training.problem import Problem
from refimpl.training.replaying import NOT_PLAIN, Replays, Score, replays_for, scored, updating
from refimpl.training.steps import require_in_order
from refimpl.training.witness import Watch, Witness
from refimpl.trees import call, mapped, rows_of

if TYPE_CHECKING:
    from refimpl.contract import Loss, Metric, Steps

FEW_PARAMETERS = 4
"""Models with at most this many parameter values report them among their figures."""


# --- steps ---------------------------------------------------------------------------------------


def written_steps(variant: Variant, problem: Problem) -> Steps:
    """The steps of one run as the variant writes them, without what its execution adds."""
    if variant.steps is None:
        return module_steps(variant, problem)
    return variant.steps(problem)


def module_steps(variant: Variant, problem: Problem) -> Steps:
    """The loop of a variant that is a module, a loss and an optimizer.

    It follows all of the protocol: batches are accumulated, gradients clipped, rates scheduled.
    """
    if variant.build is None or variant.optimizer is None or variant.loss is None:
        raise ContractError(f"variant {variant.name!r} needs build=, optimizer= and loss=")
    model = problem.load(variant.build())
    optimizer = problem.resume(variant.optimizer(model.parameters(), lr=problem.lr))
    loss_of = variant.loss
    prepare = variant.prepare or (lambda rows: rows)
    if _plainly(problem):
        with updating(model, lambda x: call(model, prepare(x)), loss_of, optimizer) as update:
            for xb, yb in problem.batches():
                yield update(xb, yb)
        return
    if problem.replays is not None:
        problem.replays.refuse(NOT_PLAIN)
    for number, batches in enumerate(problem.updates(), start=problem.first_step):
        for group in optimizer.param_groups:
            group["lr"] = problem.rate(number)
        optimizer.zero_grad()
        total, seen = torch.zeros(()), []
        rows = sum(rows_of(xb) for xb, _ in batches)
        for xb, yb in batches:
            output = call(model, prepare(xb))
            part = loss_of(output, yb) * (rows_of(xb) / rows)
            part.backward()  # type: ignore[no-untyped-call]
            total = total + part.detach().cpu()
            seen.append((mapped(torch.Tensor.detach, output), yb))
        nn.utils.clip_grad_norm_(model.parameters(), problem.clip)
        optimizer.step()
        output, target = mapped(lambda *parts: torch.cat(parts), *seen) if seen[1:] else seen[0]
        yield Step(total, model, output, target, optimizer)


def _plainly(problem: Problem) -> bool:
    """Whether each batch makes an update, at one rate and with its gradients as they are."""
    protocol = problem.protocol
    return protocol.accumulate == 1 and protocol.clip is None and protocol.schedule is None


def drive(variant: Variant, problem: Problem) -> Iterator[Step | Epoch]:
    """Every step of one run, under the problem's execution.

    Torch's global generator, from which dropout draws, is seeded for each step and restored after
    it, so that runs side by side, and the code that drives them, do not disturb each other.
    """
    return _driven(variant, problem, partial(_restored, problem.generator))


def _driven(
    variant: Variant, problem: Problem, around: Callable[[], AbstractContextManager[object]]
) -> Iterator[Step | Epoch]:
    """The same, with what is done ``around`` each step."""
    execution = problem.execution
    precision.set_ieee()
    first_seed = problem.dropout_seed
    stepped = problem.first_step
    generator = problem.generator
    makes = execution.steps or written_steps
    steps = iter(makes(variant, problem))
    while True:
        with around(), execution.around():
            generator.manual_seed(first_seed + stepped)
            step = next(steps, None)
        if step is None:
            return
        if isinstance(step, Step):
            if stepped == problem.first_step:
                require_in_order(step, variant.name)
            stepped += 1
        elif not isinstance(step, Epoch):
            found = type(step).__name__
            hint = "yield Step(loss, ...) after each update"
            raise ContractError(f"variant {variant.name!r} yields {found}, not a Step; {hint}")
        yield step


@contextmanager
def _restored(generator: torch.Generator) -> Iterator[None]:
    """Restore a generator, and the CPU's, from which new modules draw their start."""
    before = [(used, used.get_state()) for used in {generator, torch.default_generator}]
    try:
        yield
    finally:
        for used, state in before:
            used.set_state(state)


def steps_of(variant: Variant, problem: Problem, count: int | None = None) -> Iterator[Step]:
    """The first ``count`` steps of a run, without the figures that it yields in between."""
    only_steps = (step for step in drive(variant, problem) if isinstance(step, Step))
    return islice(only_steps, count)


# --- a whole run ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class EpochRecord:
    """The figures of one epoch, counted from 1, and the seconds it took.

    ``printed`` has what the variant's document prints besides: under 0 the parameters after the
    epoch, if they are few, and under a step the means over the epoch's batches up to it.
    """

    epoch: int
    metrics: Mapping[str, float]
    seconds: float
    printed: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def figures_at(self, step: int | None) -> Mapping[str, float]:
        """The figures after the epoch, or those so far at one of its steps that is printed."""
        if step is not None:
            return self.printed.get(step, {})
        return {**self.printed.get(0, {}), **self.metrics}


@dataclass
class History:
    """A finished run: its figures epoch by epoch, and the last step.

    ``parameters`` are those of the last step, under their ladder's names, if they are few.
    ``witness`` is what was seen of it, if it was watched. ``replays`` says what was replayed as one
    graph, and why the rest was not; ``None`` where there are no graphs, as on the CPU.
    """

    epochs: list[EpochRecord] = field(default_factory=list)
    last: Step | None = None
    steps: int = 0
    parameters: Mapping[str, float] = field(default_factory=dict)
    witness: Witness | None = None
    replays: Replays | None = None

    @property
    def final(self) -> dict[str, float]:
        """The last epoch's figures, and the parameters if they are few."""
        if not self.epochs or self.last is None:
            raise ContractError("the run made no step, so it has no figures")
        return {**self.epochs[-1].metrics, **self.parameters}

    def curve(self, metric: str) -> list[float]:
        """One figure, epoch by epoch."""
        return [record.metrics[metric] for record in self.epochs if metric in record.metrics]


def train(
    variant: Variant,
    problem: Problem,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    watched: bool = False,
) -> History:
    """Run a variant to the end of its protocol and return the history.

    A variant that measures its validation rows itself at the end of the first epoch must do so
    after every epoch, and they are not measured a second time. ``on_epoch`` is called with each
    epoch once all its figures are known; a run that is ``watched`` has a witness. On the plain
    CPU, the faster kernels of :mod:`refimpl.training.fast_kernels` are used; on a GPU, steps of a
    run that is not watched are replayed (:mod:`refimpl.training.replaying`). Raises
    :class:`ContractError` if the variant stops early, goes on too long or never yields.
    """
    problem = swiftly(problem)
    if not watched:
        problem = problem.but(replays=replays_for(problem))
    suited = threads.suited_to(lambda: problem.numbers_in_a_batch)
    with precision.ieee(), suited, _restored(problem.generator):  # once: between steps, none draws
        steps = _driven(variant, problem, nullcontext)
        if not watched or problem.execution.steps is not None:
            history = _history_of(steps, variant, problem, on_epoch)
            if problem.replays is not None:
                problem.replays.release()
            return history
        with Watch(variant, problem).watching() as watch:
            history = _history_of(steps, variant, problem, on_epoch, watch)
        history.witness = watch.seen
        return history


def _history_of(
    steps: Iterator[Step | Epoch],
    variant: Variant,
    problem: Problem,
    on_epoch: Callable[[EpochRecord], None] | None,
    watch: Watch | None = None,
) -> History:
    history = History(replays=problem.replays)
    protocol, per_epoch = problem.protocol, problem.steps_per_epoch
    stop = protocol.stop
    epochs = protocol.epochs_on(problem.tier)
    expected = problem.length - problem.first_step
    seen: list[Step] = []
    began = time.perf_counter()
    in_epoch = problem.first_step % per_epoch
    validated: frozenset[str] = frozenset()
    held_out, weighted = list(problem.valid_batches()), protocol.average == "samples"
    for step in steps:
        if isinstance(step, Epoch):
            if not history.epochs:
                raise ContractError(
                    f"variant {variant.name!r} yields an Epoch before the first of its "
                    f"{per_epoch} steps an epoch are made; yield it at the end of the epoch"
                )
            measured = history.epochs[-1]
            history.epochs[-1] = replace(measured, metrics={**measured.metrics, **step.metrics})
            own = frozenset(name for name in measured.metrics if name.startswith("val_"))
            if len(history.epochs) == 1 and own <= step.metrics.keys():
                validated = own
            continue
        if history.epochs and not seen and stop and _ends(stop, history, variant):
            break
        if on_epoch and history.epochs and not seen:
            on_epoch(history.epochs[-1])
        history.last, history.steps = step, history.steps + 1
        if history.steps > expected:
            break
        if watch is not None:
            watch.saw(step, problem.first_step + history.steps - 1)
        seen.append(_detached(step, keep_rows=protocol.report == "epoch"))
        in_epoch += 1
        if in_epoch == per_epoch:
            _require_measured(variant, history, validated)
            number = (problem.first_step + history.steps) // per_epoch
            figures = training_figures(variant, problem, step, seen, number)
            if not validated:
                score = problem.replays.scoring(step.model) if problem.replays else scored
                figures |= validation_figures(variant, step, held_out, weighted, score)
            seconds = time.perf_counter() - began
            printed = _printed(variant, problem, seen, number)
            history.epochs.append(EpochRecord(number, figures, seconds, printed))
            seen, in_epoch, began = [], 0, time.perf_counter()
    ended = stop is not None and not seen and _ends(stop, history, variant)
    if history.steps != expected and not ended:
        hint = "yield one Step after each update"
        if history.steps < expected and not seen:
            hint += ", or state Protocol(stop=Stop(...)) where the run is to end early"
        more = "or more " if history.steps > expected else ""
        raise ContractError(
            f"variant {variant.name!r} made {history.steps} {more}steps where its protocol has "
            f"{epochs} epochs of {per_epoch} ({expected} to run); {hint}"
        )
    _require_measured(variant, history, validated)
    if on_epoch and history.epochs:
        on_epoch(history.epochs[-1])
    if history.last is not None:
        history.parameters = few_parameters(to_ladder(variant, history.last.parameters))
    return history


def _printed(
    variant: Variant, problem: Problem, seen: Sequence[Step], epoch: int
) -> dict[int, dict[str, float]]:
    """What the document prints of an epoch besides its figures; see :class:`EpochRecord`."""
    stated = [f for f in (variant.facts.figures if variant.facts else ()) if f.epoch == epoch]
    if not stated:
        return {}
    printed = {0: few_parameters(to_ladder(variant, seen[-1].parameters))}
    if len(seen) < problem.steps_per_epoch:  # resumed within this epoch
        return printed
    for step in sorted({f.step for f in stated if f.step is not None and f.step <= len(seen)}):
        printed[step] = training_figures(variant, problem, seen[step - 1], seen[:step], epoch)
    return printed


def _ends(stop: Stop, history: History, variant: Variant) -> bool:
    """Whether a run ends after its last epoch. Raises if it has no such figure."""
    there = history.epochs[-1].metrics if history.epochs else {stop.metric: 0.0}
    if stop.metric not in there:
        raise ContractError(
            f"variant {variant.name!r} is to stop by {stop.metric}, and an epoch of its run has "
            f"{', '.join(there)}; mend Protocol(stop=Stop(...)), or yield Epoch({{{stop.metric!r}: "
            "...}) after each epoch"
        )
    return stop.ends(history.curve(stop.metric))


def swiftly(problem: Problem) -> Problem:
    """The same problem for a whole run: with faster kernels if it runs on the plain CPU."""
    execution = problem.execution
    plain = execution.device == "cpu" and execution.wrap is None and execution.steps is None
    return problem.but(swift=plain)


def _require_measured(variant: Variant, history: History, validated: frozenset[str]) -> None:
    """Raise if a variant that measures epochs itself has left one out."""
    if validated and not validated <= history.epochs[-1].metrics.keys():
        raise ContractError(
            f"variant {variant.name!r} yields an Epoch with {', '.join(sorted(validated))} after "
            f"its first epoch and none after epoch {history.epochs[-1].epoch}; yield one after each"
        )


def _detached(step: Step, keep_rows: bool) -> Step:
    output = mapped(_without_graph, step.output) if keep_rows else None
    loss = mapped(_without_graph, step.loss)
    return Step(loss, step.net, output, step.target)


def _without_graph(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


# --- figures -------------------------------------------------------------------------------------


def training_figures(
    variant: Variant, problem: Problem, last: Step, seen: Sequence[Step], epoch: int
) -> dict[str, float]:
    """The training figures of an epoch (from 1), as the protocol's ``report`` defines them."""
    if problem.protocol.report == "last-batch":
        return _last_batch_figures(variant, problem, last, epoch)
    figures = {"loss": mean_of([torch.as_tensor(step.total) for step in seen])}
    for name in seen[0].losses if len(seen[0].losses) > 1 else ():
        figures[f"loss_{name}"] = mean_of([torch.as_tensor(step.losses[name]) for step in seen])
    if seen[0].output is not None and seen[0].target is not None:
        pairs = [
            (s.output, s.target) for s in seen if s.output is not None and s.target is not None
        ]
        for name, metric in (variant.metrics or {}).items():
            figures[name] = mean_of([metric(out, target).mean() for out, target in pairs])
    return figures


def _last_batch_figures(
    variant: Variant, problem: Problem, last: Step, epoch: int
) -> dict[str, float]:
    *_, batch = problem.but(checkpoint=None).epoch_batches(epoch - 1)
    with predictor(variant, last) as model:
        return evaluate(model, [batch], variant.loss, variant.metrics or {})


def validation_figures(
    variant: Variant,
    step: Step,
    batches: Sequence[tuple[Tensor, Tensor]],
    weighted: bool,
    score: Score = scored,
) -> dict[str, float]:
    """The figures on these validation rows; their names begin with ``val_``."""
    if not batches or step.model is None:
        return {}
    with predictor(variant, step) as model:
        figures = evaluate(model, batches, variant.loss, variant.metrics or {}, weighted, score)
    return {f"val_{name}": value for name, value in figures.items()}


def evaluate(
    model: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss | None,
    metrics: Mapping[str, Metric],
    weighted: bool = False,
    score: Score = scored,
) -> dict[str, float]:
    """Loss and metrics of ``model``'s outputs: means over ``batches`` of inputs and targets.

    They are weighted by the batches' sizes if ``weighted``; a batch on which a metric is undefined
    (NaN) does not count for it. ``score`` computes outputs and losses.
    """
    scores: dict[str, list[Tensor]] = {name: [] for name in (("loss",) if loss else ())}
    scores.update({name: [] for name in metrics})
    sizes = []
    with torch.no_grad():
        batches = list(batches) if not isinstance(batches, Sequence) else batches
        for (xb, yb), (output, value) in zip(batches, score(model, batches, loss), strict=True):
            sizes.append(rows_of(xb))
            if value is not None:
                scores["loss"].append(value)
            for name, metric in metrics.items():
                scores[name].append(metric(output, yb).mean())
    return {name: mean_of(values, sizes if weighted else None) for name, values in scores.items()}


@contextmanager
def predictor(variant: Variant, step: Step) -> Iterator[Callable[[Tensor], Tensor]]:
    """Gives a function from rows of the data set to outputs, without gradients.

    The step's net and model are in evaluation mode until this context is left. Raises
    :class:`ContractError` if the step does not show its model.
    """
    model, prepare = step.model, variant.prepare or (lambda rows: rows)
    if model is None:
        raise ContractError(f"variant {variant.name!r} yields no model= to predict with")
    modules = [module for module in (step.net, model) if isinstance(module, nn.Module)]
    were_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield lambda x: mapped(torch.Tensor.detach, call(model, prepare(x)))
    finally:
        for module, was_training in zip(modules, were_training, strict=True):
            module.train(was_training)


def mean_of(values: Sequence[Tensor], weights: Sequence[int] | None = None) -> float:
    """The mean of scalars, in float64 and without NaN; weighted if weights are given."""
    if len(values) == 1:
        return float(values[0].detach())
    return mean(torch.stack([value.detach() for value in values]), weights)


def mean(values: Tensor, weights: Sequence[int] | None = None) -> float:
    """The same as ``mean_of``, for scalars (N,) in one tensor."""
    values = values.cpu().double()  # a device need not have float64
    if weights is None:
        return float(values.nanmean())
    counted = ~values.isnan()
    weight = torch.tensor(weights, dtype=torch.float64)[counted]
    return float((values[counted] * weight).sum() / weight.sum())


def few_parameters(parameters: Mapping[str, Tensor]) -> dict[str, float]:
    """Each parameter value of a model that has only a few, by the parameter's name."""
    tensors = {name: torch.as_tensor(value).detach() for name, value in parameters.items()}
    if sum(t.numel() for t in tensors.values()) > FEW_PARAMETERS:
        return {}
    return {
        name if tensor.numel() == 1 else f"{name}[{i}]": value
        for name, tensor in tensors.items()
        for i, value in enumerate(tensor.flatten().tolist())
    }
