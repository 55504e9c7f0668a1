"""A plugin that is in order: two variants of a line through the origin, and an execution."""

import numpy as np
import torch
from torch import nn

from refimpl import (
    DataSet,
    Example,
    Execution,
    Facts,
    ModuleVariant,
    Protocol,
    Rows,
    Splits,
    Step,
    Variant,
    hookimpl,
)


def ones() -> Splits:
    """Four rows of the same point."""
    return Splits(Rows(np.ones((4, 1)), np.ones((4, 1))))


def descend(problem):
    """Gradient descent by hand."""
    weight = problem.start["weight"]
    for x, y in problem.batches():
        loss = ((x @ weight.T - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            weight -= problem.lr * weight.grad
        yield Step(loss, {"weight": weight})
        weight.grad = None


def by_hand(name):
    """A variant whose steps are written out."""
    return Variant(name, descend, start=lambda rng: {"weight": rng.normal(size=(1, 1))}, ladder="l")


SCRATCH = by_hand("scratch")

EXAMPLE = Example(
    name="good-training",
    title="A good example that trains",
    document="tests",
    section="2",
    data=DataSet("ones", stand_in=ones),
    protocol=Protocol(epochs=2, learning_rate=0.1),
    loss=nn.MSELoss(),
    facts=Facts(parameters=1),
    variants=(
        SCRATCH,
        ModuleVariant(
            "module",
            build=lambda: nn.Linear(1, 1, bias=False),
            optimizer=torch.optim.SGD,
            ladder="l",
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]


@hookimpl
def refimpl_executions():
    """This module's execution."""
    return [Execution("good-double", "the CPU in float64", dtype="float64")]
