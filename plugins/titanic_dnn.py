"""Titanic survival: a small dense network over fifteen columns of the passenger list.

The script style: one plain loop over shuffled batches of eight, binary cross entropy on a sigmoid,
Adam. Figures are means over an epoch's batches; a probability above one half counts as "survived".
Ten epochs reach a validation accuracy of about 0.81. A model is then saved in two ways, by its
state dict or whole, and makes the same predictions after reloading either.

Source: 20-days, chapter 1-1.
"""

from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import nn

from refimpl import (
    Erratum,
    Exact,
    Example,
    Facts,
    Figure,
    Layer,
    Protocol,
    Sizes,
    Step,
    Variant,
    hookimpl,
)
from refimpl.fixtures import titanic
from refimpl.metrics import binary_accuracy


class Net(nn.Module):
    """15 → 20 → 15 → 1, with ReLU between and a probability at the end."""

    def __init__(self):
        super().__init__()
        self.linear1 = nn.Linear(15, 20)
        self.relu1 = nn.ReLU()
        self.linear2 = nn.Linear(20, 15)
        self.relu2 = nn.ReLU()
        self.linear3 = nn.Linear(15, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):  # (N, 15)
        x = self.relu1(self.linear1(x))  # (N, 20)
        x = self.relu2(self.linear2(x))  # (N, 15)
        return self.sigmoid(self.linear3(x))  # (N, 1)


def script(problem):
    """Forward, loss, backward, update: four lines per batch."""
    net = problem.load(Net())
    loss_func = nn.BCELoss()
    optimizer = problem.resume(torch.optim.Adam(net.parameters(), lr=problem.lr))
    for features, labels in problem.batches():
        optimizer.zero_grad()
        predictions = net(features)
        loss = loss_func(predictions, labels)
        loss.backward()
        optimizer.step()
        yield Step(loss, net, predictions, labels, optimizer)


# --- predictions, and saving what makes them -----------------------------------------------------


def sequence_agrees():
    """Whether the document's Sequential of the same named layers predicts the same."""
    net, sequence = Net(), nn.Sequential(OrderedDict(Net().named_children()))
    sequence.load_state_dict(net.state_dict())
    return torch.equal(predicted(sequence), predicted(net))


def predicted(net):
    """Probabilities (10, 1) for the first ten rows of the test set, (10, 15)."""
    return net(torch.tensor(titanic.PASSENGERS.load("stand-in").valid.x[:10]))


def reloaded(saved, **how):
    """What ``torch.load`` gives of it after ``torch.save``."""
    with TemporaryDirectory() as folder:
        torch.save(saved, Path(folder) / "saved.pt")
        return torch.load(Path(folder) / "saved.pt", **how)


def same_after_reloading():
    """By its weights, the recommended way; whole, as a pickle that can run code if not trusted."""
    net, other = Net(), Net()
    other.load_state_dict(reloaded(net.state_dict(), weights_only=True))
    whole = reloaded(net, weights_only=False)
    return [torch.equal(predicted(again), predicted(net)) for again in (other, whole)]


# --- what the document states --------------------------------------------------------------------

EXAMPLE = Example(
    name="titanic-dnn",
    title="Titanic survival by a dense network",
    document="20-days",
    section="1-1",
    data=titanic.PASSENGERS,
    protocol=Protocol(epochs=10, learning_rate=0.01, batch_size=8),
    loss=nn.BCELoss(),
    metrics={"accuracy": binary_accuracy},
    variants=(Variant("script", script, build=Net, optimizer=torch.optim.Adam),),
    facts=Facts(
        parameters=651,
        layers=(
            Layer("linear1", "Linear", (-1, 20), 320),
            Layer("relu1", "ReLU", (-1, 20), 0),
            Layer("linear2", "Linear", (-1, 15), 315),
            Layer("relu2", "ReLU", (-1, 15), 0),
            Layer("linear3", "Linear", (-1, 1), 16),
            Layer("sigmoid", "Sigmoid", (-1, 1), 0),
        ),
        sizes=Sizes(input=0.000057, forward_backward=0.000549, parameters=0.002483, total=0.003090),
        state_dict=tuple(f"linear{n}.{part}" for n in (1, 2, 3) for part in ("weight", "bias")),
        output=(8, 1),
        figures=(
            Figure("val_accuracy", 0.810, real=(0.75, 0.85), stand_in=(0.70, 0.95)),
            Figure("val_loss", 0.415, real=(0.37, 0.52)),
            Figure("accuracy", 0.787, real=(0.74, 0.84)),
            Figure("loss", 0.462, real=(0.41, 0.52)),
            *titanic.printed_figures(),
        ),
    ),
    values=(
        Exact(
            "shapes of x and y",
            lambda: titanic.PASSENGERS.load("stand-in").shapes,
            [(712, 15), (712, 1), (179, 15), (179, 1)],
        ),
        Exact("the printed batch of eight", titanic.printed_passengers, titanic.PRINTED, digits=4),
        Exact("a Sequential of the same layers predicts the same", sequence_agrees, True),
        Exact("shape of ten predictions", lambda: [*predicted(Net()).shape], [10, 1]),
        Exact(
            "classes of those printed",
            lambda: (torch.tensor(titanic.PRINTED_PROBABILITIES) > 0.5).float(),
            [0, 1, 0, 1, 1, 1, 0, 1, 1, 0],
        ),
        Exact("same predictions after reloading", same_after_reloading, [True, True]),
    ),
    errata=(
        Erratum(
            "table with one-hot columns",
            says="get_dummies gives numbers, so torch takes the values of the table",
            today="gives bools, so that beside numbers the values are objects; cast them first",
            since="pandas>=2",
            holds=lambda: torch.tensor(
                pd.get_dummies(titanic.PRINTED_PASSENGERS[["Sex", "Age"]]).values
            ),
            raises=(TypeError,),  # torch takes no array of objects
        ),
        Erratum(
            "loading a whole model",
            says="torch.load loads a pickled module",
            today="refuses, unless it is told weights_only=False",
            since="torch>=2.6",
            holds=lambda: reloaded(Net()),
            raises=(UnpicklingError,),
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
