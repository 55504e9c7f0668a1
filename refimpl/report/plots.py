"""Curves and dots as geometry: their places in a drawing. The template turns it into SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refimpl.training.curves import evenly_spaced

WIDTH, HEIGHT = 320.0, 180.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 8.0, 24.0

POINTS_DRAWN = 50
"""A line of 250 pixels says no more with more points."""

NAMES_SHOWN = 4
"""Of so many runs that make one line, all are named."""

COLOURS = 8
"""How many colours the style sheet has; further series begin again, dashed."""

SAME_LINE = 0.005
"""Lines nearer than this part of the drawing's height are drawn as one."""

DECADES = 2.0
"""A figure that is positive and spans more than so many powers of ten is drawn on a log scale."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Series:
    """One line: its points as pairs of numbers, and what it is of."""

    names: tuple[str, ...]
    at: tuple[float, ...]
    values: tuple[float, ...]
    colour: int | None = 0

    @property
    def name(self) -> str:
        """Who it is of; several where their lines are one and the same, the first of many."""
        shown = self.names if len(self.names) <= NAMES_SHOWN else self.names[: NAMES_SHOWN - 1]
        rest = len(self.names) - len(shown)
        return ", ".join(shown) + (f" and {rest} more" if rest else "")

    @property
    def finite(self) -> list[tuple[float, float]]:
        """Its points that can be drawn."""
        return [(x, y) for x, y in zip(self.at, self.values, strict=True) if math.isfinite(y)]


@dataclass(frozen=True)
class Line:
    """One line as it is drawn."""

    name: str
    path: str
    colour: int | None
    dashed: bool
    first: float
    last: float
    end: tuple[float, float]


@dataclass(frozen=True)
class Plot:
    """One drawing, in units of its view box."""

    what: str
    along: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    logarithmic: bool
    band: str = ""
    target: tuple[float, float] | None = None
    target_text: str = ""
    limit: float | None = None
    width: float = WIDTH
    height: float = HEIGHT

    @property
    def sentence(self) -> str:
        """The drawing in words, for screen readers."""
        ways = "; ".join(
            f"{line.name}: from {number(line.first)} to {number(line.last)}" for line in self.lines
        )
        last = self.across[-1].text if self.across else "?"
        target = f"; should end in {self.target_text}" if self.target_text else ""
        return f"{self.what} over {last} {self.along}s: {ways}{target}"


# --- scales --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """Numbers from ``low`` to ``high`` onto positions from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Where a number stands; what is out of range stands at the end."""
        low, high, own = (self._plain(v) for v in (self.low, self.high, value))
        part = (own - low) / (high - low) if high > low else 0.5
        return round(self.start + min(1.0, max(0.0, part)) * (self.end - self.start), 1)

    def _plain(self, value: float) -> float:
        if not self.logarithmic:
            return value
        return math.log10(max(value, self.low))

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """A few round numbers within the scale."""
        values = _decades(self.low, self.high) if self.logarithmic else _round(self.low, self.high)
        return tuple(Tick(self(value), number(value)) for value in values)


def number(value: float) -> str:
    """A number for a reader: four digits that mean something."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _round(low: float, high: float, about: int = 4) -> list[float]:
    """About so many multiples of 1, 2 or 5 times a power of ten between two numbers."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 12) for i in range(count)]


def _decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / 5))
    return [10.0**power for power in range(first, last + 1, every)]


# --- curves --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """What is to be drawn of one figure: its lines, and what they should keep to.

    ``band`` is epochs, lower and upper edge; ``target`` the range to end in; ``limit`` what no
    value may exceed.
    """

    what: str
    along: str
    series: Sequence[Series]
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None
    target: tuple[float, float] | None = None
    limit: float | None = None

    @property
    def bounds(self) -> list[float]:
        """Every finite number that must be in the drawing beside the lines."""
        edges = [*self.band[1], *self.band[2]] if self.band else []
        limits = [self.limit] if self.limit is not None else []
        return [v for v in (*edges, *(self.target or ()), *limits) if math.isfinite(v)]


def plot(drawn: Drawn) -> Plot | None:
    """The drawing, or ``None`` where no point of it is finite."""
    series = merged(drawn.series)
    points = [point for line in series for point in line.finite]
    if not points:
        return None
    across, up = _scales(points, drawn.bounds)
    low, high = sorted(drawn.target) if drawn.target else (0.0, 0.0)
    return Plot(
        drawn.what,
        drawn.along,
        tuple(_line(line, across, up) for line in series if line.finite),
        _whole(across),
        up.ticks,
        up.logarithmic,
        _band(drawn, across, up),
        (up(high), up(low)) if drawn.target else None,
        f"{number(low)} … {number(high)}" if drawn.target else "",
        up(drawn.limit) if drawn.limit is not None else None,
    )


def merged(series: Sequence[Series]) -> list[Series]:
    """The series, those that look the same as one, with all their names.

    It has no colour of its own where they have several: one would hide the others.
    """
    values = [y for line in series for _, y in line.finite]
    close = SAME_LINE * (max(values) - min(values)) if values else 0.0
    found: list[Series] = []
    for line in series:
        n = next((n for n, other in enumerate(found) if _look_alike(line, other, close)), None)
        if n is None:
            found.append(line)
            continue
        same = found[n]
        colour = line.colour if same.colour == line.colour else None
        found[n] = Series((*same.names, *line.names), same.at, same.values, colour)
    return found


def _look_alike(one: Series, other: Series, close: float) -> bool:
    """Whether two lines are drawn within each other's width, on either scale."""
    return one.at == other.at and all(
        number(a) == number(b) or (abs(a - b) <= close and abs(a - b) <= SAME_LINE * abs(a))
        for a, b in zip(one.values, other.values, strict=True)
    )


def _scales(points: Sequence[tuple[float, float]], bounds: Sequence[float]) -> tuple[Scale, Scale]:
    xs = [x for x, _ in points]
    ys = [*(y for _, y in points), *bounds]
    low, high = min(ys), max(ys)
    logarithmic = low > 0 and math.log10(high / low) > DECADES
    if not logarithmic:
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        low, high = low - margin, high + margin
    return (
        Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT),
        Scale(low, high, HEIGHT - BOTTOM, TOP, logarithmic),
    )


def _whole(across: Scale) -> tuple[Tick, ...]:
    """Ticks at whole epochs or steps; the last one of all is always among them."""
    ticks = [Tick(across(v), f"{v:.0f}") for v in _round(across.low, across.high) if v == int(v)]
    first, last = (Tick(across(v), f"{v:.0f}") for v in (across.low, across.high))
    between = [tick for tick in ticks if tick.at - first.at > 20 and last.at - tick.at > 24]
    return (first, *between, last) if last.at > first.at else (last,)


def _line(series: Series, across: Scale, up: Scale) -> Line:
    finite = series.finite
    points = [finite[i] for i in evenly_spaced(len(finite), POINTS_DRAWN)]
    path = "M" + "L".join(f"{across(x):g} {up(y):g}" for x, y in points)
    values = [y for _, y in finite]
    x, y = points[-1]
    colour = None if series.colour is None else series.colour % COLOURS
    dashed = series.colour is not None and series.colour >= COLOURS
    return Line(series.name, path, colour, dashed, values[0], values[-1], (across(x), up(y)))


def _band(drawn: Drawn, across: Scale, up: Scale) -> str:
    """The outline of the band: along its upper edge, and back along the lower one."""
    if not drawn.band:
        return ""
    rows = [row for row in zip(*drawn.band, strict=True) if all(map(math.isfinite, row))]
    edge = [(at, high) for at, _, high in rows] + [(at, low) for at, low, _ in reversed(rows)]
    return "M" + "L".join(f"{across(x):g} {up(y):g}" for x, y in edge) + "Z" if edge else ""


# --- errors over their budgets -------------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """One error over its budget: where it stands, whether it is within, and what it is of."""

    at: float
    name: str
    ratio: float

    @property
    def within(self) -> bool:
        """Whether the budget holds; NaN does not."""
        return self.ratio <= 1.0


@dataclass(frozen=True)
class Strip:
    """One example's errors in one row."""

    name: str
    dots: tuple[Dot, ...]

    @property
    def worst(self) -> Dot:
        """The largest of them."""
        return max(self.dots, key=lambda dot: _order(dot.ratio))


@dataclass(frozen=True)
class Strips:
    """Errors over their budgets, an example a row, on one log scale. The budget stands at 1."""

    strips: tuple[Strip, ...]
    ticks: tuple[Tick, ...]
    budget: float


SMALLEST = 1e-4
"""Errors of less than this part of their budget stand at the left edge."""


def strips(ratios: Mapping[str, Sequence[tuple[str, float]]]) -> Strips:
    """Named ratios of each example as dots, at percentages of the row's width."""
    largest = max((_order(r) for own in ratios.values() for _, r in own), default=1.0)
    scale = Scale(SMALLEST, 10.0 if largest <= 10 else 1e3, 0.0, 100.0, logarithmic=True)
    rows = tuple(
        Strip(name, _apart([Dot(scale(_order(ratio)), of, ratio) for of, ratio in own]))
        for name, own in ratios.items()
    )
    return Strips(rows, scale.ticks, scale(1.0))


def _apart(dots: Sequence[Dot]) -> tuple[Dot, ...]:
    """The dots that can be distinguished, from left to right: the larger of two at one place."""
    ordered = sorted(dots, key=lambda dot: _order(dot.ratio))
    return tuple({round(dot.at): dot for dot in ordered}.values())


def _order(ratio: float) -> float:
    """A ratio to sort and place by: NaN is as bad as infinity."""
    return math.inf if math.isnan(ratio) else ratio
