"""Many seeds at once give, for each seed, the run that it has alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from refimpl import ModuleVariant, Variant
from refimpl.data import Splits
from refimpl.executions import ensemble
from refimpl.executions.ensemble import Ensemble, gains, supports, train_together, unfit
from refimpl.loading import registry
from refimpl.metrics import recall, roc_auc
from refimpl.requirements import NEEDS_ARRAYS
from refimpl.training.loop import steps_of, train
from refimpl.training.problem import pose
from refimpl.training.trajectories import observe

SEEDS = (3, 4, 7)
STEPS = 5


@pytest.fixture(params=["written down", "as they go"])
def operations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a batch are plain ones from the first time on, or never."""
    monkeypatch.setattr(ensemble, "OFTEN", 1 if request.param == "written down" else -1)


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize(
    ("example", "variant"),
    [("titanic-dnn", "script"), ("ring-dnn", "low"), ("mnist-logistic", "cnn")],
)
def test_each_member_is_the_plain_run_of_its_seed(example: str, variant: str) -> None:
    own = chosen(example, variant)
    problems = [
        pose(own, seed=seed, dropout=False, horizon=STEPS).but(precision="float64")
        for seed in SEEDS
    ]
    together = Ensemble(own, problems)
    alone = [steps_of(own, problem, STEPS) for problem in problems]
    steps = 0
    for update, *plain in zip(together.updates(), *alone, strict=True):
        steps += 1
        for k, step in enumerate(plain):
            member = together.member(k, update)
            for seen, expected in zip(observe(own, member), observe(own, step), strict=True):
                assert seen.key == expected.key
                torch.testing.assert_close(seen.value, expected.value, rtol=1e-9, atol=1e-11)
    assert steps == STEPS


def test_a_recurrent_net_is_not_offered_for_it() -> None:
    covid = registry.load(only=["covid-lstm"]).example("covid-lstm")
    assert not any(supports(variant) for variant in covid.variants)


def test_whether_a_variant_is_supported_is_known_before_its_data_are_made() -> None:
    own = chosen("titanic-dnn", "script")
    assert own.data is not None

    def stand_in() -> Splits:
        raise AssertionError("the data were made")

    assert supports(replace(own, data=replace(own.data, stand_in=stand_in)))


def test_rows_that_are_no_arrays_are_skipped_with_that_reason() -> None:
    own = chosen("titanic-dnn", "script")
    assert own.data is not None
    rows = own.data.load("stand-in")
    named = replace(rows, train=replace(rows.train, x={"passengers": rows.train.x}))
    other = replace(own, data=replace(own.data, stand_in=lambda: named))
    assert supports(other)
    assert unfit(own) is None
    assert unfit(other) == NEEDS_ARRAYS
    assert not gains(other, "stand-in")


def chosen(example: str, variant: str) -> Variant:
    return registry.load(only=[example]).example(example).variant(variant)


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize(
    ("example", "variant"),
    [
        ("titanic-dnn", "script"),  # every seed in its own order, validation rows, accuracy
        ("linear-regression-1d", "module"),  # full batches, and parameters among the figures
        ("mnist-logistic", "linear"),  # figures of the last batch
        ("mnist-logistic", "fit"),  # validation weighted by the batches' sizes
        ("linear-regression-2d", "high"),
    ],
)
def test_every_member_has_the_figures_of_its_plain_run(example: str, variant: str) -> None:
    own = chosen(example, variant)
    assert own.protocol is not None
    short = replace(own.protocol, epochs=2, stand_in_epochs=None)
    problems = [pose(own, seed=seed).but(precision="float64", protocol=short) for seed in SEEDS]
    for together, problem in zip(train_together(own, problems), problems, strict=True):
        alone = train(own, problem)
        assert together.final.keys() == alone.final.keys()
        assert together.final == pytest.approx(alone.final, rel=1e-8, abs=1e-10)
        assert together.steps == alone.steps
        assert [e.epoch for e in together.epochs] == [e.epoch for e in alone.epochs]


def test_a_metric_that_cannot_be_vmapped_is_taken_member_by_member() -> None:
    own = replace(chosen("titanic-dnn", "script"), metrics={"auc": roc_auc, "recall": recall})
    assert own.protocol is not None
    short = replace(own.protocol, epochs=1)
    problems = [pose(own, seed=seed).but(precision="float64", protocol=short) for seed in SEEDS]
    for together, problem in zip(train_together(own, problems), problems, strict=True):
        assert together.final == pytest.approx(train(own, problem).final, rel=1e-8)


@pytest.mark.parametrize(
    ("example", "variant", "expected"),
    [
        ("ring-dnn", "high", True),
        ("ring-dnn", "mid", False),  # says no optimizer: it makes a new one for every step
        ("mnist-logistic", "cnn", False),  # convolutions
        ("imdb-cnn", "keep-first", False),  # dropout
        ("cifar10-two-layer", "sampled", False),  # measures its validation rows in its own way
    ],
)
def test_seeds_are_trained_together_where_that_is_proven_and_gains(
    example: str, variant: str, expected: bool
) -> None:
    assert gains(chosen(example, variant), "stand-in") is expected


def test_a_loop_that_does_something_else_than_the_variant_says_is_trained_alone() -> None:
    own = chosen("titanic-dnn", "script")
    assert gains(own, "stand-in")
    other = replace(own, optimizer=torch.optim.SGD)
    assert not gains(other, "stand-in")


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(15, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Sigmoid())


@pytest.mark.usefixtures("operations")
def test_running_statistics_are_those_of_each_member() -> None:
    given = chosen("titanic-dnn", "script")
    own = ModuleVariant(
        "normalised", build=normalised, optimizer=torch.optim.SGD, loss=given.loss,
        data=given.data, protocol=replace(given.protocol, epochs=2), metrics=given.metrics,
    )  # fmt: skip
    problems = [pose(own, seed=seed).but(precision="float64") for seed in SEEDS]
    for together, problem in zip(train_together(own, problems), problems, strict=True):
        assert together.final == pytest.approx(train(own, problem).final, rel=1e-8)


def test_torchs_generator_is_left_as_it_was() -> None:
    own = chosen("linear-regression-1d", "module")
    before = torch.random.get_rng_state()
    train_together(own, [pose(own, seed=seed) for seed in SEEDS])
    assert torch.equal(before, torch.random.get_rng_state())
