"""A sine wave fitted by a Legendre polynomial whose gradient is written by hand.

Autograd differentiates what it can see. A function of one's own brings its derivative along: here
P₃(x) = ½ (5x³ − 3x), with P₃′(x) = ³⁄₂ (5x² − 1). The *function* variant trains
a + b · P₃(c + d · x) with it; the *module* variant leaves the same to autograd, and so proves the
derivative right.

Source: Learning PyTorch with Examples, "Defining new autograd functions" (J. Johnson).
"""

import numpy as np
import torch
from torch import nn

from refimpl import (
    DataSet,
    Exact,
    Example,
    Facts,
    Figure,
    Protocol,
    Rows,
    Splits,
    Step,
    Variant,
    hookimpl,
)

# --- the data ------------------------------------------------------------------------------------


def wave():
    """One period of the sine at 2,000 points; x and y are both (2000,)."""
    x = np.linspace(-np.pi, np.pi, 2000)
    return Splits(Rows(x.astype(np.float32), np.sin(x).astype(np.float32)))


WAVE = DataSet("sine-wave", stand_in=wave)


# --- the model -----------------------------------------------------------------------------------

PRINTED = {"a": 0.0, "b": -1.0, "c": 0.0, "d": 0.3}


def the_start():
    """The document's own start: four numbers, each of shape ()."""
    return {name: np.array(value) for name, value in PRINTED.items()}


def near_it(rng):
    """For other seeds, a start close to the document's."""
    return {name: value + 0.05 * rng.standard_normal(()) for name, value in the_start().items()}


class LegendrePolynomial3(torch.autograd.Function):
    """P₃, with its derivative by hand."""

    @staticmethod
    def forward(ctx, x):
        """½ (5x³ − 3x), and x kept for the way back."""
        ctx.save_for_backward(x)
        return 0.5 * (5 * x**3 - 3 * x)

    @staticmethod
    def backward(ctx, grad_output):
        """The chain rule: what comes from above, times ³⁄₂ (5x² − 1)."""
        (x,) = ctx.saved_tensors
        return grad_output * 1.5 * (5 * x**2 - 1)


class Model(nn.Module):
    """The same curve as a module, with its derivative left to autograd."""

    def __init__(self):
        super().__init__()
        for name, value in PRINTED.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def forward(self, x):
        """(N,) in, (N,) out."""
        z = self.c + self.d * x
        return self.a + self.b * 0.5 * (5 * z**3 - 3 * z)


# --- the loop ------------------------------------------------------------------------------------


def function(problem):
    """Forward, loss, backward, and the update by hand."""
    parameters = problem.start
    a, b, c, d = (parameters[name] for name in "abcd")

    def model(x):
        return a + b * LegendrePolynomial3.apply(c + d * x)

    for x, y in problem.batches():
        y_pred = model(x)
        loss = (y_pred - y).pow(2).sum()
        loss.backward()
        with torch.no_grad():
            for parameter in (a, b, c, d):
                parameter -= problem.lr * parameter.grad
        yield Step(loss, parameters, y_pred, y, model=model)
        a.grad = b.grad = c.grad = d.grad = None


# --- what the document states --------------------------------------------------------------------

FACTS = Facts(
    parameters=4,
    trainable=4,
    state_dict=("a", "b", "c", "d"),
    output=(2000,),
    figures=(
        Figure("loss", 8.943639755, digits=4),
        Figure("b", -2.208526850, digits=5),
        Figure("d", 0.255486101, digits=6),
    ),
)


def p3_and_its_slope():
    """P₃ and P₃′ at one half, as the function variant has them."""
    x = torch.tensor(0.5, requires_grad=True)
    LegendrePolynomial3.apply(x).backward()
    return [LegendrePolynomial3.apply(x).item(), x.grad.item()]


VALUES = (Exact("P₃(½) and P₃′(½)", p3_and_its_slope, [-0.4375, 0.375]),)


# --- the example ---------------------------------------------------------------------------------

EXAMPLE = Example(
    name="legendre-sine",
    title="A sine wave fitted by a Legendre polynomial",
    document="pytorch-with-examples",
    section="Defining new autograd functions",
    data=WAVE,
    protocol=Protocol(epochs=2000, learning_rate=5e-6),
    start=near_it,
    documented_start=the_start(),
    loss=nn.MSELoss(reduction="sum"),
    variants=(
        Variant("function", function, ladder="legendre", data_parallel=False),
        Variant(
            "module",
            build=Model,
            optimizer=torch.optim.SGD,
            ladder="legendre",
            data_parallel=False,  # a sum over rows is not the mean of the sums of its shards
        ),
    ),
    facts=FACTS,
    values=VALUES,
    contract=2,  # the version of refimpl's contract that this was written for
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
