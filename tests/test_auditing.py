"""An audit finds a limit that would raise more alarms than it declares."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from fakes.calibrated import baseline_of, baselines_of
from fakes.sound import EXAMPLE

from refimpl.baselines import audit_page, auditing, bands, committed
from refimpl.baselines.auditing import SWEEP, audited, placed, ranged, repeated
from refimpl.baselines.committed import Baseline, Identity, Metric, Run
from refimpl.contract import Facts, Figure
from refimpl.loading import registry

VARIANT = EXAMPLE.variants[0]

WITH_REAL_DATA = replace(VARIANT.data, real=lambda folder: VARIANT.data.load("stand-in"))

POWERS = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5)
"""Of numbers in a row, these give values whose tails are near on one side and far on the other."""


@pytest.fixture
def example(tmp_path):
    return replace(EXAMPLE, baselines=tmp_path)


def of_values(values):
    runs = tuple(Run(1000 + i, {"loss": v}) for i, v in enumerate(values))
    metrics = {"loss": Metric("lower", 0.0)}
    return Baseline(Identity("e", "v", "real", {}, "d"), metrics, (1,), {}, runs)


def test_every_figure_of_a_sound_baseline_keeps_its_rate(example):
    baselines_of(example)
    found = audited([example])
    assert found.holds, found.record()
    assert {line.metric for line in found.figures} >= {"loss", "val_loss"}
    assert all(line.looked_again <= line.expected + 0.05 for line in found.figures)
    assert all(line.alarmed == 0 for line in found.figures)
    assert 0 < found.sweep("stand-in") <= SWEEP
    assert found.sweep("real") == 0


def test_documented_figures_stand_among_stand_in_runs_where_the_document_generates_its_data(
    example,
):
    baselines_of(example)
    found = audited([example])
    assert {(placed.variant, placed.metric) for placed in found.documented} == {
        ("module", "val_loss")
    }


def test_figures_whose_tails_are_far_out_keep_their_rate_too():
    (line,) = auditing.audit_baseline(of_values([1.1**i for i in range(50)]))
    assert line.holds
    assert 0 < line.looked_again < 2 * line.expected


def test_a_rule_that_asks_no_second_seed_fails(monkeypatch):
    monkeypatch.setattr(auditing, "fails", lambda sides, fresh: next(sides) != "inside")
    (line,) = auditing.audit_baseline(of_values(range(50)))
    assert line.alarmed == line.looked_again > 0
    assert not line.holds


def test_a_rule_that_asks_too_few_seeds_fails(monkeypatch):
    monkeypatch.setattr(bands, "fresh_needed", lambda *asked: 1)
    monkeypatch.setattr(bands, "false_alarm", lambda *asked: 1e-6)
    (line,) = auditing.audit_baseline(of_values(range(20)))
    assert line.alarmed > 0.03
    assert not line.holds


def test_a_rule_that_is_content_with_two_seeds_shows_in_all_figures_together(monkeypatch):
    def drawn():
        lines = [
            next(auditing.audit_baseline(of_values([i**p for i in range(50)]))) for p in POWERS
        ]
        return auditing.Audit(figures=tuple(lines))

    assert drawn().holds
    sound = auditing.fails
    monkeypatch.setattr(auditing, "fails", lambda sides, fresh: sound(sides, min(fresh, 2)))
    wrong = drawn()
    assert all(line.alarmed < 0.01 for line in wrong.figures)
    assert not wrong.holds
    (failure,) = wrong.failures()
    assert re.fullmatch(r"the rule failed \d+ of 10,000 times on drawn .*", failure)


def test_a_band_that_may_miss_a_shift_as_large_as_the_figure_is_told(example):
    accuracies = [*[0.1] * 5, *(0.9 + i / 1000 for i in range(45))]
    runs = tuple(Run(1000 + i, {"accuracy": v}) for i, v in enumerate(accuracies))
    baseline = replace(of_values([]), metrics={"accuracy": Metric("higher", 0.0)}, runs=runs)
    (line,) = auditing.audit_baseline(baseline)
    assert line.blind
    (further,) = auditing.audit_baseline(replace(baseline, runs=runs[5:]))
    assert not further.blind
    _, said = audit_page.remarks(auditing.Audit(figures=(line, further)))
    assert said.endswith(
        "even a shift as large as the figure itself may pass: e · v · real: accuracy"
    )


def test_a_documented_figure_without_a_place_and_a_baseline_of_few_runs_are_told(example):
    variant = replace(with_figure(documented=0.5, real=(0, 1)), data=WITH_REAL_DATA)
    found = audited([replace(example, variants=(variant,))])
    assert found.unplaced == (f"fake-sound · {variant.name} · real: loss",)
    assert found.without_real == (f"fake-sound · {variant.name}",)
    baselines_of(example)
    assert f"fake-sound · {VARIANT.name} · stand-in: 6 runs and not 50; one takes 0 s" in (
        audited([example]).short
    )


def test_a_figure_that_some_runs_never_reach_keeps_its_rate():
    (line,) = auditing.audit_baseline(of_values([*map(float, range(14)), *[np.inf] * 6]))
    assert (line.band.high, line.band.above) == (13, 6)
    assert line.holds


def test_a_training_variant_without_a_baseline_fails(example):
    baseline_of(example, VARIANT)
    found = audited([example])
    assert not found.holds
    assert found.lacking == ("fake-sound · module",)


def test_a_damaged_baseline_fails_and_is_named(example):
    first, *_ = baselines_of(example)
    first.write_text(first.read_text()[:-20])
    found = audited([example])
    assert not found.holds
    (problem,) = found.problems
    assert "is truncated" in problem


def test_a_data_set_whose_name_has_blanks_is_known_again(example):
    two_moons = replace(VARIANT, data=replace(VARIANT.data, name="two moons"))
    named = replace(example, variants=(two_moons,))
    baselines_of(named)
    assert not audited([named]).problems


def test_the_baseline_of_another_variant_fails_and_is_told(example):
    first, second = baselines_of(example)
    second.write_text(first.read_text())
    (problem,) = audited([example]).problems
    one, other = EXAMPLE.variants
    assert f"its variant is {one.name} and not {other.name}" in problem


def test_too_many_figures_for_the_sweep_fail(example):
    baselines_of(example)
    found = audited([example])
    assert not replace(found, figures=found.figures * 200).holds


def test_without_any_baseline_nothing_holds():
    assert not audited([]).holds


# --- fresh runs ----------------------------------------------------------------------------------


def of_fresh(values):
    (line,) = repeated(of_values(range(50)), of_values(values))
    return line


def test_fresh_runs_inside_the_band_are_a_decision_each():
    line = of_fresh([10.0, 20.0, 49.0])
    assert (line.runs, line.outside, line.decisions, line.alarms) == (3, 0, 3, 0)
    assert line.holds


def test_runs_outside_on_one_side_are_an_alarm_once_there_are_enough():
    assert of_fresh([60, 61, 62, 63]).alarms == 1
    assert not of_fresh([60, 61, 62, 63]).holds
    line = of_fresh([60, 61, 62, 5, 60, 61, -9, 5])
    assert (line.outside, line.decisions, line.alarms) == (6, 3, 0)


def test_fresh_runs_that_decide_nothing_do_not_hold():
    assert of_fresh([60]).decisions == 0
    assert not of_fresh([60]).holds


def test_a_last_group_that_is_too_short_decides_nothing():
    line = of_fresh([5, 60, 61])
    assert (line.decisions, line.alarms) == (1, 0)


def test_more_runs_outside_than_chance_makes_fail_without_an_alarm():
    line = of_fresh([60, -9] * 50)
    assert line.alarms == 0
    assert line.chance < 1e-6
    assert not line.holds


def test_the_chance_of_so_many_outside_is_that_of_fresh_draws():
    random = np.random.default_rng(0)
    drawn = random.standard_normal((4000, 70))
    low, high = drawn[:, :50].min(axis=1), drawn[:, :50].max(axis=1)
    outside = ((low > drawn[:, 50:].T) | (high < drawn[:, 50:].T)).sum(axis=0)
    for count in (1, 2, 4):
        line = of_fresh([60] * count + [25] * (20 - count))
        assert np.mean(outside >= count) == pytest.approx(line.chance, abs=0.03)


def test_runs_of_a_baseline_that_diverged_are_expected_among_fresh_ones():
    baseline = of_values([*range(30), *[math.nan] * 20])
    fresh = of_values([k % 30 if k % 5 < 3 else math.nan for k in range(200)])
    [line] = repeated(baseline, fresh)
    assert line.outside == 80
    assert line.chance > 0.1
    assert line.holds


def test_fresh_runs_of_a_folder_are_judged_by_the_baseline(example, tmp_path):
    baselines_of(example)
    fresh = tmp_path / "fresh"
    for variant in EXAMPLE.variants:
        baseline_of(replace(example, baselines=fresh), variant, range(100_000, 100_010))
    found = audited([example], fresh)
    assert found.holds, found.record()
    assert {line.runs for line in found.fresh} == {10}
    assert {line.variant for line in found.fresh} == {v.name for v in EXAMPLE.variants}


def test_a_variant_without_fresh_runs_beside_others_that_have_them_fails(example, tmp_path):
    baselines_of(example)
    fresh = tmp_path / "fresh"
    baseline_of(replace(example, baselines=fresh), VARIANT, range(100_000, 100_010))
    (problem,) = audited([example], fresh).problems
    assert EXAMPLE.variants[1].name in problem


def test_a_folder_without_fresh_runs_fails(example, tmp_path):
    baselines_of(example)
    empty = tmp_path / "fresh"
    empty.mkdir()
    found = audited([example], empty)
    assert not found.holds
    assert found.problems == (f"{empty} has no fresh runs of these examples",)


def test_runs_that_the_baseline_has_are_not_fresh(example):
    baselines_of(example)
    found = audited([example], example.baselines)
    assert not found.holds
    assert all("seeds that the baseline has too (seed 1000)" in each for each in found.problems)


def with_a_twin(example, folder):
    """The example with one variant twice, which differ in how many fresh runs they have; those."""
    twin = replace(VARIANT, name="twin")
    example = replace(example, variants=(VARIANT, twin))
    fresh = replace(example, baselines=folder / "fresh")
    baselines_of(example)
    baseline_of(fresh, VARIANT, range(100_000, 100_010))
    baseline_of(fresh, twin, range(100_000, 100_002))
    return example, fresh


def test_a_variant_takes_the_fresh_runs_of_one_that_ends_in_the_same_bits(example, tmp_path):
    example, fresh = with_a_twin(example, tmp_path)
    lines = audited([example], fresh.baselines).fresh
    assert {(own.variant, own.runs, own.runs_of) for own in lines} == {
        (VARIANT.name, 10, VARIANT.name), ("twin", 10, VARIANT.name),
    }  # fmt: skip


@pytest.mark.parametrize("which", ["baseline", "fresh"])
def test_a_variant_whose_runs_differ_from_anothers_in_a_bit_keeps_to_its_own(
    example, tmp_path, which, monkeypatch
):
    example, fresh = with_a_twin(example, tmp_path)
    read = committed.read
    twin = example.variant("twin")
    path = committed.path_of(fresh if which == "fresh" else example, twin, "stand-in")

    def with_a_bit_changed(other):
        found = read(other)
        if other != path:
            return found
        first, *others = found.runs
        final = {**first.final, "loss": math.nextafter(first.final["loss"], 1)}
        return replace(found, runs=(replace(first, final=final), *others))

    monkeypatch.setattr(committed, "read", with_a_bit_changed)
    assert {own.runs for own in audited([example], fresh.baselines).fresh} == {10, 2}


def test_a_range_that_one_run_decides_is_listed(example):
    stated = replace(VARIANT, facts=Facts(figures=(Figure("loss", 0.5, real=(0, 1)),)))
    found = audited([replace(example, variants=(stated,))])
    assert f"fake-sound · {VARIANT.name} · real: loss" in found.of_one_run
    baselines_of(replace(example, variants=(stated,)))
    found = audited([replace(example, variants=(stated,))])
    assert found.of_one_run == (f"fake-sound · {VARIANT.name} · real: loss",)


def test_too_many_figures_for_the_sweep_are_told(example):
    baselines_of(example)
    found = replace(audited([example]), allowed=1e-9)
    assert any("false alarms, more than the 1e-09 allowed" in each for each in found.failures())


def test_fresh_runs_go_through_the_suite_as_often_as_through_its_least_decided_limit(
    example, tmp_path
):
    baselines_of(example)
    fresh = replace(example, baselines=tmp_path / "fresh")
    first, second = EXAMPLE.variants
    baseline_of(fresh, first, range(100_000, 100_010))
    assert audited([example], fresh.baselines).whole_runs("stand-in") == 0
    baseline_of(fresh, second, range(100_000, 100_005))
    found = audited([example], fresh.baselines)
    assert found.whole_runs("stand-in") == min(own.decisions for own in found.fresh) > 0
    assert found.whole_runs("real") == 0


def test_fresh_runs_of_something_else_are_refused(example, tmp_path):
    baselines_of(example)
    fresh = tmp_path / "fresh"
    slower = replace(VARIANT, protocol=replace(VARIANT.protocol, learning_rate=0.01))
    baseline_of(replace(example, baselines=fresh), slower)
    problem, _ = audited([example], fresh).problems
    assert "was made from something else: its learning_rate" in problem


# --- ranges that are stated ----------------------------------------------------------------------


def of_range(values, real):
    (line,) = ranged(with_figure(documented=None, real=real), of_values(values))
    return line


def test_a_range_that_most_runs_reach_holds_and_counts_in_the_sweep(example):
    line = of_range(range(50), (5, 100))
    assert line.holds
    assert (line.band.below, line.band.above) == (5, 0)
    baselines_of(example)
    found = audited([example])
    assert replace(found, ranges=(line,)).sweep("real") == line.band.alpha


def test_a_range_that_most_runs_miss_fails(example):
    line = of_range(range(50), (30, 100))
    assert not line.holds
    baselines_of(example)
    assert not replace(audited([example]), ranges=(line,)).holds


def test_a_start_that_is_printed_is_no_draw_and_its_range_no_matter_of_runs():
    printed = replace(with_figure(documented=None, real=(0, 1)), documented_start={})
    assert not list(ranged(printed, of_values(range(50))))


def test_fresh_runs_are_held_against_stated_ranges_too():
    line = of_range(range(50), (5, 100))
    _, fresh = repeated(of_values(range(50)), of_values([10.0, 1.0, 2.0, 20.0]), [line])
    assert (fresh.limit, fresh.outside, fresh.decisions, fresh.alarms) == ("range", 2, 2, 0)


def test_the_chance_of_so_many_outside_a_range_is_that_of_fresh_draws():
    random = np.random.default_rng(1)
    baseline = of_values(range(50))
    line = of_range(range(50), (5, 100))
    before = line.band.below
    # Given how many of all lie below, each order of them is as likely as any other.
    for count in (1, 3):
        below = np.arange(70) < before + count
        drawn = random.permuted(np.tile(below, (20_000, 1)), axis=1)[:, 50:].sum(axis=1)
        values = [1.0] * count + [25.0] * (20 - count)
        _, fresh = repeated(baseline, of_values(values), [line])
        assert np.mean(drawn >= count) == pytest.approx(fresh.chance, abs=0.015)


# --- documented figures --------------------------------------------------------------------------


def with_figure(**changes):
    return replace(VARIANT, facts=Facts(figures=(Figure("loss", **changes),)))


def test_a_documented_figure_has_its_quantile_among_real_runs():
    (found,) = placed(with_figure(documented=4.5), of_values(range(10)))
    assert found.inside
    assert found.quantile == 0.5


@pytest.mark.parametrize(("reason", "holds"), [("", False), ("torch draws otherwise", True)])
def test_a_documented_figure_outside_the_band_needs_a_reason(example, reason, holds):
    baselines_of(example)
    outside = with_figure(documented=99.0, outside_because=reason)
    (found,) = placed(outside, of_values(range(10)))
    assert not found.inside
    assert found.quantile == 1
    assert replace(audited([example]), documented=(found,)).holds is holds


def test_the_validation_loss_of_cifar2_jumps_in_single_epochs_as_its_plugin_says():
    cifar2 = registry.load(only=["cifar2-cnn"]).example("cifar2-cnn")
    baseline = committed.read_declared(cifar2, cifar2.variant("function"), "real")
    assert baseline.epochs == tuple(range(1, 21))
    jumps = [run for run in baseline.runs if max(run.curves["val_loss"][9:]) > 0.5]
    assert (len(baseline.runs), len(jumps)) == (20, 3)
