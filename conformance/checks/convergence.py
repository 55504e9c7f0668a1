"""Training by the document's protocol ends where the document says."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checking import Measurement, Subject, check, true, within
from refimpl.contract import Figure
from refimpl.curves import Curve, learning_curves
from refimpl.runs import trained


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
