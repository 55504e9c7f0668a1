"""What many runs of one environment say over time: a verdict each, and a trend for each figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refimpl.report.changes import torch_of
from refimpl.report.columns import Column, State, moment
from refimpl.report.plots import Drawn, Plot, Series, plot

TRENDS = 24
"""So many trends are drawn of an environment: the figures that moved most of their range."""


@dataclass(frozen=True)
class Past:
    """One run of an environment: when, with which torch, and what came of it."""

    when: str
    torch: str
    state: State
    failed: int


@dataclass(frozen=True)
class History:
    """The runs of one environment, the oldest first, and how its figures went."""

    environment: str
    runs: tuple[Past, ...]
    trends: tuple[Plot, ...]


def histories(columns: Sequence[Column]) -> tuple[History, ...]:
    """A history for each Python, device, tier and seeds of which there are several runs."""
    alike: dict[str, list[Column]] = defaultdict(list)
    for column in columns:
        if column.runs:
            alike[_environment(column)].append(column)
    return tuple(_history(name, own) for name, own in sorted(alike.items()) if len(own) > 1)


def _environment(column: Column) -> str:
    python = ".".join(str(column.environment.get("python", "?")).split(".")[:2])
    parts = [f"Python {python}", str(column.header.get("device", "?"))]
    parts += ["real data"] if column.header.get("tier") == "real" else []
    parts += [f"reseed {column.reseed}"] if column.reseed else []
    return " · ".join(parts)


def _history(name: str, columns: Sequence[Column]) -> History:
    ordered = sorted(columns, key=lambda column: str(column.header.get("started", "")))
    runs = tuple(
        Past(
            moment(column.header.get("started", "")),
            torch_of(column),
            column.state,
            sum(result.outcome == "failed" for result in column.results.values()),
        )
        for column in ordered
    )
    trends = sorted(_trends(ordered), key=lambda pair: -pair[0])
    return History(name, runs, tuple(drawing for _, drawing in trends[:TRENDS]))


def _trends(columns: Sequence[Column]) -> Iterator[tuple[float, Plot]]:
    """How much of its range each figure moved over, and its drawing."""
    values: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    ranges: dict[tuple[str, str], tuple[float, float]] = {}
    for number, column in enumerate(columns, start=1):
        for result in column.results.values():
            for measured in result.measurements:
                if measured.low is None or measured.high is None:
                    continue
                if isinstance(measured.measured, float):
                    key = (result.id, measured.what)
                    values[key].append((number, measured.measured))
                    ranges[key] = (measured.low, measured.high)
    for (cell, what), points in values.items():
        low, high = ranges[cell, what]
        at, own = zip(*points, strict=True)
        spread = (max(own) - min(own)) / (high - low) if high > low else 0.0
        if len(points) < 2 or not spread:
            continue
        example, variant, *_ = cell.split("/")
        series = [Series((f"{example}, {variant}",), tuple(map(float, at)), own, 0)]
        title = f"{example} · {variant} · {what}"
        drawing = plot(Drawn(title, "run", series, target=(low, high)))
        if drawing is not None:
            yield spread, drawing
