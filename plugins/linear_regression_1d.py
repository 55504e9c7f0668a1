"""Linear regression with one feature: from gradients by hand up the ladder to modules.

The model is y = a + b·x, fitted to eighty noisy points of the line y = 1 + 2x by gradient descent
on the mean squared error. Each rung hands one more task to torch: first the gradients (autograd),
then the update (an optimizer), the loss, the parameters (modules), the step, and the batches.
The full-batch rungs all do the same computation, so they all end at the same a and b.

Source: step-by-step, "Understanding PyTorch with an example" (D. Godoy).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset, TensorDataset

from refimpl import (
    Epoch,
    Erratum,
    Exact,
    Example,
    Facts,
    Failure,
    Figure,
    Protocol,
    Step,
    Variant,
    hookimpl,
)
from refimpl.fixtures import line

FULL_BATCH = Protocol(epochs=1000, learning_rate=0.1)
IN_NUMPY = Protocol(epochs=1000, learning_rate=0.1, dtype="float64")
MINI_BATCHES = Protocol(epochs=1000, learning_rate=0.1, batch_size=16)


def standard_normal(rng: np.random.Generator):
    """a and b, both drawn from N(0, 1)."""
    return {"a": rng.standard_normal(1), "b": rng.standard_normal(1)}


# --- gradients by hand ---------------------------------------------------------------------------


def by_hand(problem):
    """NumPy only: the derivatives of the mean squared error, worked out on paper."""
    a, b = (value.detach().numpy() for value in problem.start.values())
    for xb, yb in problem.batches():
        x, y = xb.numpy(), yb.numpy()
        yhat = a + b * x
        error = y - yhat
        loss = (error**2).mean()
        a_grad = -2 * error.mean(axis=0)
        b_grad = -2 * (x * error).mean(axis=0)
        a = a - problem.lr * a_grad
        b = b - problem.lr * b_grad
        yield Step(
            loss,
            {"a": torch.from_numpy(a), "b": torch.from_numpy(b)},
            output=torch.from_numpy(yhat),
            target=yb,
            model=lambda x, a=a, b=b: torch.from_numpy(a) + torch.from_numpy(b) * x,
            gradients={"a": torch.from_numpy(a_grad), "b": torch.from_numpy(b_grad)},
        )


# --- gradients by autograd -----------------------------------------------------------------------


def autograd(problem):
    """Tensors that require grad; the update is in place, not recorded by autograd."""
    a, b = problem.start["a"], problem.start["b"]

    def model(x):
        return a + b * x

    for xb, yb in problem.batches():
        yhat = model(xb)
        loss = ((yb - yhat) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            a -= problem.lr * a.grad
            b -= problem.lr * b.grad
        yield Step(loss, {"a": a, "b": b}, yhat, yb, model)
        a.grad.zero_()
        b.grad.zero_()


def optimizer(problem):
    """An optimizer does the update and zeroes the gradients."""
    a, b = problem.start["a"], problem.start["b"]
    sgd = optim.SGD([a, b], lr=problem.lr)

    def model(x):
        return a + b * x

    for xb, yb in problem.batches():
        yhat = model(xb)
        loss = ((yb - yhat) ** 2).mean()
        loss.backward()
        sgd.step()
        yield Step(loss, {"a": a, "b": b}, yhat, yb, model, sgd)
        sgd.zero_grad()


def loss(problem):
    """The loss is a module too."""
    a, b = problem.start["a"], problem.start["b"]
    sgd = optim.SGD([a, b], lr=problem.lr)
    mse = nn.MSELoss(reduction="mean")

    def model(x):
        return a + b * x

    for xb, yb in problem.batches():
        yhat = model(xb)
        loss = mse(yhat, yb)
        loss.backward()
        sgd.step()
        yield Step(loss, {"a": a, "b": b}, yhat, yb, model, sgd)
        sgd.zero_grad()


# --- the model as a module -----------------------------------------------------------------------


class ManualLinear(nn.Module):
    """The line as a module with two parameters."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1))
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, x):  # (N, 1) -> (N, 1)
        return self.a + self.b * x


class NestedLinear(nn.Module):
    """The line as a module around ``nn.Linear``: a is its bias, b its weight."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


def sequential() -> nn.Sequential:
    """The line as a sequence of one layer."""
    return nn.Sequential(nn.Linear(1, 1))


# --- the step and the batches --------------------------------------------------------------------


def make_train_step(model: nn.Module, loss_fn: Callable, optimizer: optim.Optimizer) -> Callable:
    """A function that makes one update of ``model`` and returns its prediction and loss."""

    def train_step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        model.train()
        optimizer.zero_grad()
        yhat = model(x)
        loss = loss_fn(yhat, y)
        loss.backward()
        optimizer.step()
        return yhat, loss

    return train_step


def train_step(problem):
    """A factory builds the step once; the loop only calls it."""
    model = problem.load(ManualLinear())
    sgd = optim.SGD(model.parameters(), lr=problem.lr)
    step = make_train_step(model, nn.MSELoss(), sgd)
    for xb, yb in problem.batches():
        yhat, loss = step(xb, yb)
        yield Step(loss, model, yhat, yb, sgd)


class Points(Dataset):
    """A custom data set: its length, and the i-th point."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


def dataset(problem):
    """The points come from a ``Dataset``, all of an epoch at once."""
    points = Points(problem.train.x, problem.train.y)
    model = problem.load(ManualLinear())
    sgd = optim.SGD(model.parameters(), lr=problem.lr)
    step = make_train_step(model, nn.MSELoss(), sgd)
    for epoch in problem.epochs():
        xb, yb = points[problem.row_order(epoch)]
        yhat, loss = step(xb, yb)
        yield Step(loss, model, yhat, yb, sgd)


def shuffled_batches(points, problem, epoch):
    """A ``DataLoader`` over mini-batches in this epoch's shuffled order."""
    rows = problem.row_order(epoch).split(problem.batch_size)
    return DataLoader(points, sampler=rows, batch_size=None)


def dataloader(problem):
    """A ``DataLoader`` makes the mini-batches; its sampler determines which points go together."""
    points = TensorDataset(problem.train.x, problem.train.y)
    model = problem.load(ManualLinear())
    sgd = optim.SGD(model.parameters(), lr=problem.lr)
    step = make_train_step(model, nn.MSELoss(), sgd)
    for epoch in problem.epochs():
        for xb, yb in shuffled_batches(points, problem, epoch):
            yhat, loss = step(xb, yb)
            yield Step(loss, model, yhat, yb, sgd)


def random_split(problem):
    """Points split at random; a validation loss in evaluation mode after every epoch."""
    training_points = TensorDataset(problem.train.x, problem.train.y)
    validation = DataLoader(TensorDataset(problem.valid.x, problem.valid.y), problem.batch_size)
    model = problem.load(ManualLinear())
    mse = nn.MSELoss()
    sgd = optim.SGD(model.parameters(), lr=problem.lr)
    step = make_train_step(model, mse, sgd)
    for epoch in problem.epochs():
        for xb, yb in shuffled_batches(training_points, problem, epoch):
            yhat, loss = step(xb, yb)
            yield Step(loss, model, yhat, yb, sgd)
        with torch.no_grad():
            model.eval()
            losses = [mse(model(xv), yv).item() for xv, yv in validation]
        yield Epoch({"val_loss": float(np.mean(losses))})


# --- what the document says goes wrong -----------------------------------------------------------


def numpy_of_a_cuda_tensor():
    """A tensor on the GPU has no NumPy view."""
    torch.zeros(1, device="cuda").numpy()


def reassigned_leaf():
    """``a = a - …`` makes a new tensor, which is not a leaf and has no gradient."""
    a = torch.ones(1, requires_grad=True)
    (a * 2).sum().backward()
    a = a - 0.1 * a.grad
    a.grad.zero_()


def update_in_place_under_autograd():
    """``a -= …`` modifies a leaf that requires grad."""
    a = torch.ones(1, requires_grad=True)
    (a * 2).sum().backward()
    a -= 0.1 * a.grad


def moved_leaf_is_a_leaf() -> bool:
    """Moving or converting a tensor that requires grad gives a non-leaf."""
    return torch.ones(1, requires_grad=True).to(torch.float64).is_leaf


def watched_by_autograd() -> tuple[bool, bool]:
    """Whether a parameter, and whether a plain tensor, appears in the graph of their product."""
    parameter, data = torch.ones(1, requires_grad=True), torch.ones(1)
    inputs = (parameter * data).grad_fn.next_functions
    return tuple(function is not None for function, _ in inputs)


def drawn_on(device: str) -> list[float]:
    """a and b as torch draws them there after seed 42; its generators are restored afterwards."""
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(42)
        return [float(torch.randn(1, device=device)) for _ in range(2)]


def made_on_the_device_is_a_leaf() -> tuple[str, bool]:
    """A tensor that is made on a device, with ``device=``, is a leaf there."""
    a = torch.ones(1, requires_grad=True, device="meta")
    return a.device.type, a.is_leaf


class WithUnusedLayer(nn.Module):
    """A layer that ``forward`` does not use."""

    def __init__(self):
        super().__init__()
        self.linear, self.unused = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


def kind_of_a_batch() -> tuple[str, list[int]]:
    """What ``next(iter(loader))`` gives, and the shape of its first part."""
    points = TensorDataset(torch.zeros(80, 1), torch.zeros(80, 1))
    batch = next(iter(DataLoader(points, batch_size=16, shuffle=False)))
    return type(batch).__name__, [*batch[0].shape]


def nodes_of_the_loss() -> list[str]:
    """The kinds of nodes of the loss's graph, from the loss to the leaves, without repeats."""
    a, b = (torch.ones(1, requires_grad=True) for _ in range(2))
    loss = ((torch.ones(80, 1) - (a + b * torch.ones(80, 1))) ** 2).mean()
    found, left = [], [loss.grad_fn]
    while left:
        node = left.pop(0)
        found.append(type(node).__name__)
        left += [following for following, _ in node.next_functions if following is not None]
    return found


def warns_as_printed() -> bool:
    """Whether the error of an update in place is worded as the document prints it."""
    try:
        update_in_place_under_autograd()
    except RuntimeError as error:
        return "has been used in an in-place operation" in str(error)
    return False


def optimum() -> list[float]:
    """The least-squares line, by scikit-learn."""
    from sklearn.linear_model import LinearRegression

    points = line.LINE.load("real").train
    fitted = LinearRegression().fit(points.x, points.y)
    return [float(fitted.intercept_[0]), float(fitted.coef_[0, 0])]


# --- what the document states --------------------------------------------------------------------

A, B = 1.0235, 1.9690
TORCH_START = {"a": np.array([0.3367]), "b": np.array([0.1288])}
BUILT = {"build": ManualLinear, "optimizer": optim.SGD}
BY_LAYER = {"linear.weight": "b", "linear.bias": "a"}
BY_INDEX = {"0.weight": "b", "0.bias": "a"}


def facts(state_dict: tuple[str, ...] = ()) -> Facts:
    """Two parameters that end at the documented figures, to the four digits printed."""
    return Facts(
        parameters=2,
        state_dict=state_dict,
        output=(80, 1),
        figures=(
            Figure("a", A, digits=4),
            Figure("b", B, digits=4),
        ),
    )


NUMPY_FACTS = Facts(
    parameters=2,
    output=(80, 1),
    figures=(
        Figure("a", 1.02354094, digits=8),
        Figure("b", 1.96896411, digits=8),
    ),
)
NEAR_THE_OPTIMUM = Facts(
    parameters=2,
    state_dict=("a", "b"),
    output=(16, 1),
    figures=(
        Figure("a", A, real=(0.96, 1.08)),
        Figure("b", B, real=(1.86, 2.08)),
    ),
)
THE_LINE_ITSELF = "1 and 2 are of the line that the points lie around, not of the best fit to them"
ON_ANOTHER_SPLIT = Facts(
    parameters=2, state_dict=("a", "b"), output=(16, 1),
    figures=(
        Figure("a", 1.0, real=(0.9, 1.1), outside_because=THE_LINE_ITSELF),
        Figure("b", 2.0, real=(1.8, 2.2), outside_because=THE_LINE_ITSELF),
    ),
)  # fmt: skip


def rung(name, steps, **changes) -> Variant:
    """A rung over the parameters a and b, from the start that torch draws in the document."""
    settings = {"facts": facts(), "ladder": "line", "documented_start": TORCH_START, **changes}
    return Variant(name, steps, start=standard_normal, **settings)


def module(name, build, **changes) -> Variant:
    """A rung whose model is a module, trained by plain SGD."""
    return Variant(name, build=build, optimizer=optim.SGD, ladder="line", **changes)


EXAMPLE = Example(
    name="linear-regression-1d",
    title="Linear regression with one feature, by hand and up the ladder",
    document="step-by-step",
    section="all",
    data=line.LINE,
    protocol=FULL_BATCH,
    loss=nn.MSELoss(),
    variants=(
        Variant(
            "numpy",
            by_hand,
            numpy=True,
            start=standard_normal,
            documented_start={
                "a": np.array([0.4967141530112327]),
                "b": np.array([-0.13826430117118466]),
            },
            ladder="line",
            protocol=IN_NUMPY,
            facts=NUMPY_FACTS,
        ),
        rung("autograd", autograd),
        rung("optimizer", optimizer),
        rung("loss", loss),
        module(
            "module",
            ManualLinear,
            start=standard_normal,
            documented_start=TORCH_START,
            facts=facts(("a", "b")),
        ),
        module(
            "nested-linear",
            NestedLinear,
            names=BY_LAYER,
            facts=facts(("linear.weight", "linear.bias")),
        ),
        module(
            "sequential",
            sequential,
            names=BY_INDEX,
            facts=facts(("0.weight", "0.bias")),
        ),
        rung("train-step", train_step, **BUILT, facts=facts(("a", "b"))),
        rung("dataset", dataset, **BUILT, facts=facts(("a", "b"))),
        rung("dataloader", dataloader, **BUILT, protocol=MINI_BATCHES, facts=NEAR_THE_OPTIMUM),
        rung(
            "random-split",
            random_split,
            **BUILT,
            data=line.RANDOM_SPLIT,
            protocol=MINI_BATCHES,
            facts=ON_ANOTHER_SPLIT,
        ),
    ),
    values=(
        Exact("scikit-learn's intercept and slope", optimum, [1.02354075, 1.96896447], digits=8),
        Exact("a leaf moved with .to() is still a leaf", moved_leaf_is_a_leaf, False),
        Exact("a and b after seed 42", lambda: drawn_on("cpu"), [0.3367, 0.1288], digits=4),
        Exact(
            "a and b after seed 42 on a GPU",
            lambda: drawn_on("cuda"),
            [0.6226, 1.4505],
            digits=4,
            needs="cuda",
        ),
        Exact(
            "device of a tensor made there, and whether it is a leaf",
            made_on_the_device_is_a_leaf,
            ("meta", True),
        ),
        Exact(
            "parameters, with those of a layer that is not used",
            lambda: [name for name, _ in WithUnusedLayer().named_parameters()],
            ["linear.weight", "linear.bias", "unused.weight", "unused.bias"],
        ),
        Exact("kind of a batch, and its shape", kind_of_a_batch, ("list", [16, 1])),
        Exact(
            "nodes of the loss's graph",
            nodes_of_the_loss,
            [
                "MeanBackward0",
                "PowBackward0",
                "SubBackward0",
                "AddBackward0",
                "AccumulateGrad",
                "MulBackward0",
                "AccumulateGrad",
            ],
        ),
        Exact("parameter and data in the graph", watched_by_autograd, (True, False)),
    ),
    failures=(
        Failure("numpy() of a CUDA tensor", numpy_of_a_cuda_tensor, TypeError, needs="cuda"),
        Failure("leaf lost by re-assignment", reassigned_leaf, AttributeError, "NoneType"),
        Failure("in-place update of a leaf", update_in_place_under_autograd, RuntimeError, "leaf"),
    ),
    errata=(
        Erratum(
            "wording of the in-place error",
            says="a leaf Variable that requires grad has been used in an in-place operation",
            today="… is being used in an in-place operation",
            since="torch>=1.5",
            holds=warns_as_printed,
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
