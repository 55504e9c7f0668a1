"""The picture of a run: its curves, the document's figures, the rows and what is predicted."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from refimpl import Figure, Protocol, Variant
from refimpl.authoring.pictures import IMAGES, MOST_ROWS, predicted_by
from refimpl.authoring.plotting import plot_history
from refimpl.data import DataSet, Rows, Splits
from refimpl.training.loop import EpochRecord, History, train
from refimpl.training.problem import pose


def history(count: int) -> History:
    return History(epochs=[EpochRecord(n, {"loss": 100.0 + n}, 0.0) for n in range(1, count + 1)])


def drawn(tmp_path, *args, **kwargs) -> str:
    path = tmp_path / "run.svg"
    plot_history(*args, path=path, **kwargs)
    return path.read_text(encoding="utf-8")


def ran(x, y, net, loss, valid=None):
    """A variant that learns these rows for one epoch; its problem and its run."""
    splits = Splits(Rows(x, y), valid)
    variant = Variant(
        "only",
        build=lambda: net,
        optimizer=torch.optim.SGD,
        loss=loss,
        data=DataSet("rows", lambda: splits),
        protocol=Protocol(epochs=1, learning_rate=0.01, batch_size=8),
    )
    problem = pose(variant)
    return variant, problem, train(variant, problem)


def rows_of(x, y, net, loss, valid=None):
    variant, problem, run = ran(x, y, net, loss, valid)
    return predicted_by(variant, problem, run.last)


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def halves(count):
    return (np.arange(count) % 2).astype(np.float32)[:, None]


SURE = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
KINDS = {
    "plane": (random(20, 2), halves(20), SURE, nn.BCELoss()),
    "shares": (random(20, 5), halves(20), nn.Linear(5, 1), nn.BCEWithLogitsLoss()),
    "values": (random(20, 1), random(20, 1), nn.Linear(1, 1), nn.MSELoss()),
    "series": (
        random(20, 4, 3),
        random(20, 3),
        nn.Sequential(nn.Flatten(), nn.Linear(12, 3)),
        nn.MSELoss(),
    ),
    "images": (random(20, 64), np.arange(20) % 3, nn.Linear(64, 3), nn.CrossEntropyLoss()),
}


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_epochs_are_counted_in_whole_numbers(tmp_path, count):
    axis = drawn(tmp_path, history(count), "").partition('id="matplotlib.axis_1"')[2]
    ticks = re.findall(r">([\d.]+)</text>", axis.partition('id="matplotlib.axis_2"')[0])
    assert ticks
    assert all(tick.isdigit() for tick in ticks)


def test_a_figure_of_the_end_is_a_line_and_one_of_an_epoch_a_cross(tmp_path):
    stated = (Figure("loss", 0.4), Figure("loss", 0.7, epoch=1), Figure("accuracy", 0.9))
    text = drawn(tmp_path, history(3), "", documented=stated)
    assert "the document: loss 0.4<" in text
    assert "the document: loss of an epoch<" in text
    assert "0.7<" not in text
    assert "accuracy" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_drawn_by_what_they_are(tmp_path, kind):
    rows = rows_of(*KINDS[kind])
    assert rows.kind == kind
    assert "predict" in drawn(tmp_path, history(2), "", rows=rows)


def test_drawing_the_same_twice_gives_the_same_bytes(tmp_path):
    rows = rows_of(*KINDS["plane"])
    first = drawn(tmp_path, history(2), "ring", rows=rows)
    assert drawn(tmp_path, history(2), "ring", rows=rows) == first


def test_an_image_is_titled_with_its_label_and_the_predicted_one(tmp_path):
    x, y, net, loss = KINDS["images"]
    rows = rows_of(x, y, net, loss)
    guesses = net(torch.tensor(x[:IMAGES])).argmax(dim=1).tolist()
    titles = re.findall(r"(\d) → (\d)<", drawn(tmp_path, history(2), "", rows=rows))
    assert titles == [(str(label), str(guess)) for label, guess in zip(y, guesses, strict=False)]


def test_validation_rows_are_shown_where_there_are_some():
    x, y, net, loss = KINDS["values"]
    assert rows_of(x, y, net, loss).of == "training"
    shown = rows_of(x, y, net, loss, Rows(x[:3] + 1, y[:3]))
    assert shown.of == "validation"
    assert np.array_equal(shown.x, x[:3] + 1)
    assert np.allclose(shown.output, net(torch.tensor(shown.x)).detach().numpy())


def test_only_as_many_rows_are_drawn_as_can_be_seen():
    rows = rows_of(random(2 * MOST_ROWS, 1), random(2 * MOST_ROWS, 1), *KINDS["values"][2:])
    assert len(rows.x) == len(rows.output) == MOST_ROWS


def test_a_class_is_separated_at_one_half_of_probabilities_and_at_zero_of_logits():
    assert rows_of(*KINDS["plane"]).separates == 0.5
    assert rows_of(*KINDS["shares"]).separates == 0.0


def test_rows_that_no_picture_is_known_for_are_left_out():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    assert rows_of(random(8, 3, 4), random(8, 2, 2), nn.Sequential(net, nn.Unflatten(1, (2, 2))),
                   nn.MSELoss()) is None  # fmt: skip
