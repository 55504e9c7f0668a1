"""Two rings classified by a small network, at three levels of the API.

Positive points lie at radius N(5, 1), negative ones at N(8, 1), at any angle. A network
2 → 4 → 8 → 1 has 61 parameters. The *low* level writes parameters, loss and update by hand; the
*mid* level takes layers, loss and optimizer from torch; the *high* level wraps them in a
Keras-like model. The radii overlap, so no classifier can have an expected accuracy above 0.933.

Source: 20-days, chapters 3-1, 3-2, 3-3.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from refimpl import (
    Exact,
    Example,
    Facts,
    Figure,
    Layer,
    Model,
    Protocol,
    Sizes,
    Step,
    Variant,
    hookimpl,
)
from refimpl.fixtures import ring
from refimpl.metrics import binary_accuracy

# --- low level: parameters of one's own ----------------------------------------------------------


def standard_normal(rng):
    """Weights from N(0, 1), zero biases; weights are stored as (inputs, outputs)."""
    start = {}
    for number, (inputs, outputs) in enumerate([(2, 4), (4, 8), (8, 1)], start=1):
        start[f"w{number}"] = rng.standard_normal((inputs, outputs))
        start[f"b{number}"] = np.zeros((1, outputs))
    return start


class Parameters(nn.Module):
    """The network written as matrix products."""

    def __init__(self):
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.zeros(2, 4)), nn.Parameter(torch.zeros(1, 4))
        self.w2, self.b2 = nn.Parameter(torch.zeros(4, 8)), nn.Parameter(torch.zeros(1, 8))
        self.w3, self.b3 = nn.Parameter(torch.zeros(8, 1)), nn.Parameter(torch.zeros(1, 1))

    def forward(self, x):  # (N, 2)
        x = torch.relu(x @ self.w1 + self.b1)  # (N, 4)
        x = torch.relu(x @ self.w2 + self.b2)  # (N, 8)
        return torch.sigmoid(x @ self.w3 + self.b3)  # (N, 1)


def clamped_bce(p, y):
    """Binary cross entropy, with p kept 1e-7 away from 0 and 1 so that its logarithm is finite."""
    p = p.clamp(1e-7, 1 - 1e-7)
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()


def of_even_odds() -> list[float]:
    """Loss and metric of p = ½ for one label of each kind, as they are and with p and y swapped.

    Swapped, the labels are clamped: a certain answer that is half wrong costs −½·log 1e-7.
    """
    p, y = torch.tensor([[0.5], [0.5]]), torch.tensor([[0.0], [1.0]])
    right_of = (1 - (p - y.round()).abs()).mean()
    return [clamped_bce(p, y).item(), clamped_bce(y, p).item(), right_of.item()]


def low(problem):
    """Gradients from autograd, everything else by hand."""
    model = problem.load(Parameters())
    parameters = dict(model.named_parameters())
    for features, labels in problem.batches():
        predictions = model(features)
        loss = clamped_bce(predictions, labels)
        loss.backward()
        for parameter in parameters.values():
            parameter.data -= problem.lr * parameter.grad
        yield Step(loss, parameters, predictions, labels, model)
        model.zero_grad()


# --- mid level: layers, loss and optimizer of torch ----------------------------------------------


class Net(nn.Module):
    """The same network in layers."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(2, 4)
        self.fc2 = nn.Linear(4, 8)
        self.fc3 = nn.Linear(8, 1)

    def forward(self, x):  # (N, 2)
        x = torch.relu(self.fc1(x))  # (N, 4)
        x = torch.relu(self.fc2(x))  # (N, 8)
        return torch.sigmoid(self.fc3(x))  # (N, 1)


def mid(problem):
    """The document creates a new Adam for every step, so no moments carry over."""
    model = problem.load(Net())
    parameters = dict(model.named_parameters())
    loss_func = nn.BCELoss()
    for features, labels in problem.batches():
        optimizer = problem.resume(torch.optim.Adam(model.parameters(), lr=problem.lr))
        predictions = model(features)
        loss = loss_func(predictions, labels)
        loss.backward()
        optimizer.step()
        yield Step(loss, parameters, predictions, labels, model)
        optimizer.zero_grad()


# --- high level: a Keras-like model --------------------------------------------------------------


def high(problem):
    """Compile once, then fit."""
    net = problem.load(Net())
    model = Model(net)
    optimizer = problem.resume(torch.optim.Adam(net.parameters(), lr=problem.lr))
    model.compile(nn.BCELoss(), optimizer, {"accuracy": binary_accuracy})
    yield from model.steps(problem.batches())


# --- what the document states --------------------------------------------------------------------


BY_HAND = ("w1", "b1", "w2", "b2", "w3", "b3")
BY_LAYER = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias")
LAYERS = (
    Layer("fc1", "Linear", (-1, 4), 12),
    Layer("fc2", "Linear", (-1, 8), 40),
    Layer("fc3", "Linear", (-1, 1), 9),
)
SIZES = Sizes(input=0.000008, forward_backward=0.000099, parameters=0.000233, total=0.000340)


def facts(*figures: Figure, output: tuple[int, int], state_dict: tuple[str, ...]) -> Facts:
    """61 parameters in 6 tensors, and the figures at the end of training."""
    in_layers = state_dict == BY_LAYER
    return Facts(
        parameters=61,
        layers=LAYERS if in_layers else (),
        sizes=SIZES if in_layers else None,
        state_dict=state_dict,
        output=output,
        figures=figures,
    )


def late(
    epoch: int, step: int | None = None, **stated: tuple[float, float, float]
) -> Iterator[Figure]:
    """Figures near the end, each with its band: the mean of 11 runs ± 2.5 spreads."""
    for metric, (documented, low, high) in stated.items():
        yield Figure(metric, documented, real=(low, high), epoch=epoch, step=step)


LAYER_NAMES = {
    "fc1.weight": "w1.T",
    "fc1.bias": "b1",
    "fc2.weight": "w2.T",
    "fc2.bias": "b2",
    "fc3.weight": "w3.T",
    "fc3.bias": "b3",
}

OTHER_POINTS = (
    "the document draws its points without a seed; the true probabilities, which no classifier can "
    "better in expectation, have a loss of 0.162 on these points and of 0.166 ± 0.008 on others"
)

EXAMPLE = Example(
    name="ring-dnn",
    title="Two rings, a binary classifier at three API levels",
    document="20-days",
    section="3-1, 3-2, 3-3",
    data=ring.RING,
    loss=nn.BCELoss(),
    metrics={"accuracy": binary_accuracy},
    variants=(
        Variant(
            "low",
            low,
            start=standard_normal,
            build=Parameters,
            optimizer=torch.optim.SGD,
            loss=clamped_bce,
            ladder="ring",
            protocol=Protocol(epochs=1000, learning_rate=0.01, batch_size=20, stand_in_epochs=100),
            facts=facts(
                Figure("accuracy", 0.927, real=(0.91, 0.94), stand_in=(0.85, 0.945)),
                Figure("loss", 0.187, real=(0.157, 0.217), outside_because=OTHER_POINTS),
                Figure("accuracy", 0.8945, real=(0.85, 0.945), epoch=100),
                output=(20, 1),
                state_dict=BY_HAND,
            ),
        ),
        Variant(
            "mid",
            mid,
            build=Net,
            names=LAYER_NAMES,
            ladder="ring",
            ladder_depth="gradients",
            protocol=Protocol(epochs=300, learning_rate=0.001, batch_size=10, stand_in_epochs=25),
            facts=facts(
                Figure("accuracy", 0.9315, real=(0.90, 0.945), stand_in=(0.87, 0.945)),
                Figure("loss", 0.294, real=(0.15, 0.35)),
                Figure("loss", 0.235, real=(0.15, 0.35), epoch=100),
                Figure("loss", 0.247, real=(0.15, 0.35), epoch=200),
                output=(10, 1),
                state_dict=BY_LAYER,
            ),
        ),
        Variant(
            "high",
            high,
            build=Net,
            optimizer=torch.optim.Adam,
            names=LAYER_NAMES,
            ladder="ring",
            ladder_depth="gradients",
            data=ring.RING_SPLIT,
            protocol=Protocol(epochs=100, learning_rate=0.01, batch_size=100, stand_in_epochs=30),
            facts=facts(
                Figure("val_accuracy", 0.926, real=(0.90, 0.95), stand_in=(0.85, 0.95)),
                Figure("val_loss", 0.173, real=(0.15, 0.24)),
                Figure("loss", 0.168, real=(0.15, 0.20)),
                Figure("accuracy", 0.937, real=(0.915, 0.945), outside_because=OTHER_POINTS),
                # Of epochs 1 and 2 the bands have nets which learn nothing in them.
                *late(98, 10, loss=(0.170, 0.144, 0.211), accuracy=(0.929, 0.911, 0.945)),
                *late(98, 20, loss=(0.173, 0.162, 0.188), accuracy=(0.929, 0.921, 0.937)),
                *late(98, loss=(0.175, 0.158, 0.188), accuracy=(0.929, 0.920, 0.940)),
                *late(98, val_loss=(0.169, 0.153, 0.213), val_accuracy=(0.933, 0.909, 0.950)),
                *late(99, 10, loss=(0.165, 0.139, 0.206), accuracy=(0.942, 0.908, 0.952)),
                *late(99, 20, loss=(0.171, 0.162, 0.186), accuracy=(0.932, 0.920, 0.937)),
                *late(99, loss=(0.173, 0.158, 0.189), accuracy=(0.931, 0.921, 0.938)),
                *late(99, val_loss=(0.166, 0.159, 0.197), val_accuracy=(0.935, 0.915, 0.947)),
                *late(100, 10, loss=(0.156, 0.123, 0.222), accuracy=(0.945, 0.911, 0.952)),
                *late(100, 20, loss=(0.170, 0.151, 0.198), accuracy=(0.935, 0.919, 0.943)),
                output=(100, 1),
                state_dict=BY_LAYER,
            ),
        ),
    ),
    values=(
        Exact(
            "loss at even odds, with swapped arguments, and the metric then",
            of_even_odds,
            [0.6931, 8.0151, 0.5],
            digits=4,
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
