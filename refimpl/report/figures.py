"""A table of the documents' figures beside the measured ones, made from results files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refimpl.checking.checks import Measurement, Result
from refimpl.checking.results import Results
from refimpl.contract import Example, Figure
from refimpl.markdown import table

CHECK = "reaches-documented-figures"


@dataclass(frozen=True)
class Line:
    """One figure of one variant: the document's value, the measured one, and the limit."""

    example: str
    variant: str
    metric: str
    documented: float | None
    measured: str
    limit: str
    verdict: str
    seconds: float
    torch: str


def lines(results: Sequence[Results], examples: dict[str, Example]) -> Iterator[Line]:
    """Every figure of the convergence checks on real data, from the run that began last."""
    latest: dict[str, tuple[Result, str]] = {}
    for run in sorted(results, key=lambda run: str(run.header.get("started", ""))):
        torch = run.header["environment"]["packages"]["torch"]
        for result in run.checks:
            if result.check == CHECK and result.tier == "real" and result.measurements:
                latest[result.id] = (result, torch)
    for result, torch in (latest[key] for key in sorted(latest)):
        stated = _stated(examples.get(result.example), result.variant)
        for measurement in result.measurements:
            figure = stated.get(measurement.what)
            yield Line(
                result.example,
                result.variant,
                measurement.what,
                figure.documented if figure else None,
                _short(measurement.measured),
                measurement.limit,
                _verdict(measurement, figure),
                result.seconds,
                torch,
            )


def _stated(example: Example | None, variant: str) -> dict[str, Figure]:
    if example is None or variant not in {v.name for v in example.variants}:
        return {}
    facts = example.variant(variant).facts
    return {figure.name: figure for figure in facts.figures} if facts else {}


def _verdict(measurement: Measurement, figure: Figure | None) -> str:
    """Whether the range is reached, by which rule, and whether the document's figure is in it.

    If the first run ends outside the range, although most runs end inside, further seeds decide.
    """
    if not measurement.holds:
        return "**does not hold**"
    low, high = measurement.low, measurement.high
    if low is None or high is None:
        return "holds"
    value = measurement.measured
    inside = isinstance(value, (int, float)) and low <= value <= high
    verdict = "holds" if inside else "holds on a retry with further seeds"
    if figure is None or figure.documented is None or low <= figure.documented <= high:
        return verdict
    because = f": {figure.outside_because}" if figure.outside_because else ""
    return f"{verdict}; the document's own lies outside{because}"


def _short(value: object) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def markdown(found: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    head = ("example", "variant", "figure", "document", "measured", "range", "", "seconds", "torch")
    rows = [
        (
            line.example,
            line.variant,
            line.metric,
            "" if line.documented is None else f"{line.documented:g}",
            line.measured,
            line.limit,
            line.verdict,
            f"{line.seconds:.0f}",
            line.torch,
        )
        for line in found
    ]
    return table([head, *rows])
