"""Do the baselines keep the error rates that they declare? ``refimpl audit`` answers this.

A limit is sound if an unchanged program seldom fails it. A formula that assumes only that runs are
exchangeable declares how seldom. Whether the implemented rule keeps that rate is tested by
resampling: baselines and fresh runs are drawn with replacement from the baseline's values, and the
rule is applied to each draw. That finds a wrong rule. A wrong baseline, whose runs are not draws
of what the program does now, is found only by fresh runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from scipy.stats import betabinom, hypergeom, poisson

from refimpl.baselines import committed
from refimpl.baselines.bands import ALPHA, Band, band, fails, false_alarm, quantile_of, stated
from refimpl.baselines.committed import Baseline, BaselineError, Better, Metric
from refimpl.contract import Example, Figure, Variant
from refimpl.data import Tier, philox

SWEEP = 0.01
"""The highest false-alarm rate of all limits of one tier together."""

DRAWS = 1000
"""How many baselines are drawn for each figure."""

SURE = 1e-6
"""An excess of alarms counts if one so large arises by chance less often than this."""

UNLIKELY = 1e-3
"""The same for the alarms of all figures together, which are one question and not hundreds."""

FRESH_RUNS = 200
"""How many fresh runs a limit should be compared with."""


Limit = Literal["band", "range"]


@dataclass(frozen=True)
class Audited:
    """One figure of one baseline.

    Of :data:`DRAWS` drawn baselines and fresh runs, ``looked_again`` is the share whose first run
    fell outside, so that more seeds were needed; ``alarmed`` is the share that failed. ``expected``
    is the most that ``looked_again`` should be.
    """

    example: str
    variant: str
    tier: Tier
    metric: str
    better: Better
    band: Band
    limit: ClassVar[Limit] = "band"
    looked_again: float
    alarmed: float
    expected: float

    @property
    def blind(self) -> bool:
        """Whether the band may miss a shift as large as the highest value of its runs.

        That counts where more is better; elsewhere, whether it may miss a shift of any size, since
        many runs of the baseline lie outside.
        """
        missed = self.better == "higher" and self.band.detects > self.band.high
        return missed or math.isinf(self.band.detects)

    @property
    def holds(self) -> bool:
        """Whether both rates are as declared, within what chance allows for so many draws."""
        declared = ((self.looked_again, self.expected), (self.alarmed, self.band.alpha))
        return all(rate <= own + deviation(own, DRAWS) for rate, own in declared) and (
            self.band.alpha <= ALPHA
        )


@dataclass(frozen=True)
class Ranged:
    """A range that a plugin states for a figure, and how the runs of a baseline lie about it."""

    example: str
    variant: str
    tier: Tier
    metric: str
    band: Band
    limit: ClassVar[Limit] = "range"

    @property
    def holds(self) -> bool:
        """Whether the program ends in the range, and seldom fails if unchanged."""
        return self.band.typical and self.band.alpha <= ALPHA


@dataclass(frozen=True)
class Placed:
    """A documented figure in the band of real runs; ``quantile`` is the share of runs below it.

    If a document generates its own data, runs on stand-ins count as real.
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
        """Whether the program still reaches the documented figure."""
        return self.band.side(self.documented) == "inside"


@dataclass(frozen=True)
class Repeated:
    """The rule applied repeatedly to one figure of runs that are in no baseline.

    ``limit`` is what the figure is compared with: the band of the baseline's runs, or a range that
    the plugin states. Each of the ``decisions`` took one run, or as many as the rule needs.
    ``outside`` of all ``runs`` lay outside; ``chance`` is the probability of that many or more.
    ``runs_of`` is the variant that was run: the variant itself, or one that ends in the same bits.
    """

    example: str
    variant: str
    tier: Tier
    metric: str
    limit: Limit
    runs: int
    outside: int
    decisions: int
    alarms: int
    declared: float
    chance: float
    runs_of: str

    @property
    def holds(self) -> bool:
        """Whether it was decided, with no more alarms than declared, nor too many runs outside."""
        kept = self.alarms <= self.declared * self.decisions and self.chance > SURE
        return kept and self.decisions > 0


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    ``lacking`` names the variants without a baseline of stand-in runs, ``without_real`` those
    without one of real runs. ``of_one_run`` names the stated ranges that have no baseline, so that
    a single run decides; how often that is a false alarm is not known. ``unplaced`` names the
    documented figures that have no baseline of real runs to stand among, ``short`` the baselines
    that have fewer runs than they should.
    """

    figures: tuple[Audited, ...] = ()
    ranges: tuple[Ranged, ...] = ()
    documented: tuple[Placed, ...] = ()
    problems: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    without_real: tuple[str, ...] = ()
    fresh: tuple[Repeated, ...] = ()
    of_one_run: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    allowed: float = SWEEP

    def sweep(self, tier: Tier) -> float:
        """The probability that an unchanged program fails any limit of a tier: their sum."""
        return sum(limit.band.alpha for limit in self.limits(tier))

    def limits(self, tier: Tier) -> list[Audited | Ranged]:
        """Every band and every stated range of a tier."""
        every: list[Audited | Ranged] = [*self.figures, *self.ranges]
        return [limit for limit in every if limit.tier == tier]

    @property
    def alarms_when_tried(self) -> int:
        """How often the rule failed, of all the baselines and fresh runs that were drawn."""
        return round(sum(figure.alarmed for figure in self.figures) * DRAWS)

    @property
    def alarms_declared(self) -> float:
        """The most that this number should be, in expectation."""
        return sum(figure.band.alpha for figure in self.figures) * DRAWS

    def whole_runs(self, tier: Tier) -> int:
        """How many times fresh runs went through a whole tier: the fewest decisions of a limit."""
        decisions = {_key(own): own.decisions for own in self.fresh}
        return min((decisions.get(_key(own), 0) for own in self.limits(tier)), default=0)

    @property
    def tiers(self) -> list[Tier]:
        """The tiers that have baselines."""
        return [tier for tier in get_args(Tier) if any(f.tier == tier for f in self.figures)]

    @property
    def holds(self) -> bool:
        """Whether every figure and every sweep keeps its rate, and no file is bad or missing."""
        return (
            all(figure.holds for figure in self.figures)
            and all(stated_range.holds for stated_range in self.ranges)
            and all(repeated.holds for repeated in self.fresh)
            and not self.failures()
        )

    def failures(self) -> list[str]:
        """Why it does not hold, one line each; figures that fail are marked in their own rows."""
        return [
            *self.problems,
            *(
                f"{own} · stand-in: no baseline; make it with refimpl calibrate"
                for own in self.lacking
            ),
            *(
                f"{tier}: the sweep raises {self.sweep(tier):.2g} false alarms, "
                f"more than the {self.allowed:g} allowed"
                for tier in self.tiers
                if self.sweep(tier) > self.allowed
            ),
            *(
                f"{own.example} · {own.variant} · {own.metric}: the document's {own.documented:g} "
                "lies outside the band of real runs; state why with outside_because="
                for own in self.documented
                if not own.inside and not own.reason
            ),
            *([self._excess()] if self._too_many_alarms else []),
            *([] if self.figures else ["no baseline was found, so nothing was audited"]),
        ]

    @property
    def _too_many_alarms(self) -> bool:
        return bool(poisson(self.alarms_declared).sf(self.alarms_when_tried - 1) < UNLIKELY)

    def _excess(self) -> str:
        return (
            f"the rule failed {self.alarms_when_tried:,} of {len(self.figures) * DRAWS:,} times on "
            f"drawn baselines and runs, and declares at most {self.alarms_declared:.2g}"
        )

    def record(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "holds": self.holds,
            "sweeps": {tier: self.sweep(tier) for tier in self.tiers},
            "allowed": self.allowed,
            "whole runs": {tier: self.whole_runs(tier) for tier in self.tiers},
            "tried": {"alarms": self.alarms_when_tried, "declared": self.alarms_declared},
            "figures": [{**asdict(f), "holds": f.holds, "blind": f.blind} for f in self.figures],
            "ranges": [{**asdict(r), "holds": r.holds} for r in self.ranges],
            "documented": [{**asdict(p), "inside": p.inside} for p in self.documented],
            "fresh": [{**asdict(r), "holds": r.holds} for r in self.fresh],
            "problems": list(self.problems),
            "lacking": list(self.lacking),
            "without real": list(self.without_real),
            "of one run": list(self.of_one_run),
            "unplaced": list(self.unplaced),
            "short": list(self.short),
        }


def _key(own: Audited | Ranged | Repeated) -> tuple[str, ...]:
    """What distinguishes one limit from the others."""
    return own.example, own.variant, own.tier, own.metric, own.limit


def audited(examples: Sequence[Example], fresh: Path | None = None) -> Audit:
    """Audit every baseline of these examples, on both tiers.

    If a folder of ``fresh`` runs is given, they are judged by the baselines too; on a tier for
    which it has any, every variant must have some.
    """
    whole = _together(
        part
        for example in examples
        for variant in example.variants
        if variant.trains
        for tier in get_args(Tier)
        for part in _parts(example, variant, tier, fresh)
    )
    if fresh is not None and not whole.fresh and not whole.problems:
        return replace(whole, problems=(f"{fresh} has no fresh runs of these examples",))
    return whole


def _together(parts: Iterable[Audit]) -> Audit:
    """One audit of all that the parts found."""
    each = list(parts)
    names = [own.name for own in fields(Audit) if own.name != "allowed"]
    lists: dict[str, Any] = {n: tuple(x for own in each for x in getattr(own, n)) for n in names}
    return Audit(**lists)


def _parts(example: Example, variant: Variant, tier: Tier, fresh: Path | None) -> Iterator[Audit]:
    """The audit of one variant on one tier."""
    if not committed.path_of(example, variant, tier).exists():
        yield _without_baseline(example, variant, tier)
        return
    try:
        baseline = committed.read_declared(example, variant, tier)
        yield Audit(
            figures=tuple(audit_baseline(baseline)),
            ranges=tuple(ranged(variant, baseline)),
            documented=tuple(placed(variant, baseline)),
            short=_named(example, variant, tier, baseline.shortfall),
        )
        if fresh is not None and (fresh / tier).is_dir():
            yield Audit(fresh=tuple(_of_folder(example, variant, baseline, fresh)))
    except (BaselineError, ValueError) as error:
        yield Audit(problems=(str(error),))


def _without_baseline(example: Example, variant: Variant, tier: Tier) -> Audit:
    ranges = (figure.metric for figure, _ in _drawn_ranges(variant, tier))
    own = (f"{example.name} · {variant.name}",)
    has_real = variant.data is not None and variant.data.real is not None
    placed_elsewhere = any(
        _to_place(variant, other) and committed.path_of(example, variant, other).exists()
        for other in get_args(Tier)
    )
    unplaced = [] if placed_elsewhere else [own.metric for own in _to_place(variant, tier)]
    return Audit(
        lacking=own if tier == "stand-in" else (),
        without_real=own if tier == "real" and has_real else (),
        of_one_run=_named(example, variant, tier, ", ".join(ranges)),
        unplaced=_named(example, variant, tier, ", ".join(unplaced)),
    )


def _named(example: Example, variant: Variant, tier: Tier, what: str) -> tuple[str, ...]:
    """A note about a variant on a tier, as a list of one; empty if there is nothing to note."""
    return (f"{example.name} · {variant.name} · {tier}: {what}",) if what else ()


def audit_baseline(baseline: Baseline) -> Iterator[Audited]:
    """Every figure of a baseline, with its alarms counted on draws from its own values."""
    own = baseline.identity
    for name, metric in baseline.metrics.items():
        values = baseline.finals(name)
        limits = band(values, metric)
        again, alarmed = tried(values, metric, philox("audit", own.example, own.variant, name))
        expected = min(1.0, false_alarm(len(values), 1, limits.below, limits.above))
        yield Audited(
            own.example, own.variant, own.tier, name, metric.better, limits, again, alarmed,
            expected,
        )  # fmt: skip


def ranged(variant: Variant, baseline: Baseline) -> Iterator[Ranged]:
    """Every stated range that applies to runs from a drawn start."""
    own = baseline.identity
    for figure, (low, high) in _drawn_ranges(variant, own.tier):
        if figure.metric in baseline.metrics:
            limits = stated(low, high, baseline.finals(figure.metric))
            yield Ranged(own.example, own.variant, own.tier, figure.metric, limits)


def _drawn_ranges(variant: Variant, tier: Tier) -> list[tuple[Figure, tuple[float, float]]]:
    """The ranges of a variant whose start is drawn, so that the seed decides where it ends."""
    if variant.documented_start is not None:
        return []
    return [(figure, bounds) for figure, bounds in variant.stated_ranges(tier) if _at_end(figure)]


def _at_end(figure: Figure) -> bool:
    return figure.epoch is None


def tried(
    values: Sequence[float], metric: Metric, random: np.random.Generator
) -> tuple[float, float]:
    """How often the first fresh run falls outside, and how often the rule fails, on drawn values.

    A baseline and as many fresh runs as its rule may need are drawn from the same values.
    """
    outside = alarms = 0
    for drawn in random.choice(np.asarray(values), size=(DRAWS, len(values))):
        limits = band(drawn.tolist(), metric)
        fresh = random.choice(np.asarray(values), size=limits.fresh)
        sides = [limits.side(value) for value in fresh]
        outside += sides[0] != "inside"
        alarms += bool(fails(iter(sides), limits.fresh))
    return outside / DRAWS, alarms / DRAWS


def _of_folder(
    example: Example, variant: Variant, baseline: Baseline, folder: Path
) -> Iterator[Repeated]:
    fresh = _fresh_runs(example, variant, baseline, folder)
    for twin, twins_baseline in _twins(example, variant, baseline):
        other = _fresh_runs(example, twin, twins_baseline, folder)
        if len(other.runs) > len(fresh.runs) and _end_alike(fresh, other):
            fresh = other
    yield from repeated(baseline, fresh, ranged(variant, baseline))


def _twins(
    example: Example, variant: Variant, baseline: Baseline
) -> Iterator[tuple[Variant, Baseline]]:
    """The other variants of an example whose baselines have the same seeds and the same figures.

    They are the same computation written in other ways, so that fresh runs of one are runs of all.
    """
    seeds = {run.seed for run in baseline.runs}
    for other in example.variants:
        path = committed.path_of(example, other, baseline.identity.tier)
        if other is not variant and other.trains and path.exists():
            twin = committed.read(path)
            if seeds == {run.seed for run in twin.runs} and _end_alike(baseline, twin):
                yield other, twin


def _end_alike(one: Baseline, other: Baseline) -> bool:
    """Whether both have seeds in common, and all of these have the same figures and curves."""
    mine, theirs = ({r.seed: (r.final, r.curves) for r in own.runs} for own in (one, other))
    shared = mine.keys() & theirs.keys()
    return bool(shared) and all(mine[seed] == theirs[seed] for seed in shared)


def _fresh_runs(example: Example, variant: Variant, baseline: Baseline, folder: Path) -> Baseline:
    path = committed.path_of(replace(example, baselines=folder), variant, baseline.identity.tier)
    fresh = committed.read(path)
    differences = baseline.identity.differences(fresh.identity)
    if differences:
        raise BaselineError(f"{path} was made from something else: its {differences}")
    shared = sorted({run.seed for run in baseline.runs} & {run.seed for run in fresh.runs})
    if shared:
        raise BaselineError(
            f"{path} has {len(shared)} seeds that the baseline has too (seed {shared[0]}), "
            "so its runs are not fresh; make them with: refimpl calibrate --fresh FOLDER"
        )
    return fresh


def repeated(
    baseline: Baseline, fresh: Baseline, ranges: Iterable[Ranged] = ()
) -> Iterator[Repeated]:
    """The rule of every figure and range, applied to fresh runs until too few are left for it."""
    for name, metric in baseline.metrics.items():
        limits = band(baseline.finals(name), metric)
        yield _repeated(baseline, name, "band", limits, fresh)
    for each in ranges:
        yield _repeated(baseline, each.metric, "range", each.band, fresh)


def _repeated(
    baseline: Baseline, name: str, limit: Limit, limits: Band, fresh: Baseline
) -> Repeated:
    own = baseline.identity
    sides = [limits.side(value) for value in fresh.finals(name)]
    outside = sum(side != "inside" for side in sides)
    verdicts = list(iter(partial(fails, iter(sides), limits.fresh), None))
    return Repeated(
        own.example, own.variant, own.tier, name, limit, len(sides), outside,
        len(verdicts), sum(verdicts), limits.alpha, _chance(limits, limit, outside, len(sides)),
        fresh.identity.variant,
    )  # fmt: skip


def _chance(limits: Band, limit: Limit, outside: int, fresh: int) -> float:
    """The probability that so many fresh runs or more lie outside if nothing has changed."""
    before = limits.below + limits.above
    if limit == "band":  # of n + m runs in any order, how many of the m lie beyond the n
        return float(betabinom(fresh, 2 + before, limits.runs - 1 - before).sf(outside - 1))
    # of all runs outside, how many are among the m
    return float(hypergeom(limits.runs + fresh, outside + before, fresh).sf(outside - 1))


def deviation(rate: float, draws: int) -> float:
    """How far a rate over so many draws may lie above its expectation (Bernstein's bound)."""
    sure = -math.log(SURE)
    return math.sqrt(2 * rate * (1 - rate) * sure / draws) + 2 * sure / (3 * draws)


def _to_place(variant: Variant, tier: Tier) -> list[Figure]:
    """The figures of the document that runs on this tier should reach."""
    figures = (
        variant.facts.figures if variant.facts and variant.figures_tier(tier) == "real" else ()
    )
    return [figure for figure in figures if figure.documented is not None and _at_end(figure)]


def placed(variant: Variant, baseline: Baseline) -> Iterator[Placed]:
    """Where the document's figures lie among runs on the tier on which they hold."""
    for figure in _to_place(variant, baseline.identity.tier):
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
