"""Two declared error rates: how often an unchanged program fails, and what change is found."""

import math
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.baselines.bands import (
    ALPHA,
    FEWEST_RUNS,
    POWER,
    band,
    detectable,
    false_alarm,
    fresh_needed,
    quantile_of,
    stated,
)
from refimpl.baselines.committed import Metric
from refimpl.seeds import SEEDS_OF_A_CHECK

FREE = Metric("neither", 0.0)
finite = st.floats(-1e6, 1e6)
samples = st.lists(finite, min_size=5, max_size=60)


@pytest.mark.parametrize(("runs", "fresh"), [(5, 1), (5, 2), (6, 3)])
def test_the_rate_of_false_alarms_is_the_share_of_orders_that_fail(runs, fresh):
    places = list(combinations(range(runs + fresh), fresh))  # where the fresh ones stand
    lowest, highest = tuple(range(fresh)), tuple(range(runs, runs + fresh))
    failing = [place for place in places if place in (lowest, highest)]
    assert false_alarm(runs, fresh) == pytest.approx(len(failing) / len(places))


@given(st.integers(5, 200), st.floats(1e-7, 0.3))
def test_no_more_seeds_are_asked_for_than_the_rate_needs(runs, alpha):
    fresh = fresh_needed(runs, alpha)
    assert false_alarm(runs, fresh) <= alpha
    assert fresh == 1 or false_alarm(runs, fresh - 1) > alpha


def test_a_sweep_of_three_hundred_figures_stays_under_one_percent():
    assert 300 * ALPHA < 0.01
    assert fresh_needed(50, ALPHA) == 4
    assert fresh_needed(20, ALPHA) == 6


def test_no_check_needs_so_many_seeds_that_it_reaches_those_of_the_baselines():
    runs = range(FEWEST_RUNS, 200)
    assert max(fresh_needed(n, ALPHA, n // 2, n // 2) for n in runs) < SEEDS_OF_A_CHECK


@pytest.mark.parametrize("draw", ["normal", "lognormal", "standard_cauchy"])
def test_unchanged_programs_fail_as_often_as_declared_whatever_the_distribution(draw):
    random = np.random.Generator(np.random.Philox(5))
    runs, fresh, trials = 8, 2, 20_000
    drawn = getattr(random, draw)(size=(trials, runs + fresh))
    old, new = drawn[:, :runs], drawn[:, runs:]
    alarms = (new.max(1) < old.min(1)) | (new.min(1) > old.max(1))
    assert np.mean(alarms) == pytest.approx(2 / comb(runs + fresh, fresh), rel=0.15)


def test_a_change_of_the_size_stated_is_found_with_the_power_stated():
    random = np.random.Generator(np.random.Philox(6))
    found = []
    for _ in range(3000):
        values = random.normal(size=50)
        limits = band(list(values), FREE)
        shifted = random.normal(size=limits.fresh) - limits.detects
        found.append(bool((shifted < limits.low).all()))
    assert np.mean(found) >= POWER


HEAVY_TAILS = {
    "lognormal": lambda random, size: random.lognormal(size=size),
    "Student's t of three degrees": lambda random, size: random.standard_t(3, size=size),
}


@pytest.mark.parametrize("draw", HEAVY_TAILS.values(), ids=HEAVY_TAILS)
@pytest.mark.parametrize("runs", [20, 50])
def test_where_tails_are_heavy_a_change_of_that_size_is_found_nine_times_in_ten(draw, runs):
    random = np.random.default_rng(3)
    for sign in (1, -1):
        found = 0
        for _ in range(400):
            limits = band(list(sign * draw(random, runs)), FREE)
            shifted = sign * draw(random, limits.fresh) - limits.detects
            found += bool((shifted < limits.low).all())
        assert found / 400 > 0.88


@given(samples)
def test_the_runs_of_the_baseline_lie_inside_and_what_it_detects_takes_them_out(values):
    limits = band(values, FREE)
    assert {limits.side(value) for value in values} == {"inside"}
    assert limits.detects >= (limits.high - limits.low) * (1 - 1e-9)
    assert limits.side(min(values) - 1) == "below"
    assert limits.side(max(values) + 1) == "above"


@given(samples, finite, st.floats(0.5, 2))
def test_a_band_moves_and_grows_with_its_values(values, shift, scale):
    one, other = band(values, FREE), band([scale * v + shift for v in values], FREE)
    margin = 1e-9 * (1 + abs(shift) + max(map(abs, values)))
    assert other.low == pytest.approx(scale * one.low + shift, abs=margin)
    assert other.high == pytest.approx(scale * one.high + shift, abs=margin)
    assert other.detects == pytest.approx(scale * one.detects, rel=1e-3, abs=1e3 * margin)


# --- ranges that were stated beforehand ----------------------------------------------------------


@pytest.mark.parametrize("limit", [0.0, 0.5, 2.0])
def test_a_stated_range_fails_an_unchanged_program_no_more_often_than_declared(limit):
    random = np.random.Generator(np.random.Philox(7))
    runs, alpha, trials = 10, 0.02, 20_000
    alarms = 0
    for values in random.normal(size=(trials, runs + 10)):
        own = stated(-math.inf, limit, list(values[:runs]), alpha)
        alarms += own.typical and bool((values[runs : runs + own.fresh] > limit).all())
    assert alarms / trials <= alpha


def test_more_seeds_are_needed_the_more_of_the_baseline_lies_outside():
    values = [float(i) for i in range(50)]
    needed = [stated(low, 50, values).fresh for low in (0, 2, 10, 25)]
    assert needed == sorted(set(needed))
    assert needed[0] == band(values, FREE).fresh


def test_a_range_that_half_of_the_runs_reach_is_typical_and_one_that_fewer_reach_is_not():
    values = [float(i) for i in range(10)]
    half, fewer = stated(5, 20, values), stated(6, 20, values)
    assert (half.below, half.typical, half.alpha <= ALPHA) == (5, True, True)
    assert (fewer.below, fewer.typical) == (6, False)
    assert not stated(100, 200, values).typical


def test_runs_that_diverged_lie_above_a_stated_range():
    assert stated(0, 2, [1.0, 1.1, 1.2, 1.3, math.nan]).above == 1


@given(samples, finite, st.floats(0, 1e6))
def test_every_run_lies_on_one_side_of_a_stated_range_or_inside(values, low, width):
    own = stated(low, low + width, values)
    sides = [own.side(value) for value in values]
    assert (own.below, own.above) == (sides.count("below"), sides.count("above"))


def test_runs_that_all_end_the_same_have_a_band_of_the_resolution_to_each_side():
    limits = band([1.0] * 50, Metric("higher", 0.01))
    assert (limits.low, limits.high) == (0.99, 1.01)
    assert limits.detects == pytest.approx(0.01)
    assert limits.side(0.995) == "inside"
    assert limits.side(0.98) == "below"


def test_a_resolution_finer_than_the_spread_changes_nothing():
    values = [float(i) for i in range(10)]
    assert band(values, Metric("higher", 0.5)) == band(values, FREE)


def test_a_run_that_diverged_lies_above_everything_though_the_baseline_has_one():
    values = [1.0 + 0.1 * k for k in range(20)]
    whole, with_one = band(values, FREE), band([*values, math.nan], FREE)
    assert whole.side(math.nan) == with_one.side(math.nan) == "above"
    assert (with_one.low, with_one.high, with_one.above) == (whole.low, whole.high, 1)
    assert whole.alpha < with_one.alpha <= ALPHA


def test_where_most_runs_diverge_to_do_so_is_where_the_program_ends():
    limits = band([1.0, 1.1, math.inf, math.inf, math.nan], FREE)
    assert limits.side(math.inf) == "inside"
    assert limits.side(0.9) == "below"


@given(st.lists(st.just(2.5), min_size=5, max_size=20))
def test_without_spread_there_is_nothing_to_detect_below_the_resolution(values):
    assert detectable(values, 2.5, 2.5, 4) == 0


def test_four_runs_are_no_baseline():
    with pytest.raises(
        ValueError, match="4 runs are too few for a baseline; at least 5 are needed"
    ):
        band([1.0] * 4, FREE)


def test_a_quantile_counts_ties_half():
    assert quantile_of(2.0, [1.0, 2.0, 2.0, 3.0]) == 0.5
    assert quantile_of(0.0, [1.0, 2.0]) == 0.0
    assert quantile_of(9.0, [1.0, 2.0]) == 1.0
