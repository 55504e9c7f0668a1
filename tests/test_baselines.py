"""Baselines are whole, of what they say, and hold each seed once."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from fakes.calibrated import baseline_of
from fakes.sound import EXAMPLE
from hypothesis import given
from hypothesis import strategies as st

from refimpl import seeds
from refimpl.baselines import committed
from refimpl.baselines.calibration import begun, plan
from refimpl.baselines.committed import BaselineError, Run, metric_of
from refimpl.baselines.sweep import as_run, kept_epochs, train_seeds

VARIANT = EXAMPLE.variants[0]


@pytest.fixture
def example(tmp_path):
    return replace(EXAMPLE, baselines=tmp_path)


@pytest.fixture
def path(example):
    """A baseline of six seeds of the sound example."""
    return baseline_of(example, VARIANT)


def lines_of(path):
    return path.read_text().splitlines()


def rewritten(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_what_was_written_is_read(path, example):
    baseline = committed.read_for(example, VARIANT, "stand-in")
    assert [run.seed for run in baseline.runs] == [1000, 1001, 1002, 1003, 1004, 1005]
    (again,) = train_seeds(VARIANT, "stand-in", [1003])
    assert baseline.runs[3].final == pytest.approx(again.final, rel=1e-8)
    assert baseline.environment["packages"]["torch"]
    assert baseline.environment["data digest"]
    assert baseline.metrics["val_loss"].better == "lower"
    assert baseline.epochs == (1, 2, 3, 4)
    assert len(baseline.runs[0].curves["val_loss"]) == 4


def test_seeds_stand_in_order_whenever_they_were_done(example):
    path = baseline_of(example, VARIANT, seeds=(1002, 1000, 1001))
    assert [run.seed for run in committed.read(path).runs] == [1000, 1001, 1002]


def test_the_seeds_of_baselines_are_not_those_of_checks():
    assert max(variant.seed for variant in EXAMPLE.variants) + 100 < seeds.FIRST_SEED


def test_what_is_added_to_a_seed_takes_no_variant_to_the_seeds_of_baselines():
    of_seed_1 = replace(EXAMPLE, variants=(VARIANT, replace(VARIANT, name="other", seed=1)))
    committed.require_unused_seeds(800, [of_seed_1])
    committed.require_unused_seeds(801, [EXAMPLE])
    refusal = (
        "with 801 added to the seed 1 of fake-sound · other, .*; use at most 800, or at least 1999"
    )
    with pytest.raises(BaselineError, match=rf"{refusal}"):
        committed.require_unused_seeds(801, [of_seed_1])


@pytest.mark.parametrize(("count", "said"), [(49, "49 runs and not 50; one takes 2 s"), (50, None)])
def test_a_file_of_fewer_runs_than_it_should_have_says_so(path, example, count, said):
    header, run, *_ = lines_of(path)
    with committed.journal(path) as journal:
        runs = [{**json.loads(run), "seed": 1000 + i, "seconds": 2.2} for i in range(count)]
        rewritten(journal.path, [header, *map(json.dumps, runs)])
        journal.finish()
    assert json.loads(lines_of(path)[-1]).get("fewer") == said
    assert len(committed.read_for(example, VARIANT, "stand-in").runs) == count


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("kept", range(7))
def test_a_truncated_file_is_refused(path, kept):
    rewritten(path, lines_of(path)[:kept])
    with pytest.raises(
        BaselineError, match=r"is truncated.*; restore it from version control, or make"
    ):
        committed.read(path)


def test_a_file_cut_in_the_middle_of_its_last_line_is_refused(path):
    path.write_text(path.read_text()[:-10])
    with pytest.raises(
        BaselineError, match=r"is truncated.*; restore it from version control, or make"
    ):
        committed.read(path)


@pytest.mark.parametrize("lost", [1, 3])
def test_a_lost_line_is_refused(path, lost):
    rewritten(path, [line for i, line in enumerate(lines_of(path)) if i != lost])
    with pytest.raises(BaselineError, match="counts 6 runs but has 5"):
        committed.read(path)


def test_a_seed_twice_is_refused(path):
    header, first, *rest = lines_of(path)
    rewritten(path, [header, first, first, *rest[1:]])
    with pytest.raises(BaselineError, match="has seed 1000 more than once"):
        committed.read(path)


def test_a_figure_that_was_changed_by_hand_is_refused(path):
    header, first, *rest = lines_of(path)
    record = json.loads(first)
    record["final"]["loss"] += 0.1
    rewritten(path, [header, json.dumps(record), *rest])
    with pytest.raises(BaselineError, match="does not have the digest that it states"):
        committed.read(path)


def test_runs_with_other_figures_are_refused(path):
    header, first, *rest = lines_of(path)
    record = json.loads(first)
    record["final"]["odd"] = 1.0
    rewritten(path, [header, json.dumps(record), *rest])
    with pytest.raises(BaselineError, match=r"seeds 1000 and 1001 do not have .* \(odd\)"):
        committed.read(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{}", "is not a baseline: its first line is not a header"),
        ('{"$baseline": 99}', "has baseline format 99, this refimpl reads 1"),
        ('{"$baseline": 1}', "line 1, is damaged: it lacks the field identity"),
        ("nothing", "is not a baseline"),
    ],
)
def test_a_file_with_another_header_is_refused(path, line, reason):
    rewritten(path, [line, *lines_of(path)[1:]])
    with pytest.raises(BaselineError, match=reason):
        committed.read(path)


def test_a_file_that_is_not_there_is_refused(example):
    with pytest.raises(BaselineError, match=r"cannot be read: No such file"):
        committed.read_for(example, VARIANT, "stand-in")


def test_the_file_of_another_variant_is_refused(path, example):
    other = example.variants[1]
    path.rename(committed.path_of(example, other, "stand-in"))
    with pytest.raises(BaselineError, match="its variant is scratch and not module"):
        committed.read_for(example, other, "stand-in")


def test_a_baseline_of_another_protocol_is_refused_with_what_differs(path, example):
    longer = replace(VARIANT, protocol=replace(VARIANT.protocol, epochs=5, learning_rate=0.2))
    with pytest.raises(BaselineError) as refused:
        committed.read_for(example, longer, "stand-in")
    assert "its epochs is 4 and not 5, learning_rate is 0.1 and not 0.2; if that is" in str(
        refused.value
    )
    assert "refimpl calibrate fake-sound --variant scratch" in str(refused.value)
    assert "--because REASON" in str(refused.value)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_no_damage_goes_unnoticed(tmp_path_factory, place, noise):
    example = replace(EXAMPLE, baselines=tmp_path_factory.getbasetemp() / "damaged")
    path = committed.path_of(example, VARIANT, "stand-in")
    if not (whole := path.with_suffix(".whole")).exists():
        whole.write_bytes(baseline_of(example, VARIANT).read_bytes())
    content = whole.read_bytes()
    place %= len(content) - len(noise)
    damaged = content[:place] + noise + content[place + len(noise) :]
    path.write_bytes(damaged)
    with suppress(BaselineError):  # where nothing is said, nothing may have changed
        assert committed.read(path) == committed.read(whole)


# --- journals ------------------------------------------------------------------------------------


def test_a_journal_that_was_cut_short_in_a_line_keeps_the_lines_before(path):
    journal = committed.journal_of(path)
    lines = lines_of(path)
    journal.write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])
    there = committed.resume(path)
    assert [run.seed for run in there.runs] == [1000, 1001]
    assert journal.read_text() == "\n".join(lines[:3]) + "\n"


def test_a_journal_without_a_whole_line_is_nothing(path):
    finished = committed.read(path)
    committed.journal_of(path).write_text("{")
    assert committed.resume(path) == finished
    path.unlink()
    assert committed.resume(path) is None


def test_one_process_at_a_time_makes_a_baseline(path):
    with (
        committed.journal(path),
        pytest.raises(BaselineError, match="is being made by another process"),
        committed.journal(path),
    ):
        pass


def test_figures_that_are_no_numbers_are_kept(example):
    path = committed.path_of(example, VARIANT, "stand-in")
    (run,) = train_seeds(VARIANT, "stand-in", [1000])
    run = replace(run, final={"loss": float("inf")})
    with committed.journal(path) as journal:
        journal.begin(begun(plan(example, VARIANT, "stand-in", 1), run))
        journal.append(run)
        journal.append(Run(1001, {"loss": float("nan")}, run.curves))
        journal.finish()
    values = committed.read(path).finals("loss")
    assert values[0] == float("inf")
    assert values[1] != values[1]


# --- figures and curves --------------------------------------------------------------------------


def test_a_long_run_keeps_its_first_and_last_epoch_and_some_between():
    kept = kept_epochs(200)
    assert (kept[0], kept[-1], len(kept)) == (1, 200, 25)
    assert list(kept_epochs(3)) == [1, 2, 3]


def test_a_figure_that_was_not_measured_at_every_epoch_has_no_curve():
    from refimpl.training.loop import EpochRecord, History, Step

    history = History(
        [EpochRecord(1, {"loss": 1.0}, 0.1), EpochRecord(2, {"loss": 0.5, "late": 3.0}, 0.1)],
        Step(0.5, {}),
        2,
    )
    run = as_run(history, 7, 0.2, 2)
    assert run.final == {"loss": 0.5, "late": 3.0}
    assert run.curves == {"loss": (1.0, 0.5)}


def test_a_run_that_ended_early_keeps_its_last_figure_for_the_epochs_that_were_left():
    from refimpl.training.loop import EpochRecord, History, Step

    epochs = [EpochRecord(n, {"loss": 1.0 / n}, 0.1) for n in (1, 2)]
    assert as_run(History(epochs, Step(0.5, {}), 2), 7, 0.2, 4).curves == {
        "loss": (1.0, 0.5, 0.5, 0.5)
    }


@pytest.mark.parametrize(
    ("name", "better", "resolution"),
    [
        ("val_accuracy", "higher", 0.01),
        ("recall", "higher", 0.01),
        ("auc", "higher", 1e-4),
        ("val_loss", "lower", 1e-4),
        ("mspe", "lower", 1e-4),
        ("a", "neither", 1e-4),
    ],
)
def test_what_a_figure_is_taken_for(name, better, resolution):
    metric = metric_of(name, [-1.0, 0.5], rows=100)
    assert (metric.better, metric.resolution) == (better, pytest.approx(resolution))
