"""The suite itself: for every check one example fails that check alone, and a sound one none."""

import re
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from fakes.calibrated import baseline_of, baselines_of
from fakes.failing import ALSO, FAILING, WHEN_CALIBRATED, WHEN_GOLDEN, planted
from fakes.sound import DROPPING, EXAMPLE, MODULE, SCRATCH
from torch import nn
from torch.nn import functional as F

from refimpl import (
    Erratum,
    Exact,
    Example,
    Facts,
    Failure,
    Figure,
    requirements,
)
from refimpl.baselines import committed
from refimpl.baselines.sweep import train_seeds
from refimpl.checking import checks
from refimpl.checking.checks import cells, run_check
from refimpl.composition import CPU
from refimpl.conformance.checks import ALL
from refimpl.executions.built_in import refimpl_executions
from refimpl.loading import registry
from refimpl.loading.validation import check_example
from refimpl.parity import golden
from refimpl.records import files, making
from refimpl.training.loop import steps_of, written_steps

CALIBRATED = "stays-in-calibrated-band"
EXECUTIONS = {execution.name: execution for execution in refimpl_executions()}
ON_THE_CPU = replace(EXECUTIONS["data-parallel"], device="cpu", missing=lambda: None)
WRAPPED = [ON_THE_CPU]
QUICK = [EXECUTIONS["f64"], ON_THE_CPU, EXECUTIONS["ensemble"]]


@pytest.fixture(autouse=True)
def goldens(tmp_path, monkeypatch):
    """Golden trajectories and records of the fakes, and none of anything else."""
    monkeypatch.setattr(golden, "folder", lambda: tmp_path)

    monkeypatch.setattr(files, "folder", lambda: tmp_path / "records")

    def make(example):
        list(golden.update([example]))
        for path, records in making.today([example], "stand-in"):
            files.update(path, records)

    return make


@pytest.fixture
def calibrated(tmp_path):
    """Gives an example baselines, which may be those of what it once was."""

    def give(example, when=None):
        example, folder = replace(example, baselines=tmp_path), tmp_path / "stand-in"
        baselines_of(replace(when or example, baselines=tmp_path))
        assert len(list(folder.iterdir())) == len(example.variants)
        return example

    return give


def asked(example, *checks, others=WRAPPED):
    return [run_check(cell) for cell in cells(example, checks or ALL, CPU, "stand-in", others)]


def named(*names):
    return [check for check in ALL if check.name in names]


def reasons(results):
    return {result.id: result.reason for result in results if result.outcome != "passed"}


# --- one fake for every check --------------------------------------------------------------------


@pytest.mark.parametrize("check", FAILING)
def test_a_fake_fails_its_check_and_no_other(check, goldens, calibrated):
    example = FAILING[check]
    goldens(WHEN_GOLDEN.get(check, example))
    if check in WHEN_CALIBRATED:
        example = calibrated(example, WHEN_CALIBRATED[check])
    results = asked(example)
    wrong = {result.check for result in results if result.outcome != "passed"}
    assert wrong - ALSO.get(check, set()) == {check}, reasons(results)
    assert {result.outcome for result in results} == {"passed", "failed"}


ON_DEVICES = {"gradient-is-the-slope-in-float32", "spread-by-default"}
"""Checks of accelerators: what fails them is in the tests of emulated devices."""


OF_TORCH_ALONE = {"autograd-and-copies-work", "draws-as-torch-does"}
"""No example can fail them: faults of torch are planted in tests of their own."""


def test_there_is_a_fake_for_every_check():
    lacking = {check.name for check in ALL if check.name not in FAILING}
    assert lacking == ON_DEVICES | OF_TORCH_ALONE
    faults = (Path(__file__).parent / "test_torch_faults.py").read_text("utf-8")
    assert [name for name in OF_TORCH_ALONE if name not in faults] == []
    devices = (Path(__file__).parent / "test_devices.py").read_text("utf-8")
    assert [name for name in ON_DEVICES if name not in devices] == []
    assert len({check.name for check in ALL}) == len(ALL)


def test_the_sound_example_is_asked_everything_and_passes(goldens, calibrated):
    example = replace(EXAMPLE, variants=(*EXAMPLE.variants, DROPPING))
    example = calibrated(example)
    goldens(example)
    results = asked(example, others=QUICK)
    assert reasons(results) == {}
    assert {result.check for result in results} == {check.name for check in ALL} - ON_DEVICES
    assert all(result.measurements for result in results)


@pytest.mark.parametrize("example", [EXAMPLE, *FAILING.values()], ids=lambda e: e.name)
def test_the_fakes_keep_the_contract(example):
    assert list(check_example(example)) == []


# --- no false alarms -----------------------------------------------------------------------------


class Regular(nn.Module):
    """Everything that has a state or a chance of its own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(4, 1)

    def forward(self, x):
        return self.last(self.drop(self.norm(self.first(x)).relu()))


def test_an_execution_in_a_narrow_precision_that_computes_in_float32_fails():
    narrow = EXECUTIONS["bf16"]
    never_entered = replace(narrow, around=nullcontext)
    (check,) = named("same-on-every-execution")
    for execution, outcome in ((narrow, "passed"), (never_entered, "failed")):
        results = asked(EXAMPLE, check, others=[execution])
        (result,) = [
            own for own in results if own.execution == "bf16" and own.variant == MODULE.name
        ]
        assert result.outcome == outcome
    assert "it was not narrow" in result.reason


def test_running_statistics_and_dropout_and_momentum_raise_no_alarm():
    variant = replace(MODULE, build=Regular, ladder=None, names={}, data_parallel=False, facts=None)
    example = replace(EXAMPLE, name="regular", facts=replace(EXAMPLE.facts, parameters=25))
    for optimizer in (torch.optim.Adam, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)):
        one = replace(example, variants=(replace(variant, optimizer=optimizer),))
        of_runs = named(
            "same-seed-same-bits", "checkpoint-predicts-the-same", "resumed-run-is-the-same"
        )
        results = asked(one, *of_runs)
        assert len(results) == 3
        assert reasons(results) == {}


def loss_of_some_rows(output, target):
    """Layers such as pooling refuse a batch without rows; here the loss does."""
    assert len(output) > 0
    return F.mse_loss(output, target)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_batch_of_fewer_rows_than_shards_raises_no_alarm(rows):
    protocol = replace(EXAMPLE.protocol, batch_size=rows)
    variant = replace(planted(loss_of=loss_of_some_rows), protocol=protocol)
    example = replace(EXAMPLE, variants=(variant,))
    (result,) = asked(example, *named("shards-make-the-batch"))
    assert result.outcome == "passed", result.reason


# --- what a check says ---------------------------------------------------------------------------


def test_a_run_that_is_not_the_same_twice_is_told_by_its_tensors():
    runs = Counter()

    def restless(problem):
        runs["made"] += 1
        for step in SCRATCH.steps(problem):
            yield replace(step, loss=step.loss + runs["made"])

    example = replace(EXAMPLE, variants=(replace(SCRATCH, steps=restless),))
    (result,) = asked(example, *named("same-seed-same-bits"))
    assert result.reason.startswith("a rerun differs: loss of step 1")


def test_a_resumed_run_that_stops_early_is_told_by_its_steps():
    def short(problem):
        for number, step in enumerate(SCRATCH.steps(problem)):
            if problem.first_step and number == 2:
                return
            yield step

    example = replace(EXAMPLE, variants=(replace(SCRATCH, steps=short),))
    (result,) = asked(example, *named("resumed-run-is-the-same"))
    assert result.reason.startswith("steps after resuming is 2, expected 6; short epochs, from")


def test_a_run_of_one_update_cannot_be_resumed_and_is_told_so():
    once = replace(EXAMPLE.protocol, epochs=1, stand_in_epochs=None, batch_size=None)
    example = replace(EXAMPLE, variants=(replace(SCRATCH, protocol=once),))
    (result,) = asked(example, *named("resumed-run-is-the-same"))
    assert result.reason == "the run has only one update, so it cannot be resumed; train longer"


def test_a_figure_that_the_run_does_not_report_is_a_failure_that_says_what_it_reports():
    figures = (replace(MODULE.facts.figures[0], metric="val_auc"),)
    variant = replace(MODULE, facts=replace(MODULE.facts, figures=figures))
    (result,) = asked(replace(EXAMPLE, variants=(variant,)), *named("reaches-documented-figures"))
    assert result.reason.startswith("the run reports no val_auc (it reports bias, error, loss")


@pytest.fixture
def ranged(tmp_path):
    """Asks whether a sound variant ends in a range, given how 40 seeds of it end and how seed 0."""
    variant = EXAMPLE.variant("module")
    example = replace(EXAMPLE, variants=(variant,), baselines=tmp_path)
    path = baseline_of(example, variant, range(1000, 1040))
    finals = committed.read(path).finals("val_loss")

    def ask_of(bounds):
        (own,) = train_seeds(variant, "stand-in", [variant.seed])
        figure = Figure("val_loss", None, real=bounds(finals, own.final["val_loss"]))
        changed = replace(variant, facts=Facts(figures=(figure,)))
        (result,) = asked(
            replace(example, variants=(changed,)), *named("reaches-documented-figures")
        )
        return result

    return ask_of


def all_but(finals, own):
    """The half-line that begins right behind a run and has most others in it."""
    return (own * 1.0001, 1e9) if own < median(finals) else (0.0, own * 0.9999)


def test_a_seed_outside_a_range_that_most_seeds_reach_is_asked_for_others(ranged):
    result = ranged(all_but)
    assert result.outcome == "passed"
    (figure,) = result.measurements
    assert not figure.low <= figure.measured <= figure.high
    assert re.search(r"\(\d+ (below|above) of 40 runs; \d+ seeds in a row fail\)", figure.limit)


def test_a_range_that_most_seeds_miss_fails_though_one_run_lies_in_it(ranged):
    result = ranged(lambda finals, own: (own, own))
    assert result.outcome == "failed"
    assert re.search(r"\d+ of 40 runs of the baseline end with val_loss below", result.reason)
    assert result.reason.endswith("above: most runs of the program miss this range")


def test_a_program_that_no_longer_ends_in_the_range_fails_with_every_seed_it_tried(
    calibrated, goldens
):
    example = calibrated(FAILING[CALIBRATED], WHEN_CALIBRATED[CALIBRATED])
    finals = committed.read(committed.path_of(example, SCRATCH, "stand-in")).finals("val_loss")
    figure = Figure("val_loss", None, real=(min(finals), max(finals)))
    variant = replace(example.variants[0], facts=Facts(figures=(figure,)))
    changed = replace(example, variants=(variant,))
    (result,) = asked(changed, *named("reaches-documented-figures"))
    assert re.match(r"val_loss of \d+ seeds \(.*\) is \w+ .* each time; of the", result.reason)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda: None, "f no longer fails; expected ValueError"),
        (lambda: int("x"), "f raises ValueError, but its message lacks 'broadcast': invalid lit"),
        (lambda: 1 / 0, "f raises ZeroDivisionError instead: division by zero"),
    ],
)
def test_a_documented_mistake_that_fails_otherwise_is_told_apart(attempt, said):
    example = Example(
        "x", "t", "d", "s", failures=(Failure("f", attempt, ValueError, "broadcast"),)
    )
    (result,) = asked(example, *named("documented-failures"))
    assert result.reason.startswith(said)


@pytest.mark.parametrize(
    ("measured", "expected", "digits", "same"),
    [
        (0.12345, 0.1235, 4, True),
        (0.12335, 0.1235, 4, False),
        (1 / 3, 0.333, None, False),
        (torch.tensor(1 / 3), 1 / 3, None, True),
        (torch.tensor([1, 2]), [1, 2], None, True),
        (torch.tensor([[1, 2]]), [1, 2], None, False),
        (torch.tensor([1.0, float("nan")]), [1.0, float("nan")], 4, True),
        (torch.Size([2, 3]), (2, 3), None, True),
        ([[1], [2, 3]], [[1], [2, 3]], None, True),
        ([[1], [2, 4]], [[1], [2, 3]], None, False),
        (True, True, None, True),
        (1, True, None, False),
        ("float32", "float32", None, True),
        (None, None, None, True),
        (0, None, None, False),
    ],
)
def test_exact_values_are_compared_to_their_digits_or_as_they_stand(
    measured, expected, digits, same
):
    example = Example("x", "t", "d", "s", values=(Exact("v", lambda: measured, expected, digits),))
    (result,) = asked(example, *named("exact-values"))
    assert (result.outcome == "passed") is same, result.reason


def seeded_for_good():
    torch.manual_seed(0)
    return torch.rand(1).numel()


def seeded_for_itself():
    with torch.random.fork_rng(devices=[]):
        return seeded_for_good()


@pytest.mark.parametrize(("compute", "same"), [(seeded_for_good, False), (seeded_for_itself, True)])
def test_a_value_does_not_leave_the_generator_seeded(compute, same):
    example = Example("x", "t", "d", "s", values=(Exact("v", compute, 1),))
    (result,) = asked(example, *named("exact-values"))
    assert (result.outcome == "passed") is same, result.reason
    assert same or "v leaves torch's generator seeded with 0" in result.reason


@pytest.mark.parametrize("holds", [np.True_, True])
def test_an_erratum_that_answers_with_a_numpy_bool_is_as_expected(holds):
    erratum = Erratum("e", "a", "b", "torch>=9999", lambda: holds)
    (result,) = asked(Example("x", "t", "d", "s", errata=(erratum,)), *named("errata"))
    assert result.outcome == "passed", result.reason


@pytest.mark.parametrize(
    ("call", "since", "outcome"),
    [
        (lambda: int("x"), "torch>=1.0", "passed"),  # gone, as stated
        (lambda: 0, "torch>=9999", "passed"),  # it runs, whatever it returns
        (lambda: 0, "torch>=1.0", "failed"),
        (lambda: [].x, "torch>=1.0", "failed"),  # another error says nothing about it
    ],
)
def test_an_erratum_about_whether_something_runs_is_judged_by_what_it_raises(call, since, outcome):
    erratum = Erratum("e", "a", "b", since, call, raises=(ValueError,))
    (result,) = asked(Example("x", "t", "d", "s", errata=(erratum,)), *named("errata"))
    assert result.outcome == outcome, result.reason


# --- claims that cannot be tried here ------------------------------------------------------------

NEEDY = Example(
    "needy", "t", "d", "s",
    values=(Exact("v", lambda: 2, 2, needs="torchtext"),),
    failures=(Failure("f", lambda: int("x"), ValueError, needs="torchtext"),),
    errata=(Erratum("e", "a", "b", "torch>=1.0", lambda: False, needs="torchtext"),),
)  # fmt: skip


@pytest.fixture
def without_torchtext(monkeypatch):
    monkeypatch.setattr(requirements, "import_error", lambda package: "ImportError: none")


@pytest.mark.usefixtures("without_torchtext")
def test_where_no_claim_can_be_tried_the_check_is_skipped_with_the_reason():
    results = [r for r in asked(NEEDY) if r.check not in OF_TORCH_ALONE]
    assert {r.check: r.outcome for r in results} == dict.fromkeys(
        ("exact-values", "documented-failures", "errata", "values-compute-rightly"), "skipped"
    )
    assert {r.reason for r in results} == {"needs torchtext"}


@pytest.mark.usefixtures("without_torchtext")
def test_where_some_claims_can_be_tried_they_are():
    example = replace(NEEDY, values=(*NEEDY.values, Exact("w", lambda: 3, 2)))
    (result,) = asked(example, *named("exact-values"))
    assert result.reason == "w is 3, expected 2"
    assert len(result.measurements) == 1


def test_the_fakes_run_is_long_enough_to_be_stopped_in_the_middle():
    from refimpl.training.problem import pose

    assert len(list(steps_of(MODULE_OF_EXAMPLE, pose(MODULE_OF_EXAMPLE)))) == 12


MODULE_OF_EXAMPLE = EXAMPLE.variant("module")


@pytest.mark.parametrize(
    ("example", "variant", "seed", "tensor"),
    [("ring-dnn", "low", 2, "w1"), ("covid-lstm", "single-start", 0, "lstm.bias_ih_l0")],
    ids=["a loss that loses digits", "a gradient of a millionth of the loss"],
)
@pytest.mark.parametrize(("scale", "outcome"), [(1.0, "passed"), (1.02, "failed")])
def test_a_slope_is_told_from_rounding_where_that_is_hard(
    example, variant, seed, tensor, scale, outcome, monkeypatch
):
    monkeypatch.setattr(checks, "SEEDS", 1)
    found = registry.load(only=[example]).example(example)
    original = found.variant(variant)

    def scaled(problem):
        for step in written_steps(original, problem):
            step.parameters[tensor].grad *= scale
            yield step

    off = replace(found, variants=(replace(original, seed=seed, steps=scaled),))
    (result,) = asked(off, *named("gradient-is-the-slope"), others=[])
    assert result.outcome == outcome, result.reason
