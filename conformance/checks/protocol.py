"""The protocol: what a whole run was seen to do, against what is stated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from refimpl.checking.checks import Measurement, Subject, check, equal, true
from refimpl.contract import Variant
from refimpl.parity.whole_runs import trained
from refimpl.records import files, of_runs
from refimpl.training.problem import Problem, pose
from refimpl.training.witness import Constants, Witness

CLOSE = 1e-6
BY_HAND = 1e-3
"""The relative error allowed in a rate that is seen only by how far parameters move in float32."""

MOVES = 1e-3
REPEATED = 4
"""So many epochs in a row with the very losses of earlier ones are no coincidence."""


def is_run_here(subject: Subject) -> bool:
    """Whether a whole run is made in this process, where it can be watched."""
    return subject.trained.trains and subject.execution.steps is None


@check(
    "run-follows-its-protocol",
    applies=is_run_here,
    repeats=False,
    reading="in the update or epoch that is named, the loop uses another rate, optimizer, order or "
    "mode than its protocol; take them from the problem, and state what the document does",
)
def run_follows_its_protocol(subject: Subject) -> Iterator[Measurement]:
    """Has every epoch of a run the stated optimizer, rate, rows and order, in training mode?"""
    variant = subject.trained
    run = trained(variant, subject.tier, subject.execution)
    problem = pose(variant, subject.tier, execution=subject.execution)
    yield equal("updates seen", run.steps > 0, True)
    seen = run.witness
    if seen is None:
        return
    yield from _rates(problem, seen)
    yield from _constants(variant, problem, seen)
    yield from _rows(problem, seen)
    yield from _repeated(seen.losses)
    yield true(
        "updates are made in training mode",
        not seen.not_training,
        f"the module is in evaluation mode while it is trained, first in epoch "
        f"{seen.not_training[0] if seen.not_training else 0}: call train() after eval()",
    )


# --- as recorded ---------------------------------------------------------------------------------


def _recorded(subject: Subject) -> Any:
    own = files.recorded("runs", subject.example.name, subject.example)
    return own.get(subject.trained.name)


@check(
    "run-as-recorded",
    on_cpu=True,
    applies=lambda subject: subject.trained.trains and _recorded(subject) is not None,
    reading="up to the epoch before the one that is named, the run goes as it did; look at what "
    "changes there: a rate, an order, a constant. If that is meant, refimpl record NAME --kind "
    "runs --because REASON keeps the new run, and the reason",
)
def run_as_recorded(subject: Subject) -> Iterator[Measurement]:
    """In float64, is the loss and each norm at the end of every epoch as it is committed?

    Each epoch has few updates of few rows. A record ends where rounding might show. The seed is the
    recorded one, whatever seeds the other checks get.
    """
    name, recorded = subject.trained.name, _recorded(subject)
    found = of_runs.today(subject.trained, "stand-in", recorded)
    yield equal(f"figures of {name}", sorted(found), sorted(recorded))
    yield equal(f"epochs of {name}", found["epochs"], recorded["epochs"])
    if found.keys() != recorded.keys() or found["epochs"] != recorded["epochs"]:
        return
    for place, epoch in enumerate(recorded["epochs"]):
        now, then = (
            {n: own[n][place] for n in recorded if n != "seed"} for own in (found, recorded)
        )
        moved = list(files.differences(now, then))
        if moved:
            message = f"{name} is another run from epoch {epoch} on: {files.shown(moved)}"
            yield true(f"run of {name}", False, message)
            return
    yield true(f"run of {name}", True, "")


# --- the optimizer -------------------------------------------------------------------------------


def _rates(problem: Problem, seen: Witness) -> Iterator[Measurement]:
    """The learning rate of every update, by its optimizer or by how far it moved."""
    wrong = []
    for entry, until in _stretches(seen.constants, problem.length):
        rates = [float(group["lr"]) for group in entry.groups if "lr" in group]
        for number in (entry.update, until - 1):
            expected = problem.rate(number)
            if len(rates) == 1 and not _near(rates[0], expected, CLOSE):
                wrong.append(_said(problem, number, rates[0], expected))
    for number, (rate, error) in seen.rates.items():
        expected = problem.rate(number)
        if abs(rate - expected) > BY_HAND * expected + 4 * error:
            wrong.append(_said(problem, number, rate, expected))
    what = "learning rate of every update"
    yield true(what, not wrong, "; ".join(wrong[:2]))
    first = seen.constants[0] if seen.constants else None
    if first is not None and len(first.groups) > 1:
        yield from _course(problem, seen, first)


def _course(problem: Problem, seen: Witness, first: Constants) -> Iterator[Measurement]:
    """Groups may have rates of their own; only their course is stated."""
    start = [float(group.get("lr", 0)) for group in first.groups]
    wrong = []
    for entry, _ in _stretches(seen.constants, problem.length):
        rates = [float(group.get("lr", 0)) for group in entry.groups]
        share = problem.rate(entry.update) / problem.rate(0) if problem.rate(0) else 1.0
        if len(rates) == len(start) and not all(
            _near(rate, share * begun, CLOSE) for rate, begun in zip(rates, start, strict=True)
        ):
            wrong.append(f"update {entry.update + 1} has the rates {rates}, at first {start}")
    yield true("course of the learning rates", not wrong, "; ".join(wrong[:2]))


def _stretches(constants: Sequence[Constants], length: int) -> Iterator[tuple[Constants, int]]:
    ends = [*(entry.update for entry in constants[1:]), length]
    yield from zip(constants, ends, strict=False)


def _said(problem: Problem, number: int, found: float, expected: float) -> str:
    epoch = number // problem.steps_per_epoch + 1
    return (
        f"update {number + 1}, in epoch {epoch}, has the learning rate {found:.6g}, expected "
        f"{expected:.6g}"
    )


def _near(found: float, expected: float, share: float) -> bool:
    return abs(found - expected) <= share * max(abs(found), abs(expected))


def _constants(variant: Variant, problem: Problem, seen: Witness) -> Iterator[Measurement]:
    """One optimizer with the same constants in the whole run; that which the variant states."""
    if not seen.constants:
        return
    first = seen.constants[0]
    changed = [
        f"update {entry.update + 1}: {_but_rate(entry)} for {_but_rate(first)}"
        for entry in seen.constants[1:]
        if _but_rate(entry) != _but_rate(first)
    ]
    yield equal("changes of the optimizer and its constants", changed[:2], [])
    if variant.optimizer is None or len(first.groups) != 1:
        return
    stated = variant.optimizer([torch.zeros(1, requires_grad=True)], lr=problem.lr)
    yield equal("optimizer", first.optimizer, type(stated).__name__)
    own, other = first.groups[0], stated.param_groups[0]
    apart = {
        name: f"{own[name]}, stated {other[name]}"
        for name in own
        if name in other and name != "lr" and own[name] != other[name]
    }
    yield equal("constants of the optimizer that are not as stated", apart, {})


def _but_rate(entry: Constants) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    groups = tuple({n: v for n, v in g.items() if n != "lr"} for g in entry.groups)
    return entry.optimizer, groups


# --- rows ----------------------------------------------------------------------------------------


def _rows(problem: Problem, seen: Witness) -> Iterator[Measurement]:
    if not seen.rows_seen:
        return
    yield equal("updates with other targets than their batch's", seen.other_rows, [])
    if seen.inputs_seen:
        message = (
            f"updates {', '.join(map(str, seen.other_inputs))} are made with other inputs than "
            "their batch has: something changes or exchanges them"
        )
        yield true("inputs are the rows themselves", not seen.other_inputs, message)
    protocol, rows = problem.protocol, len(problem.train)
    varied = len(torch.unique(problem.train.y[:1000])) > 1
    if len(seen.orders) < 2 or not varied:
        return
    batches = problem.batches_per_epoch > 1
    if protocol.shuffle and batches and rows > 10:
        times = len(seen.orders) - len(set(seen.orders))
        yield equal("epochs that read the rows in the order of another", times, 0)
    elif not protocol.shuffle:
        yield equal("orders in which epochs read the rows", len(set(seen.orders)), 1)


def _repeated(losses: Sequence[float]) -> Iterator[Measurement]:
    """Whether the losses of some epochs are exactly those of earlier ones: a run begun anew."""
    if len(losses) < 2 * REPEATED:
        return
    met: dict[tuple[float, ...], int] = {}
    for begin in range(len(losses) - REPEATED + 1):
        stretch = tuple(losses[begin : begin + REPEATED])
        if len(set(stretch)) < REPEATED or max(stretch) - min(stretch) < MOVES * max(stretch):
            continue  # it has converged, where rounding alone moves it
        if stretch in met:
            message = (
                f"the losses from epoch {begin + 1} on are those from epoch {met[stretch] + 1} on: "
                "the run begins again where it began"
            )
            yield true("no epochs are made twice", False, message)
            return
        met[stretch] = begin
    yield true("no epochs are made twice", True, "")
