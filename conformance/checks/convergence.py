"""A whole run ends where the document says, and where earlier runs of the variant ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from refimpl.baselines import committed
from refimpl.baselines.bands import POWER, Band, Side, band, fails, stated
from refimpl.baselines.committed import Baseline, Metric
from refimpl.checking.checks import Measurement, Subject, check, true, within
from refimpl.contract import Figure
from refimpl.parity.whole_runs import trained
from refimpl.training.curves import Curve, learning_curves
from refimpl.training.live_model import first_step
from refimpl.training.loop import History

BETTER = (
    ", better than any: training may lack something that holds it back (dropout, weight decay, "
    "noise), may read validation rows or the wrong rows, or a kernel may be wrong"
)

IN_A_ROW = 3
"""How many seeds must lie outside where it is not known how often one does: 1 % cubed is enough."""


def _states_figures(subject: Subject) -> bool:
    return bool(subject.trained.stated_ranges(subject.tier))


@check(
    "reaches-documented-figures",
    applies=_states_figures,
    repeats=False,
    reading="training ends elsewhere than the document says; look first whether golden-trajectory "
    "or a gradient fails in the same example",
)
def reaches_documented_figures(subject: Subject) -> Iterator[Measurement | Curve]:
    """After the documented number of epochs, is each figure in its documented range?

    If the start is random and a baseline shows how many seeds end in the range, more seeds are run
    by the rule of ``refimpl.baselines.bands``. A figure at a step or an epoch that no baseline has
    fails if three seeds in a row lie outside on one side. Otherwise one run decides.
    """
    variant = subject.trained
    runs = [trained(variant, subject.tier, subject.execution)]
    yield from learning_curves(runs[0])
    drawn = variant.documented_start is None and _has_baseline(subject)
    baseline = committed.read_for(subject.example, variant, subject.tier) if drawn else None
    for figure, (low, high) in variant.stated_ranges(subject.tier):
        if figure.epoch == 0:
            yield within(figure.name, _before_training(subject, figure.metric), low, high)
            continue
        there = _figures_of(runs[0], figure)
        others = _others(baseline, figure)
        if figure.metric not in there:
            known = ", ".join(sorted(there)) or f"only {len(runs[0].epochs)} epochs"
            message = f"the run reports no {figure.name} (it reports {known})"
            yield true(figure.name, False, message)
        elif others:
            yield _reached(subject, figure, runs, stated(low, high, others))
        elif variant.documented_start is None and figure.epoch is not None:
            yield _reached(subject, figure, runs, _unknown(low, high))
        else:
            yield within(figure.name, there[figure.metric], low, high)


def _before_training(subject: Subject, metric: str) -> float:
    """The loss of the first batch before any update, or a metric of its output."""
    step = first_step(subject.trained, subject.tier, subject.execution).step
    if metric == "loss":
        return float(step.total)
    score = (subject.trained.metrics or {})[metric](step.output, step.target)
    return float(score.cpu().double().mean())


def _figures_of(run: History, stated: Figure) -> Mapping[str, float]:
    """A run's figures at the end, or at a figure's epoch and step; empty if it had none such."""
    if stated.epoch is None:
        return run.final
    if stated.epoch > len(run.epochs):
        return {}
    return run.epochs[stated.epoch - 1].figures_at(stated.step)


def _others(baseline: Baseline | None, figure: Figure) -> list[float]:
    """The same figure of the baseline's runs; empty if they do not have it."""
    if baseline is None or figure.metric not in baseline.metrics or figure.step is not None:
        return []
    if figure.epoch is None:
        return list(baseline.finals(figure.metric))
    if figure.epoch not in baseline.epochs:
        return []
    at = baseline.epochs.index(figure.epoch)
    return [run.curves[figure.metric][at] for run in baseline.runs if figure.metric in run.curves]


def _reached(subject: Subject, stated: Figure, runs: list[History], limits: Band) -> Measurement:
    """Whether the program is in a stated range, by its baseline and by these runs."""
    name = stated.name
    value = partial(_value, figure=stated)
    figure = within(name, value(runs[0]), limits.low, limits.high)
    if not limits.typical:
        message = (
            f"{limits.below} of {limits.runs} runs of the baseline end with {name} below "
            f"{figure.limit}, and {limits.above} above: most runs of the program miss this range"
        )
        return replace(figure, holds=False, message=message)
    failed = fails(_sides(subject, value, runs, limits), limits.fresh)
    rule = f"{figure.limit} ({_outside(limits)}; {limits.fresh} seeds in a row fail)"
    known = (
        f"of the baseline's {limits.runs} runs, {limits.below} are below and {limits.above} above"
    )
    message = (
        f"{_ends(name, value, runs, limits)} is {limits.side(value(runs[0]))} "
        f"{figure.limit} each time; {known if limits.runs else _outside(limits)}"
    )
    return replace(figure, limit=rule, holds=not failed, message=message)


def _unknown(low: float, high: float) -> Band:
    """A range of which no baseline says how often a run lies outside."""
    return Band(low, high, runs=0, fresh=IN_A_ROW, alpha=math.nan, detects=math.nan)


def _outside(limits: Band) -> str:
    """How many of the baseline's runs lie outside a range."""
    if not limits.runs:
        return "no baseline has this figure"
    counts = {"below": limits.below, "above": limits.above}
    parts = [f"{count} {side}" for side, count in counts.items() if count]
    return f"{' and '.join(parts) or 'none'} of {limits.runs} runs{'' if parts else ' outside'}"


def _has_baseline(subject: Subject) -> bool:
    variant = subject.trained
    if not variant.trains:
        return False
    return committed.path_of(subject.example, variant, subject.tier).exists()


@check(
    "stays-in-calibrated-band",
    applies=_has_baseline,
    repeats=False,
    reading="training ends elsewhere than it always did; look first whether golden-trajectory "
    "fails in the same example, then at the data's digest",
)
def stays_in_calibrated_band(subject: Subject) -> Iterator[Measurement | Curve]:
    """Does a run end where the baseline's runs do, by the rule of ``refimpl.baselines.bands``?"""
    baseline = committed.read_for(subject.example, subject.trained, subject.tier)
    runs = [_run(subject, 0)]
    yield from _curves_in_band(runs[0], baseline)
    for name, metric in baseline.metrics.items():
        if name not in runs[0].final:
            yield true(name, False, f"the run reports no {name}, which its baseline has")
            continue
        limits = band(baseline.finals(name), metric)
        value = partial(_value, figure=Figure(name, None))
        failed = bool(fails(_sides(subject, value, runs, limits), limits.fresh))
        yield _judged(name, metric, runs, limits, failed)


def _run(subject: Subject, further: int) -> History:
    """The run of the variant's own seed, which other checks share, or of a seed after it.

    A documented start is not used, since it is one start and baselines are of drawn ones.
    """
    variant = subject.trained
    shared = further == 0 and variant.documented_start is None
    seed = None if shared else variant.seed + further
    return trained(variant, subject.tier, subject.execution, seed)


def _value(run: History, figure: Figure) -> float:
    """What a run has for a figure."""
    return _figures_of(run, figure)[figure.metric]


def _sides(
    subject: Subject, value: Callable[[History], float], runs: list[History], limits: Band
) -> Iterator[Side]:
    """Where each run lies, one after the other; trains further runs when they are needed."""
    for further in range(limits.fresh):
        if further == len(runs):
            runs.append(_run(subject, further))
        yield limits.side(value(runs[further]))


def _judged(
    name: str, metric: Metric, runs: Sequence[History], limits: Band, failed: bool
) -> Measurement:
    """The first run's figure; if it fails, the message covers all the runs."""
    figure = within(name, runs[0].final[name], limits.low, limits.high)
    rule = (
        f"{figure.limit} ({limits.runs} runs; a shift of {limits.detects:.3g} fails with "
        f"probability {POWER:g}, an unchanged program with {limits.alpha:.1g})"
    )
    figure = replace(figure, resolution=limits.detects)
    if not failed:
        return replace(figure, limit=rule, holds=True)
    side = limits.side(runs[0].final[name])
    value = partial(_value, figure=Figure(name, None))
    worse = {"lower": "above", "higher": "below"}.get(metric.better)
    verdict = "" if worse is None else ", worse" if side == worse else BETTER
    message = (
        f"{_ends(name, value, runs, limits)} is {side} all {limits.runs} runs of the "
        f"baseline, {limits.low:.6g} … {limits.high:.6g}{verdict}"
    )
    return replace(figure, limit=rule, holds=False, message=message)


def _ends(
    name: str, value: Callable[[History], float], runs: Sequence[History], limits: Band
) -> str:
    """The figures of the runs that the rule used."""
    values = ", ".join(f"{value(run):.6g}" for run in runs[: limits.fresh])
    return f"{name} of {limits.fresh} seeds ({values})"


def _curves_in_band(run: History, baseline: Baseline) -> Iterator[Curve]:
    """The run's figures at the baseline's epochs, with the range of the baseline's runs."""
    for name in baseline.runs[0].curves:
        values = run.curve(name)
        if len(values) != len(run.epochs):
            continue
        others = list(zip(*(each.curves[name] for each in baseline.runs), strict=True))
        yield Curve(
            name,
            tuple(values[epoch - 1] for epoch in baseline.epochs),
            baseline.epochs,
            low=tuple(map(min, others)),
            high=tuple(map(max, others)),
        )
