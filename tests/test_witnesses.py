"""Figures, protocols and modes are witnessed: each planted fault fails the check that is meant."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from fakes.checks_of import failing
from fakes.sound import EXAMPLE as SOUND
from fakes.sound import Net as SoundNet
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from refimpl import (
    DataSet,
    Epoch,
    Example,
    Facts,
    Model,
    Protocol,
    Rows,
    Splits,
    Step,
    Variant,
    metrics,
)
from refimpl.contract import Steps
from refimpl.parity.definitions import loss_by_definition, metric_by_definition
from refimpl.training.loop import train
from refimpl.training.problem import Problem, pose

CHECKS = ("splits-do-not-mix", "run-follows-its-protocol", "figures-recomputed")
# --- an outsider's plugin, without baseline, golden or record ------------------------------------


def digits() -> Splits:
    x, y = load_digits(return_X_y=True)
    x, y = (x[:600] / 16).astype(np.float32), y[:600].astype(np.int64)
    return Splits(Rows(x[:470], y[:470]), Rows(x[470:], y[470:]))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.dropout(F.relu(self.first(x))))


def loop(problem: Problem, fault: str = "") -> Steps:
    """A loop of its own, with places to plant a bug in."""
    net = problem.load(Net())
    rate = problem.lr
    made = torch.optim.AdamW if fault == "another optimizer" else torch.optim.Adam
    constants: dict[str, Any] = {"betas": (0.8, 0.999)} if fault == "other betas" else {}
    optimizer = problem.resume(made(net.parameters(), lr=rate, **constants))
    kept = (0.0, 0.0)
    for epoch in problem.epochs():
        if not (fault == "never trains again" and epoch):
            net.train()
        if fault == "rate drops in epoch 6" and epoch >= 5:
            optimizer.param_groups[0]["lr"] = 0.3 * rate
        order = max(epoch - 1, 0) if fault == "order of the epoch before" else epoch
        if fault == "not shuffled":
            order = 0
        rows = torch.as_tensor(problem.but(checkpoint=None).order(order))
        rows = rows[len(rows) - len(problem.order(epoch)) :]
        for own in rows.split(problem.batch_size):
            x, y = problem.train.x[own], problem.train.y[own]
            if fault == "inputs are noisy":
                x = x + 0.01
            output = net(x)
            loss = F.cross_entropy(output, y)
            if fault == "short batch divided by a full one":
                loss = F.cross_entropy(output, y, reduction="sum") / problem.batch_size
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield Step(loss, net, output, y, optimizer)
        if fault != "validates in training mode":
            net.eval()
        rows_of = problem.train if fault == "validates on training rows" else problem.valid
        assert rows_of is not None
        count = 100 if fault == "validates on some of the rows" else len(rows_of)
        with torch.no_grad():
            output = net(rows_of.x[:count])
            loss = F.cross_entropy(output, rows_of.y[:count])
            found = metrics.accuracy(output, rows_of.y[:count]).mean()
        figures = float(loss), float(found)
        if fault == "figures of an earlier epoch":
            kept = figures if epoch < 5 else kept
            figures = kept
        yield Epoch({"val_loss": figures[0], "val_accuracy": figures[1]})


def example(fault: str = "", data: Any = digits) -> Example:
    return Example(
        name="own-digits",
        title="Digits by a net of two layers",
        document="tests",
        section="1",
        data=DataSet("own-digits", data),
        protocol=Protocol(
            epochs=8, learning_rate=0.01, batch_size=64, valid_batch_size=64, average="samples"
        ),
        loss=nn.CrossEntropyLoss(),
        metrics={"accuracy": metrics.accuracy},
        facts=Facts(parameters=2410),
        variants=(
            Variant("own", partial(loop, fault=fault), build=Net, optimizer=torch.optim.Adam),
        ),
    )


def test_a_sound_outsider_fails_nothing() -> None:
    assert failing(example(), CHECKS) == {}


PLANTED = {
    "another optimizer": "run-follows-its-protocol",
    "other betas": "run-follows-its-protocol",
    "never trains again": "run-follows-its-protocol",
    "rate drops in epoch 6": "run-follows-its-protocol",
    "order of the epoch before": "run-follows-its-protocol",
    "not shuffled": "run-follows-its-protocol",
    "inputs are noisy": "run-follows-its-protocol",
    "short batch divided by a full one": "figures-recomputed",
    "validates in training mode": "figures-recomputed",
    "validates on training rows": "figures-recomputed",
    "validates on some of the rows": "figures-recomputed",
    "figures of an earlier epoch": "figures-recomputed",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_quiet_bug_of_an_outsider_is_killed(fault: str) -> None:
    found = failing(example(fault), CHECKS)
    assert PLANTED[fault] in found


def test_the_message_names_the_epoch_and_both_rates() -> None:
    found = failing(example("rate drops in epoch 6"), CHECKS)
    said = found["run-follows-its-protocol"]
    assert "in epoch 6, has the learning rate 0.003, expected 0.01" in said


def leaking() -> Splits:
    own = digits()
    assert own.valid is not None
    own.valid.x[:13], own.valid.y[:13] = own.train.x[:13], own.train.y[:13]
    return own


def test_an_outsiders_validation_rows_that_are_training_rows_are_seen() -> None:
    assert "13 of 130" in failing(example(data=leaking), CHECKS)["splits-do-not-mix"]


# --- all starts are one --------------------------------------------------------------------------


class Still(Net):
    """The net without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.0)


def begun_again(problem: Problem, same: bool) -> Steps:
    """Two starts of eight epochs each; the second is to be another."""
    for number in range(2):
        net = problem.load(Still())
        if number and not same:
            with torch.no_grad():
                net.first.weight.mul_(0.5)
        model = Model(net)
        model.compile(F.cross_entropy, torch.optim.SGD(net.parameters(), lr=problem.lr))
        for epoch in range(8 * number, 8 * number + 8):
            yield from model.steps(problem.epoch_batches(epoch))


@pytest.mark.parametrize("same", [True, False])
def test_a_second_start_that_is_the_first_is_seen(same: bool) -> None:
    protocol = Protocol(epochs=16, learning_rate=0.1)
    own = replace(
        example(),
        variants=(
            Variant("two", partial(begun_again, same=same), build=Still, protocol=protocol,
                    data=DataSet("own-digits", digits), loss=nn.CrossEntropyLoss(),
                    facts=Facts(parameters=2410)),
        ),
    )  # fmt: skip
    found = failing(own, ("run-follows-its-protocol",))
    assert ("begins again" in found.get("run-follows-its-protocol", "")) is same


# --- metrics and losses, at their ends -----------------------------------------------------------

scores = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.5000001, 0.75, 1.0]), st.sampled_from([0.0, 1.0])),
    max_size=12,
)


@given(scores)
def test_binary_metrics_are_those_of_scikit_learn_with_ties_and_one_class(
    rows: list[tuple[float, float]],
) -> None:
    p = torch.tensor([[score] for score, _ in rows], dtype=torch.float32).reshape(-1, 1)
    y = torch.tensor([[label] for _, label in rows], dtype=torch.float32).reshape(-1, 1)
    for name, own in (
        ("accuracy", metrics.binary_accuracy), ("auc", metrics.roc_auc), ("recall", metrics.recall),
    ):  # fmt: skip
        definition = metric_by_definition(name, nn.BCELoss())
        assert definition is not None
        expected, found = definition(p.numpy(), y.numpy()), float(own(p, y).mean())
        assert found == pytest.approx(expected, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize(
    "loss", [nn.BCELoss(), nn.BCEWithLogitsLoss(), nn.MSELoss(), nn.L1Loss(reduction="sum")],
    ids=lambda loss: type(loss).__name__,
)  # fmt: skip
def test_losses_are_those_of_their_definition(loss: nn.Module) -> None:
    output = torch.tensor([[0.0], [1.0], [0.5], [0.3]], dtype=torch.float64)
    target = torch.tensor([[1.0], [1.0], [0.0], [1.0]], dtype=torch.float64)
    definition = loss_by_definition(loss)
    assert definition is not None
    assert definition(output.numpy(), target.numpy()) == pytest.approx(float(loss(output, target)))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.NLLLoss()], ids=["scores", "logs"])
def test_losses_of_classes_are_those_of_their_definition(loss: nn.Module) -> None:
    scores, classes = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    definition = loss_by_definition(loss)
    assert definition is not None
    assert definition(scores.numpy(), classes.numpy()) == pytest.approx(
        float(loss(scores, classes))
    )


def test_a_loss_with_options_has_no_plain_definition() -> None:
    assert loss_by_definition(nn.CrossEntropyLoss(label_smoothing=0.1)) is None
    assert loss_by_definition(nn.BCELoss(weight=torch.ones(1))) is None


def test_batches_of_the_same_order_that_are_cut_elsewhere_are_seen() -> None:
    """Eight rows in batches of 3, 3 and 2 are read as 2, 3 and 3."""

    def cut_elsewhere(problem: Any) -> Any:
        net = problem.load(SoundNet())
        optimizer = problem.resume(torch.optim.SGD(net.parameters(), lr=problem.lr))
        for epoch in problem.epochs():
            rows = problem.row_order(epoch)
            for own in torch.split(rows, [2, 3, 3]):
                xb, yb = problem.train.x[own], problem.train.y[own]
                output = net(xb)
                loss = F.mse_loss(output, yb)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                yield Step(loss, net, output, yb, optimizer)

    variant = replace(SOUND.variants[1], steps=cut_elsewhere, ladder=None)
    history = train(variant, pose(variant, "stand-in"), watched=True)
    assert history.witness is not None
    assert history.witness.other_rows[:2] == [1, 2]
