"""A sound example, as small as one can be: a plane through twelve points, in two variants."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from refimpl import (
    DataSet,
    Erratum,
    Exact,
    Example,
    Facts,
    Failure,
    Figure,
    Layer,
    ModuleVariant,
    Protocol,
    Rows,
    Sizes,
    Splits,
    Step,
    Variant,
    hookimpl,
)
from refimpl.data import philox
from refimpl.metrics import absolute_error

COUNT, TRAINING = 12, 8


def points() -> Splits:
    """x (N, 2) and y (N, 1) on the plane 1.5·x₁ − 0.5·x₂ + 0.25, in a little noise."""
    rng = philox("points of a fake")
    x = rng.normal(size=(COUNT, 2))
    y = x @ np.array([[1.5], [-0.5]]) + 0.25 + 0.1 * rng.normal(size=(COUNT, 1))
    return Splits(Rows(x[:TRAINING], y[:TRAINING]), Rows(x[TRAINING:], y[TRAINING:]))


POINTS = DataSet("points", points)
PROTOCOL = Protocol(epochs=4, learning_rate=0.1, batch_size=3)
"""Three updates an epoch, of 3, 3 and 2 rows."""

PARAMETERS = 3


class Net(nn.Module):
    """2 → 1."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(2, 1)

    def forward(self, x):
        return self.lin(x)


def start(rng):
    """Weights (2, 1) and a bias (1,) from N(0, 1)."""
    return {"weights": rng.standard_normal((2, 1)), "bias": rng.standard_normal(1)}


def scratch(problem):
    """Bare tensors, and the update by hand."""
    weights, bias = problem.start["weights"], problem.start["bias"]

    def model(x):
        return x @ weights + bias

    for xb, yb in problem.batches():
        output = model(xb)
        loss = F.mse_loss(output, yb)
        loss.backward()
        with torch.no_grad():
            weights -= problem.lr * weights.grad
            bias -= problem.lr * bias.grad
        yield Step(loss, {"weights": weights, "bias": bias}, output, yb, model)
        weights.grad.zero_()
        bias.grad.zero_()


NAMES = {"lin.weight": "weights.T", "lin.bias": "bias"}

SCRATCH = Variant("scratch", scratch, start=start, ladder="plane", bare=True)
MODULE = ModuleVariant(
    "module",
    build=Net,
    optimizer=torch.optim.SGD,
    names=NAMES,
    ladder="plane",
    facts=Facts(
        parameters=PARAMETERS,
        trainable=PARAMETERS,
        layers=(Layer("lin", "Linear", (-1, 1), 3),),
        state_dict=("lin.weight", "lin.bias"),
        sizes=Sizes(input=0.000008, forward_backward=0.000008, parameters=0.000011, total=0.000027),
        output=(3, 1),
        figures=(Figure("val_loss", 0.1, real=(0.0, 0.5)),),
    ),
)


class Wide(nn.Module):
    """2 → 64 → 1, with half of the 64 left out in training."""

    def __init__(self):
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(2, 64), nn.Linear(64, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.lin2(self.dropout(self.lin1(x)))


DROPPING = ModuleVariant(
    "dropping",
    build=Wide,
    optimizer=torch.optim.SGD,
    protocol=replace(PROTOCOL, learning_rate=0.01),
    facts=Facts(parameters=257, trainable=257, state_dict=tuple(Wide().state_dict())),
)
"""A variant with dropout, which is none of the sound example's own two."""


def refuses_to_add():
    """(2,) and (3,) do not broadcast."""
    return torch.zeros(2) + torch.zeros(3)


EXAMPLE = Example(
    name="fake-sound",
    title="A plane through points",
    document="tests",
    section="0",
    data=POINTS,
    protocol=PROTOCOL,
    loss=nn.MSELoss(),
    metrics={"error": absolute_error},
    facts=Facts(parameters=PARAMETERS),
    variants=(SCRATCH, MODULE),
    values=(Exact("one and two", lambda: 1 + 2, 3),),
    failures=(Failure("adding 2 to 3 numbers", refuses_to_add, RuntimeError, "size of tensor"),),
    errata=(
        Erratum("old torch", "it runs", "it does not", since="torch>=1.0", holds=lambda: False),
    ),
)


def like(variant, **changes):
    """A variant of the sound example with some fields changed."""
    return replace(EXAMPLE.variant(variant), **changes)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
