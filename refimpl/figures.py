"""The documents' figures beside those measured, as a table made from results files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refimpl.checking import Result
from refimpl.contract import Example
from refimpl.results import Results

CHECK = "reaches-documented-figures"


@dataclass(frozen=True)
class Line:
    """One figure of one variant: what the document printed, what was measured, and the limit."""

    example: str
    variant: str
    metric: str
    documented: float | None
    measured: str
    limit: str
    holds: bool
    seconds: float
    torch: str


def lines(results: Sequence[Results], examples: dict[str, Example]) -> Iterator[Line]:
    """Every figure of the convergence checks on real data, the latest measurement of each."""
    latest: dict[str, tuple[Result, str]] = {}
    for run in results:
        torch = run.header["environment"]["packages"]["torch"]
        for result in run.checks:
            if result.check == CHECK and result.tier == "real" and result.measurements:
                latest[result.id] = (result, torch)
    for result, torch in (latest[key] for key in sorted(latest)):
        documented = _documented(examples.get(result.example), result.variant)
        for measurement in result.measurements:
            yield Line(
                result.example,
                result.variant,
                measurement.what,
                documented.get(measurement.what),
                _short(measurement.measured),
                measurement.limit,
                measurement.holds,
                result.seconds,
                torch,
            )


def _documented(example: Example | None, variant: str) -> dict[str, float | None]:
    if example is None or variant not in {v.name for v in example.variants}:
        return {}
    facts = example.variant(variant).facts
    return {figure.metric: figure.documented for figure in facts.figures} if facts else {}


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
            "holds" if line.holds else "**does not hold**",
            f"{line.seconds:.0f}",
            line.torch,
        )
        for line in found
    ]
    rule = ("---",) * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows)) + "\n"
