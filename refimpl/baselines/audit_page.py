"""The page of an audit: its result in words, documented figures, and a row for each example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from refimpl.baselines.auditing import DRAWS, FRESH_RUNS, Audit, Placed
from refimpl.data import Tier
from refimpl.markdown import table

HEAD = """# The rule of convergence, audited

Made by `refimpl audit --fresh fixtures/audit --table FILE`; not written by hand.
The rule and its words are explained in [comparing](../comparing.md). The same command prints every
figure with its band and its error rates; with `--json` it gives them as data.
"""


def page(audit: Audit) -> str:
    """The whole page."""
    parts = [HEAD, _summary(audit)]
    if audit.documented:
        parts += ["## Documented figures among real runs\n", table(_documented(audit.documented))]
    parts += ["## Every example\n", table(_by_example(audit), 2)]
    return "\n".join(parts)


def _summary(audit: Audit) -> str:
    lines = [
        f"- {tier}: an unchanged program fails any of {len(audit.limits(tier))} limits with "
        f"probability {audit.sweep(tier):.2g} (allowed: {audit.allowed:g})"
        for tier in audit.tiers
    ]
    if audit.fresh:
        decisions, alarms, runs, outside = (
            sum(getattr(own, part) for own in audit.fresh)
            for part in ("decisions", "alarms", "runs", "outside")
        )
        lent = sum(own.decisions for own in audit.fresh if own.runs_of != own.variant)
        lines.append(
            f"- fresh runs: {alarms} false alarms in {decisions:,} decisions; of {runs:,} figures "
            f"{outside:,} lay outside their limit, so more seeds were run"
            + (f"; {lent:,} decisions are on the runs of a twin" if lent else "")
        )
        lines += [
            f"- {tier}: fresh runs tested every limit at least {count} times"
            for tier in audit.tiers
            if (count := audit.whole_runs(tier))
        ]
    lines += [f"- {each}" for each in remarks(audit)]
    lines += [f"- FAILED {each}" for each in audit.failures()]
    return "".join(f"{line}\n" for line in lines)


def remarks(audit: Audit) -> Iterator[str]:
    """What the baselines do not cover, a sentence each, and how the rule fared on drawn values."""
    if audit.figures:
        yield (
            f"on drawn baselines and runs the rule failed {audit.alarms_when_tried} of "
            f"{len(audit.figures) * DRAWS:,} times; it declares at most {audit.alarms_declared:.2g}"
        )
    blind = groupby(
        (own for own in audit.figures if own.blind),
        lambda own: f"{own.example} · {own.variant} · {own.tier}",
    )
    without_own = dict.fromkeys(
        f"{own.example} · {own.variant}" for own in audit.fresh if own.runs < FRESH_RUNS
    )
    lists = {
        "variants without a baseline of real runs": audit.without_real,
        "stated ranges without a baseline, where a single run decides and the rate of false alarms "
        "is not known": audit.of_one_run,
        "documented figures that cannot be compared, for lack of a baseline of real runs": (
            audit.unplaced
        ),
        "bands so wide that even a shift as large as the figure itself may pass": [
            f"{who}: {', '.join(own.metric for own in group)}" for who, group in blind
        ],
        "baselines with fewer runs than they should have": audit.short,
        f"variants with fewer than {FRESH_RUNS} fresh runs": without_own,
    }
    for what, names in lists.items():
        if names:
            yield f"{what}: {'; '.join(names)}"


def _documented(figures: Sequence[Placed]) -> Iterator[tuple[str, ...]]:
    yield "variant", "figure", "document", "real runs", "runs below it", "verdict"
    for each in figures:
        yield (
            f"{each.example}/{each.variant}", each.metric, f"{each.documented:g}",
            f"{each.band.low:.5g} … {each.band.high:.5g}", f"{each.quantile:.0%}",
            "inside" if each.inside else f"outside: {each.reason or 'NO REASON GIVEN'}",
        )  # fmt: skip


def _by_example(audit: Audit) -> Iterator[tuple[str, ...]]:
    yield (
        "example", "data", "limits", "false alarms", "fresh runs: figures", "outside", "decisions",
        "alarms", "that do not hold",
    )  # fmt: skip
    examples = sorted({limit.example for tier in audit.tiers for limit in audit.limits(tier)})
    for example in examples:
        for tier in audit.tiers:
            yield from _of_example(audit, example, tier)


def _of_example(audit: Audit, example: str, tier: Tier) -> Iterator[tuple[str, ...]]:
    limits = [limit for limit in audit.limits(tier) if limit.example == example]
    fresh = [own for own in audit.fresh if (own.example, own.tier) == (example, tier)]
    if limits:
        wrong = dict.fromkeys(
            f"{own.variant}: {own.metric}" for own in (*limits, *fresh) if not own.holds
        )
        yield (
            example, tier, str(len(limits)), f"{sum(limit.band.alpha for limit in limits):.1g}",
            *(f"{sum(getattr(own, part) for own in fresh):,}"
              for part in ("runs", "outside", "decisions", "alarms")),
            ", ".join(wrong) or "none",
        )  # fmt: skip
