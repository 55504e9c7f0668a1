"""Training by the document's protocol ends where the document says, and where it always has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from refimpl import baselines
from refimpl.bands import POWER, Band, Side, band, fails
from refimpl.baselines import Baseline, Metric
from refimpl.checking import Measurement, Subject, check, true, within
from refimpl.contract import Figure
from refimpl.curves import Curve, learning_curves
from refimpl.runs import trained
from refimpl.training import History


def _figures(subject: Subject) -> list[tuple[Figure, tuple[float, float]]]:
    """The figures that state a range for this tier, with it."""
    variant = subject.trained
    tier = variant.figures_tier(subject.tier)
    figures = variant.facts.figures if variant.facts else ()
    ranged = ((figure, figure.range_on(tier)) for figure in figures)
    return [(figure, bounds) for figure, bounds in ranged if bounds is not None]


@check("reaches-documented-figures", applies=lambda subject: bool(_figures(subject)))
def reaches_documented_figures(subject: Subject) -> Iterator[Measurement | Curve]:
    """After the documented epochs, does each figure lie where the document's does?"""
    history = trained(subject.trained, subject.tier, subject.execution)
    yield from learning_curves(history)
    for figure, (low, high) in _figures(subject):
        if figure.metric not in history.final:
            there = ", ".join(sorted(history.final))
            yield true(
                figure.metric, False, f"the run reports no {figure.metric} (it reports {there})"
            )
            continue
        yield within(figure.metric, history.final[figure.metric], low, high)


def _has_baseline(subject: Subject) -> bool:
    variant = subject.trained
    if not variant.trains:
        return False
    return baselines.path_of(subject.example, variant, subject.tier).exists()


@check("stays-in-calibrated-band", applies=_has_baseline)
def stays_in_calibrated_band(subject: Subject) -> Iterator[Measurement | Curve]:
    """Does a run end among those of the baseline, by the rule of ``refimpl.bands``?"""
    baseline = baselines.read_for(subject.example, subject.trained, subject.tier)
    runs = [_run(subject, 0)]
    yield from _curves_in_band(runs[0], baseline)
    for name, metric in baseline.metrics.items():
        if name not in runs[0].final:
            yield true(name, False, f"the run reports no {name}, which its baseline has")
            continue
        limits = band(baseline.finals(name), metric)
        failed = bool(fails(_sides(subject, name, runs, limits), limits.fresh))
        yield _judged(name, metric, runs, limits, failed)


def _run(subject: Subject, further: int) -> History:
    """The run of the variant's own seed, which other checks share, or of one of those after it.

    A documented start is one start; baselines are of drawn ones.
    """
    variant = subject.trained
    shared = further == 0 and variant.documented_start is None
    seed = None if shared else variant.seed + further
    return trained(variant, subject.tier, subject.execution, seed)


def _sides(subject: Subject, name: str, runs: list[History], limits: Band) -> Iterator[Side]:
    """Where one run after the other lies; those that no figure has asked for yet are made."""
    for further in range(limits.fresh):
        if further == len(runs):
            runs.append(_run(subject, further))
        yield limits.side(runs[further].final[name])


def _judged(
    name: str, metric: Metric, runs: Sequence[History], limits: Band, failed: bool
) -> Measurement:
    """The first run's figure, and what all of them say where it fails."""
    figure = within(name, runs[0].final[name], limits.low, limits.high)
    stated = (
        f"{figure.limit} ({limits.runs} runs; a shift of {limits.detects:.3g} fails with "
        f"probability {POWER:g}, none with {limits.alpha:.1g})"
    )
    if not failed:
        return replace(figure, limit=stated, holds=True)
    side = limits.side(runs[0].final[name])
    worse = {"lower": "above", "higher": "below"}.get(metric.better)
    verdict = "" if worse is None else ", worse" if side == worse else ", better: does it leak?"
    values = ", ".join(f"{run.final[name]:.6g}" for run in runs[: limits.fresh])
    message = (
        f"{name} of {limits.fresh} seeds ({values}) is {side} all {limits.runs} runs of the "
        f"baseline, {limits.low:.6g} … {limits.high:.6g}{verdict}"
    )
    return replace(figure, limit=stated, holds=False, message=message)


def _curves_in_band(run: History, baseline: Baseline) -> Iterator[Curve]:
    """The run's figures at the baseline's epochs, over the range of its runs."""
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
