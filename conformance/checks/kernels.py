"""Every call of torch is right by itself, and so is every layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from refimpl.checking.checks import Measurement, Place, Subject, check, true, within_budget
from refimpl.conformance.checks.facts import possible_here
from refimpl.conformance.checks.protocol import is_run_here
from refimpl.parity.judged_steps import computes_here, judged
from refimpl.parity.judged_values import judge_values
from refimpl.parity.kernel_judge import JudgedCall, KernelJudge
from refimpl.parity.layer_definitions import DEFINITIONS
from refimpl.parity.leaf_modules import judge_layers
from refimpl.parity.optimizer_alone import judge_alone
from refimpl.parity.whole_runs import judged_updates, trained
from refimpl.records import of_values
from refimpl.training.problem import pose
from refimpl.whereabouts import names_something_of

OF_A_LAYER = ("aten::mkldnn_rnn_layer", "aten::_cudnn_rnn", "aten::_thnn_fused")
"""Kernels without a float64 twin on the CPU that are the whole of a layer, which is judged."""


def _is_judged(subject: Subject) -> bool:
    """A run in torch and in this process, in a precision that float64 can judge."""
    execution = subject.execution
    itself = execution.device == "cpu" and execution.dtype == "float64"
    return not (subject.trained.numpy or itself) and computes_here(execution)


@check(
    "each-kernel-is-right",
    about="execution",
    applies=_is_judged,
    reading="one call of torch, with its own inputs, is further from float64 than rounding takes "
    "it, or does what its kernel does not declare: the kernel that is named is wrong, or the layer "
    "that calls it",
)
def each_kernel_is_right(subject: Subject) -> Iterator[Measurement]:
    """Is every call of a step and of predictions within what rounding does to its own inputs?"""
    seen = judged(subject.trained, subject.execution, subject.tier)
    yield from _calls(seen)
    wanted = subject.execution.rounding
    if wanted in ("bfloat16", "float16"):
        others = [dtype for dtype in seen.narrow if dtype != wanted]
        message = f"{subject.execution.name} computes in {' and '.join(others)}, not in {wanted}"
        yield true(f"computes in {wanted}", not others, message)


@check(
    "updates-stay-right",
    applies=lambda subject: _is_judged(subject) and is_run_here(subject),
    repeats=False,
    reading="in the step that is named, a call of torch is wrong by itself, or the optimizer "
    "computes something else than its formula, or is given other gradients than backward made",
)
def updates_stay_right(subject: Subject) -> Iterator[Measurement]:
    """Do updates from all of a run follow the optimizer's formula, and are late calls right?"""
    problem = pose(subject.trained, subject.tier, execution=subject.execution)
    alone = judge_alone(subject.trained, problem)
    if alone.judged:
        yield within_budget("furthest update of the optimizer alone", alone.worst)
    yield from (isolating(call, call.kernel) for call in alone.beyond)
    seen = judged_updates(subject.trained, subject.tier, subject.execution)
    if seen.kernels.judged or seen.kernels.unjudged:
        yield from _calls(seen.kernels)
    elif not seen.judged:
        steps = trained(subject.trained, subject.tier, subject.execution).steps
        yield Measurement("updates by hand, of which the first are judged", steps, "counted", True)
        return
    if seen.judged:
        yield Measurement("updated tensors judged", seen.judged, "≥ 1", True, low=1)
        yield within_budget("furthest update over what rounding explains", seen.worst)
    beyond = [*(each for each in seen.layers if not each.ratio <= 1), *seen.beyond]
    yield from (isolating(call, call.kernel) for call in beyond)
    message = (
        f"update {seen.stale[0] if seen.stale else 0} uses other gradients than backward made "
        "since the update before: they are not zeroed, or changed in between"
    )
    yield true("updates use the gradients as made", not seen.stale, message)


@check(
    "values-compute-rightly",
    about="example",
    on_cpu=True,
    applies=lambda s: bool(s.example.values) and names_something_of(s.example, "torch"),
    reading="something of torch that an exact value calls is further from float64 than rounding "
    "takes it, whatever the value itself shows: the kernel, layer or optimizer that is named is "
    "wrong",
)
def values_compute_rightly(subject: Subject) -> Iterator[Measurement]:
    """Is every call, layer and update with which exact values are computed right by itself?"""
    possible_here(subject.example.values)
    possible = of_values.possible(subject.example)
    seen = judge_values({key: of_values.tried(claim) for key, claim in possible})
    if seen.kernels.judged:
        yield from _calls(seen.kernels)
    yield Measurement("results of layers judged", len(seen.layers), "counted", True)
    yield Measurement("updated tensors judged", seen.updates.judged, "counted", True)
    beyond = [each for each in (*seen.layers, *seen.updates.beyond) if not each.ratio <= 1]
    yield from (isolating(call, call.kernel) for call in beyond)


def _calls(seen: KernelJudge) -> Iterator[Measurement]:
    """How many calls were judged, how far off the furthest is, and those beyond what is allowed."""
    count = sum(seen.judged.values())
    yield Measurement("calls judged", count, "≥ 1", count > 0, "no call of torch was seen", low=1)
    unjudged = {name: n for name, n in seen.unjudged.items() if not name.startswith(OF_A_LAYER)}
    without = ", ".join(f"{n} {kernel} ({seen.why[kernel]})" for kernel, n in unjudged.items())
    message = f"{sum(unjudged.values())} calls not judged: {without}"
    yield Measurement(
        "calls not judged", sum(unjudged.values()), "≤ 0", not unjudged, message, high=0
    )
    sound = [(ratio, kernel) for kernel, ratio in seen.worst.items() if ratio <= 1]
    if sound:
        ratio, kernel = max(sound)
        yield within_budget(f"furthest call, {kernel}", ratio)
    yield from (isolating(call, call.kernel) for call in seen.beyond)
    for kernel, message in seen.undeclared.items():
        broken = true(f"{kernel} does what it declares", False, message)
        yield replace(broken, place=Place(0, "output", kernel, 0.0, 0.0), isolates=kernel)


def _has_layers(subject: Subject) -> bool:
    """A module whose layers can be called one by one, as the execution would call each."""
    return (
        _is_judged(subject) and subject.trained.has_module and subject.execution.steps is None
        and subject.trained.has_layer(*DEFINITIONS)
    )  # fmt: skip


@check(
    "each-layer-is-right",
    about="execution",
    applies=_has_layers,
    reading="a layer, called by itself, is further from its definition than rounding takes it: the "
    "kernel that it calls is wrong, or what Python, a wrapper or a mode puts around it",
)
def each_layer_is_right(subject: Subject) -> Iterator[Measurement]:
    """Does each layer compute its definition, in training and in evaluation, and its gradients?"""
    seen = judge_layers(subject.trained, subject.execution, subject.tier)
    if seen.passed_over and not seen.judged:
        # A net may take a layer's parameters and compute with them itself: F.linear(x, lin.weight).
        what = "layers that the net does not call, so that their kernels alone are judged"
        where = ", ".join(seen.passed_over)
        yield Measurement(what, len(seen.passed_over), "counted", True, where=where)
        return
    yield Measurement(
        "results of layers judged", len(seen.judged), "≥ 1", bool(seen.judged),
        "no layer that has a definition is called", low=1,
    )  # fmt: skip
    worst = max((each.ratio for each in seen.judged if each.ratio <= 1), default=0.0)
    yield within_budget("furthest layer over what rounding explains", worst)
    yield from (isolating(call, call.kernel.partition(" ")[0]) for call in seen.beyond)


def isolating(call: JudgedCall, what: str) -> Measurement:
    """A result that rounding does not explain, of one thing of torch that was called by itself."""
    kind = "gradient" if "gradient" in call.role else "output"
    place = Place(0, kind, call.kernel, call.found, call.expected)
    return replace(beyond(call), place=place, isolates=what)


def beyond(call: JudgedCall) -> Measurement:
    """A result that rounding does not explain."""
    return Measurement(
        call.kernel, call.ratio, "≤ 1", False, str(call), high=1.0, unit="budget", where=str(call)
    )
