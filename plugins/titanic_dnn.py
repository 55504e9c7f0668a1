"""Titanic survival: a small dense network over fifteen columns of the passenger list.

The script style: one plain loop over shuffled batches of eight, binary cross entropy on a sigmoid,
Adam. Figures are means over the batches of an epoch; the accuracy counts a probability above one
half as "survived". Ten epochs reach about 0.81 of validation accuracy.

Source: 20-days, chapter 1-1.
"""

import torch
from refimpl.fixtures import titanic
from torch import nn

from refimpl import Example, Facts, Figure, Layer, Protocol, Sizes, Step, Variant, hookimpl
from refimpl.metrics import binary_accuracy
from refimpl.starts import torch_default


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
    """Forward, loss, backward, update: four lines a batch."""
    net = problem.load(Net())
    loss_func = nn.BCELoss()
    optimizer = problem.resume(torch.optim.Adam(net.parameters(), lr=problem.lr))
    parameters = dict(net.named_parameters())
    for features, labels in problem.batches():
        optimizer.zero_grad()
        predictions = net(features)
        loss = loss_func(predictions, labels)
        loss.backward()
        optimizer.step()
        yield Step(loss, parameters, predictions, labels, net, optimizer)


EXAMPLE = Example(
    name="titanic-dnn",
    title="Titanic survival by a dense network",
    document="20-days",
    section="1-1",
    data=titanic.PASSENGERS,
    protocol=Protocol(epochs=10, learning_rate=0.01, batch_size=8),
    loss=nn.BCELoss(),
    metrics={"accuracy": binary_accuracy},
    variants=(Variant("script", script, start=torch_default(Net)),),
    facts=Facts(
        parameters=651,
        trainable=651,
        layers=(
            Layer("linear1", "Linear", (-1, 20), 320),
            Layer("relu1", "ReLU", (-1, 20), 0),
            Layer("linear2", "Linear", (-1, 15), 315),
            Layer("relu2", "ReLU", (-1, 15), 0),
            Layer("linear3", "Linear", (-1, 1), 16),
            Layer("sigmoid", "Sigmoid", (-1, 1), 0),
        ),
        sizes=Sizes(input=0.000057, forward_backward=0.000549, parameters=0.002483, total=0.003090),
        state_dict=(
            "linear1.weight",
            "linear1.bias",
            "linear2.weight",
            "linear2.bias",
            "linear3.weight",
            "linear3.bias",
        ),
        output=(8, 1),
        figures=(
            Figure("val_accuracy", 0.810, real=(0.75, 0.85), stand_in=(0.70, 0.95)),
            Figure("val_loss", 0.415, real=(0.37, 0.52)),
            Figure("accuracy", 0.787, real=(0.74, 0.84)),
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
