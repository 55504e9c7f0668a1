"""Figures that a document prints during training: at a step, and parameters after an epoch."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from refimpl import Example, Facts, Figure, Protocol, Step, Variant, pose
from refimpl.conformance import check_example
from refimpl.data import DataSet, Rows, Splits
from refimpl.loading import validation
from refimpl.training.loop import train

ROWS, BATCH = 40, 8
STEPS = ROWS // BATCH


def line() -> Splits:
    x = torch.linspace(-1, 1, ROWS).reshape(-1, 1).numpy()
    return Splits(Rows(x, 2 * x + 1))


def by_hand(problem):
    """Notes each batch's loss, and the weight after each epoch."""
    net = problem.load(nn.Linear(1, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=problem.lr)
    for x, y in problem.batches():
        output = net(x)
        loss = nn.functional.mse_loss(output, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        LOSSES.append(loss.item())
        WEIGHTS.append(net.weight.item())
        yield Step(loss, net, output, y, optimizer)


LOSSES: list[float] = []
WEIGHTS: list[float] = []


def variant(*figures: Figure, **protocol) -> Variant:
    return Variant(
        "by-hand", by_hand, build=lambda: nn.Linear(1, 1), loss=nn.MSELoss(),
        data=DataSet("a-line", line), facts=Facts(parameters=2, figures=figures),
        protocol=Protocol(epochs=3, learning_rate=0.1, batch_size=BATCH, **protocol),
    )  # fmt: skip


def history(*figures: Figure):
    LOSSES.clear()
    WEIGHTS.clear()
    stated = variant(*figures)
    return train(stated, pose(stated, seed=0))


AT_2 = Figure("loss", 1.0, real=(0, 9), epoch=2, step=3)


def test_a_figure_at_a_step_is_the_mean_of_the_batches_of_its_epoch_up_to_it():
    record = history(AT_2).epochs[1]
    expected = sum(LOSSES[STEPS : STEPS + 3]) / 3
    assert record.figures_at(3)["loss"] == pytest.approx(expected)
    assert record.figures_at(None)["loss"] == pytest.approx(sum(LOSSES[STEPS : 2 * STEPS]) / STEPS)
    assert record.figures_at(4) == {}


def test_few_parameters_have_figures_after_an_epoch_that_is_stated():
    epochs = history(Figure("weight", 1.0, real=(0, 9), epoch=2)).epochs
    assert epochs[1].figures_at(None)["weight"] == WEIGHTS[2 * STEPS - 1]
    assert "weight" not in epochs[0].figures_at(None)


def test_a_run_prints_nothing_that_is_not_stated():
    assert all(not record.printed for record in history().epochs)


def test_a_figure_says_its_step_and_epoch():
    assert AT_2.name == "loss at step 3 of epoch 2"


@pytest.mark.parametrize(("high", "holds"), [(9.0, True), (1e-9, False)])
def test_the_check_compares_the_step_with_its_range(high, holds):
    LOSSES.clear()
    stated = variant(replace(AT_2, real=(0.0, high)))
    example = Example("made", "t", "a document", "1", variants=(stated,))
    results = {r.check: r for r in check_example(example)}
    found = results["reaches-documented-figures"]
    assert (found.outcome == "passed") is holds
    assert [m.what for m in found.measurements] == ["loss at step 3 of epoch 2"]


@pytest.mark.parametrize("step", [3, None])
def test_one_seed_outside_is_not_enough_for_a_figure_that_no_baseline_has(step):
    stated = replace(AT_2, step=step)
    first, second = (
        train(variant(stated), pose(variant(stated), seed=seed)).epochs[1].figures_at(step)["loss"]
        for seed in (0, 1)
    )
    between = (first + second) / 2
    limits = (0.0, between) if second < between else (between, 9.0)
    example = Example("made", "t", "a", "1", variants=(variant(replace(stated, real=limits)),))
    (found,) = [r for r in check_example(example) if r.check == "reaches-documented-figures"]
    assert found.outcome == "passed"
    assert "no baseline has this figure; 3 seeds in a row fail" in found.measurements[0].limit


def test_a_step_that_the_run_does_not_have_fails():
    stated = variant(replace(AT_2, step=STEPS + 1))
    example = Example("made", "t", "a document", "1", variants=(stated,))
    (found,) = [r for r in check_example(example) if r.check == "reaches-documented-figures"]
    assert found.outcome == "failed"
    assert "the run reports no loss at step 6 of epoch 2" in found.reason


@pytest.mark.parametrize(
    ("wrong", "protocol", "says"),
    [
        ({"epoch": None}, {}, "a step is one of an epoch"),
        ({"epoch": 0}, {}, "a step is one of an epoch"),
        ({"step": 0}, {}, "a step is one of an epoch"),
        ({}, {"report": "last-batch"}, "needs report='epoch'"),
    ],
)
def test_a_step_without_its_epoch_or_its_mean_is_refused(wrong, protocol, says):
    stated = variant(replace(AT_2, **wrong), **protocol)
    example = Example("made", "t", "a document", "1", variants=(stated,))
    assert any(says in str(finding) for finding in validation.check_example(example))
