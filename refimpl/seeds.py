"""Which seeds belong to baselines and which to checks: no judged run is in its own baseline."""

from __future__ import annotations

FIRST_SEED = 1000
"""The first seed of baselines. No check uses these seeds: a judged run is never in the sample."""

FRESH_SEED = 100_000
"""The first seed of the runs that an audit compares with baselines."""

SEEDS_OF_A_BASELINE = 1000
"""No baseline has more runs."""

SEEDS_OF_A_CHECK = 199
"""A check runs the variant's seed, moved by what ``--reseed`` adds, and fewer than so many more."""


def wrong_seed(seed: int, more: int = 0) -> str | None:
    """What is wrong with ``seed + more`` as the first seed of a check; ``None`` if nothing is."""
    low = FIRST_SEED - SEEDS_OF_A_CHECK - more
    high = FIRST_SEED + SEEDS_OF_A_BASELINE - more
    if seed < 0:
        return "checks would run seeds below 0; use 0 or more"
    if low < seed < high:
        return f"checks would run seeds of the baselines; use at most {low}, or at least {high}"
    return None
