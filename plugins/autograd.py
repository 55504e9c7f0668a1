"""Autograd: what ``backward`` computes, where it stores the results, and what it frees.

Most of it is about one function, f(x) = x² − 2x + 1, whose first and second derivatives at zero
are known: −2 and 2. It shows how to take gradients of scalars and of tables, with several inputs
and several outputs; how to differentiate twice; how to minimise with an optimizer; how to write a
function with its own backward; and which tensors of a graph keep their gradient: the leaves, and
those asked to.

Source: 20-days, chapters 2-2 and 2-3.
"""

import warnings

import torch
from torch import Tensor

from refimpl import Exact, Example, Failure, hookimpl


def f(x: Tensor) -> Tensor:
    """x² − 2x + 1: zero at its minimum, x = 1."""
    return x**2 - 2 * x + 1


def leaf(value: float | list) -> Tensor:
    """A leaf tensor that requires its gradient."""
    return torch.tensor(value, requires_grad=True)


# --- backward ------------------------------------------------------------------------------------


def slope_at_zero() -> Tensor:
    """The backward of a scalar needs no argument; the slope is stored in ``x.grad``."""
    x = leaf(0.0)
    f(x).backward()
    return x.grad


POINTS = [[0.0, 0.0], [1.0, 2.0]]


def slopes_of_a_table() -> Tensor:
    """The backward of a table needs a weight for each entry: the incoming gradient."""
    x = leaf(POINTS)
    y = f(x)  # (2, 2)
    y.backward(gradient=torch.ones_like(y))
    return x.grad


def slopes_through_a_sum() -> Tensor:
    """The same weights, written as a scalar z = Σ y·g."""
    x = leaf(POINTS)
    z = (f(x) * torch.ones(2, 2)).sum()
    z.backward()
    return x.grad


# --- autograd.grad -------------------------------------------------------------------------------


def slope_and_curvature() -> tuple[float, float]:
    """If a graph of the slope is created too, the slope can be differentiated again."""
    x = leaf(0.0)
    (slope,) = torch.autograd.grad(f(x), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, x)
    return slope.item(), curvature.item()


def of_two_inputs() -> list[float]:
    """One output, two inputs: a gradient for each."""
    x1, x2 = leaf(1.0), leaf(2.0)
    return [g.item() for g in torch.autograd.grad(x1 * x2, [x1, x2])]


def of_two_outputs() -> list[float]:
    """Two outputs together: their gradients add up."""
    x1, x2 = leaf(1.0), leaf(2.0)
    return [g.item() for g in torch.autograd.grad([x1 * x2, x1 + x2], [x1, x2])]


# --- a minimum by an optimizer -------------------------------------------------------------------


def minimise(steps: int = 500, lr: float = 0.01) -> tuple[float, float]:
    """f and x after ``steps`` steps of gradient descent from zero."""
    x = leaf(0.0)
    optimizer = torch.optim.SGD([x], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        f(x).backward()
        optimizer.step()
    return f(x).item(), x.item()


# --- a function of one's own ---------------------------------------------------------------------


class MyReLU(torch.autograd.Function):
    """max(x, 0), with its backward written out: the gradient passes where x is not negative."""

    @staticmethod
    def forward(ctx, x):
        """Save what backward needs."""
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad_output):
        """The incoming gradient, set to zero where the input is below zero."""
        (x,) = ctx.saved_tensors
        return grad_output.masked_fill(x < 0, 0)


def fit_through_my_relu() -> tuple[Tensor, Tensor, Tensor]:
    """Weight, bias and prediction of a small regression, after its backward.

    Predictions are a column and targets a row, so their difference is a 2 × 2 table; the
    document's figures come from this table.
    """
    w, b = leaf([[3.0, 1.0]]), leaf([[3.0]])
    x = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    y = torch.tensor([[2.0, 3.0]])  # (1, 2)
    prediction = MyReLU.apply(x @ w.t() + b)  # (2, 1)
    loss = torch.mean((prediction - y) ** 2)  # of (2, 2)
    loss.backward()
    return w, b, prediction


def gradient_through_my_relu() -> Tensor:
    """At −1, where nothing passes, and at 0 and 2; the incoming gradients are 3, 5 and −3."""
    x = leaf([-1.0, 0.0, 2.0])
    MyReLU.apply(x).backward(torch.tensor([3.0, 5.0, -3.0]))
    return x.grad


# --- leaves and what lies between ----------------------------------------------------------------


def chain() -> dict[str, Tensor]:
    """x → y1, y2 → loss: the tensors of a small graph, before any backward."""
    x = leaf(3.0)
    y1, y2 = x + 1, 2 * x
    return {"x": x, "y1": y1, "y2": y2, "loss": (y1 - y2) ** 2}


def gradients_kept() -> list[float | None]:
    """``.grad`` of x, y1, y2 and loss after backward: only the leaf has one."""
    tensors = chain()
    tensors["loss"].backward()
    with warnings.catch_warnings():
        # Torch warns when .grad of a tensor that keeps none is read.
        warnings.simplefilter("ignore")
        return [None if t.grad is None else t.grad.item() for t in tensors.values()]


def gradients_seen() -> list[float]:
    """The gradients of y2 and y1 as seen by hooks, then those that loss and x keep."""
    tensors = chain()
    passing = []
    for name in ("y1", "y2"):
        tensors[name].register_hook(passing.append)
    tensors["loss"].retain_grad()
    tensors["loss"].backward()
    return [t.item() for t in (*passing, tensors["loss"].grad, tensors["x"].grad)]


def backward_twice(retain_graph: bool) -> Tensor:
    """x.grad after two backwards through one graph; unless retained, the first frees the graph."""
    tensors = chain()
    tensors["loss"].backward(retain_graph=retain_graph)
    tensors["loss"].backward()
    return tensors["x"].grad


# --- a product -----------------------------------------------------------------------------------


def product_of_preface() -> Tensor:
    """A row times a column."""
    return torch.tensor([[2.0, 1.0]]) @ torch.tensor([[-1.0], [2.0]])


# --- what the document states --------------------------------------------------------------------

EXAMPLE = Example(
    name="autograd",
    title="Autograd: gradients, functions of one's own, leaves and graphs",
    document="20-days",
    section="2-2, 2-3",
    values=(
        Exact("f'(0) by backward", slope_at_zero, -2.0),
        Exact("f' of a table, weighted by ones", slopes_of_a_table, [[-2.0, -2.0], [0.0, 2.0]]),
        Exact("f' of a table, through a sum", slopes_through_a_sum, [[-2.0, -2.0], [0.0, 2.0]]),
        Exact("f'(0) and f''(0) by grad", slope_and_curvature, (-2.0, 2.0)),
        Exact("gradient of x1·x2 at (1, 2)", of_two_inputs, [2.0, 1.0]),
        Exact("gradients of x1·x2 and x1 + x2 together", of_two_outputs, [3.0, 2.0]),
        Exact("minimum of f and where it lies", minimise, (0.0, 1 - 0.98**500), digits=5),
        Exact("w.grad through MyReLU", lambda: fit_through_my_relu()[0].grad, [[4.5, 4.5]]),
        Exact("b.grad through MyReLU", lambda: fit_through_my_relu()[1].grad, [[4.5]]),
        Exact(
            "gradient through MyReLU where it is shut", gradient_through_my_relu, [0.0, 5.0, -3.0]
        ),
        Exact(
            "the graph's node of MyReLU",
            lambda: type(fit_through_my_relu()[2].grad_fn).__name__,
            "MyReLUBackward",
        ),
        Exact(
            "leaves among x, y1, y2, loss",
            lambda: [t.is_leaf for t in chain().values()],
            [True, False, False, False],
        ),
        Exact("gradients kept by x, y1, y2, loss", gradients_kept, [4.0, None, None, None]),
        Exact(
            "gradients seen at y2, y1, and kept by loss, x", gradients_seen, [4.0, -4.0, 1.0, 4.0]
        ),
        Exact("[[2, 1]] times [[−1], [2]]", product_of_preface, [[0.0]]),
        Exact("gradients of two backwards add up", lambda: backward_twice(retain_graph=True), 8.0),
    ),
    failures=(
        Failure(
            "second backward through one graph",
            lambda: backward_twice(retain_graph=False),
            RuntimeError,
            "second time",
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
