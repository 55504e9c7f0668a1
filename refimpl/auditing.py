"""Do the baselines keep what they declare? What ``refimpl audit`` answers.

A limit is sound if an unchanged program seldom fails it. How seldom is declared by a formula that
supposes nothing but that runs are exchangeable; here it is held against the runs themselves: the
baseline's values are drawn again, with replacement, into baselines and fresh runs, and the rule is
applied to each draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from scipy.stats import betabinom

from refimpl import baselines
from refimpl.bands import ALPHA, Band, band, extremes, fails, false_alarm, quantile_of
from refimpl.baselines import Baseline, BaselineError, Metric
from refimpl.contract import Example, Variant
from refimpl.data import Tier, philox

SWEEP = 0.01
"""False alarms that all figures of one tier together may raise."""

DRAWS = 4000
"""Baselines drawn again for each figure."""

SURE = 1e-6
"""An excess of alarms counts where chance makes one so large less often than this."""


@dataclass(frozen=True)
class Audited:
    """One figure of one baseline.

    ``looked_again`` is how often the first run of a drawn baseline's unchanged program fell
    outside, so that more seeds were needed; ``expected`` is how often at the most it should.
    """

    example: str
    variant: str
    tier: Tier
    metric: str
    band: Band
    looked_again: float
    expected: float
    holds: bool


@dataclass(frozen=True)
class Placed:
    """A documented figure in the band of real runs: the share of them that end below it.

    Where a document generates its data itself, those of stand-ins are real.
    """

    example: str
    variant: str
    metric: str
    documented: float
    band: Band
    quantile: float
    reason: str

    @property
    def inside(self) -> bool:
        """Whether the documented figure is one that the program still reaches."""
        return self.band.side(self.documented) == "inside"


@dataclass(frozen=True)
class Repeated:
    """The rule applied again and again to one figure, to runs that no baseline has.

    Each of ``decisions`` took one run, or as many as the rule asks for. ``outside`` of all ``runs``
    lay outside the band; ``chance`` is how probable it is that so many do, or more.
    """

    example: str
    variant: str
    tier: Tier
    metric: str
    runs: int
    outside: int
    decisions: int
    alarms: int
    declared: float
    chance: float

    @property
    def holds(self) -> bool:
        """Whether there was no more alarm than declared, nor more runs outside than by chance."""
        return self.alarms <= self.declared * self.decisions and self.chance > SURE


@dataclass(frozen=True)
class Audit:
    """Everything that an audit found."""

    figures: tuple[Audited, ...] = ()
    documented: tuple[Placed, ...] = ()
    problems: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    fresh: tuple[Repeated, ...] = ()
    allowed: float = SWEEP

    def sweep(self, tier: Tier) -> float:
        """The probability that an unchanged program fails any figure of a tier: their sum."""
        return sum(figure.band.alpha for figure in self.figures if figure.tier == tier)

    @property
    def tiers(self) -> list[Tier]:
        """The tiers that have baselines."""
        return [tier for tier in get_args(Tier) if any(f.tier == tier for f in self.figures)]

    @property
    def holds(self) -> bool:
        """Whether every figure and every sweep keeps its rate, and no file is bad or missing."""
        return (
            bool(self.figures)
            and all(figure.holds for figure in self.figures)
            and all(self.sweep(tier) <= self.allowed for tier in self.tiers)
            and all(placed.inside or placed.reason for placed in self.documented)
            and all(repeated.holds for repeated in self.fresh)
            and not self.problems
            and not self.lacking
        )

    def record(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "holds": self.holds,
            "sweeps": {tier: self.sweep(tier) for tier in self.tiers},
            "allowed": self.allowed,
            "figures": [asdict(figure) for figure in self.figures],
            "documented": [{**asdict(p), "inside": p.inside} for p in self.documented],
            "fresh": [{**asdict(r), "holds": r.holds} for r in self.fresh],
            "problems": list(self.problems),
            "lacking": list(self.lacking),
        }


def audited(examples: Sequence[Example], fresh: Path | None = None) -> Audit:
    """Audit every baseline of these examples, on both tiers.

    Where there is a folder of ``fresh`` runs, they are judged by the baselines too.
    """
    again: list[Repeated] = []
    figures: list[Audited] = []
    documented: list[Placed] = []
    problems: list[str] = []
    lacking: list[str] = []
    for example in examples:
        for variant in example.variants:
            if not variant.trains:
                continue
            for tier in get_args(Tier):
                path = baselines.path_of(example, variant, tier)
                if not path.exists():
                    if tier == "stand-in":
                        lacking.append(f"{example.name} · {variant.name} · {tier}")
                    continue
                try:
                    baseline = baselines.read(path)
                    figures.extend(audit_baseline(baseline))
                    if fresh is not None:
                        again.extend(_of_folder(example, variant, baseline, fresh))
                except (BaselineError, ValueError) as error:
                    problems.append(str(error))
                    continue
                if variant.figures_tier(tier) == "real":
                    documented.extend(placed(variant, baseline))
    return Audit(tuple(figures), tuple(documented), tuple(problems), tuple(lacking), tuple(again))


def audit_baseline(baseline: Baseline) -> Iterator[Audited]:
    """Every figure of a baseline, its alarms counted on draws from its own values."""
    own = baseline.identity
    for name, metric in baseline.metrics.items():
        values = baseline.finals(name)
        limits = band(values, metric)
        alarms = looked_again(values, metric, philox("audit", own.example, own.variant, name))
        expected = min(1.0, false_alarm(len(values), 1))
        allowed = expected + deviation(expected, DRAWS)
        yield Audited(
            own.example,
            own.variant,
            own.tier,
            name,
            limits,
            alarms,
            expected,
            alarms <= allowed and limits.alpha <= ALPHA,
        )


def looked_again(values: Sequence[float], metric: Metric, random: np.random.Generator) -> float:
    """How often a fresh run falls outside a baseline, both drawn from these values."""
    sample = np.nan_to_num(np.asarray(values), nan=np.inf)
    drawn = random.choice(sample, size=(DRAWS, len(sample)))
    fresh = random.choice(sample, size=DRAWS)
    low, high = extremes(drawn, metric.resolution)
    return float(np.mean((fresh < low) | (fresh > high)))


def _of_folder(
    example: Example, variant: Variant, baseline: Baseline, folder: Path
) -> Iterator[Repeated]:
    path = baselines.path_of(replace(example, baselines=folder), variant, baseline.identity.tier)
    if not path.exists():
        return
    fresh = baselines.read(path)
    differences = baseline.identity.differences(fresh.identity)
    if differences:
        raise BaselineError(f"{path} has runs of something else: its {differences}")
    yield from repeated(baseline, fresh)


def repeated(baseline: Baseline, fresh: Baseline) -> Iterator[Repeated]:
    """The rule of every figure, applied to fresh runs until there are too few left for it."""
    own = baseline.identity
    for name, metric in baseline.metrics.items():
        limits = band(baseline.finals(name), metric)
        sides = [limits.side(value) for value in fresh.finals(name)]
        outside = sum(side != "inside" for side in sides)
        verdicts = list(iter(partial(fails, iter(sides), limits.fresh), None))
        # Of n + m runs in any order, how many of the m lie beyond the extremes of the n.
        chance = float(betabinom(len(sides), 2, limits.runs - 1).sf(outside - 1))
        yield Repeated(
            own.example, own.variant, own.tier, name, len(sides), outside,
            len(verdicts), sum(verdicts), limits.alpha, chance,
        )  # fmt: skip


def deviation(rate: float, draws: int) -> float:
    """How far a rate of so many draws may lie above its expectation (Bernstein's bound)."""
    sure = -math.log(SURE)
    return math.sqrt(2 * rate * (1 - rate) * sure / draws) + 2 * sure / (3 * draws)


def placed(variant: Variant, baseline: Baseline) -> Iterator[Placed]:
    """Where the document's figures stand among the runs of a real baseline."""
    for figure in variant.facts.figures if variant.facts else ():
        if figure.documented is None or figure.metric not in baseline.metrics:
            continue
        values = baseline.finals(figure.metric)
        limits = band(values, baseline.metrics[figure.metric])
        yield Placed(
            baseline.identity.example,
            baseline.identity.variant,
            figure.metric,
            figure.documented,
            limits,
            quantile_of(figure.documented, values),
            figure.outside_because,
        )
