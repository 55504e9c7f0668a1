"""MNIST by logistic regression, from bare tensors through each refactoring step to a CNN.

Steps 1 to 9 of the document are the same logistic regression (784 × 10 weights and 10 biases)
written ever more briefly: from the same start and over the same batches, every step gives the same
losses, gradients and weights as the one before. Steps 10 to 13 do the same to a small CNN. That
equality is the point of the document. A NumPy variant computes the gradient by hand (softmax minus
one-hot), as an oracle independent of autograd.

Source: nn-tutorial, "What is torch.nn really?" (J. Howard).
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

from refimpl import (
    Epoch,
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
from refimpl.fixtures import mnist
from refimpl.metrics import accuracy

# --- 1 scratch and 2 functional ------------------------------------------------------------------


def scaled_normal(rng):
    """Weights from N(0, 1)/√784, zero biases."""
    return {"weights": rng.standard_normal((784, 10)) / np.sqrt(784), "bias": np.zeros(10)}


def log_softmax(x):
    """x − log Σ exp x, row by row."""
    return x - x.exp().sum(-1).log().unsqueeze(-1)


def nll(log_probabilities, target):
    """Mean negative log-likelihood of the target class."""
    return -log_probabilities[range(target.shape[0]), target].mean()


def scratch(problem):
    """Only tensors: gradients are applied and zeroed by hand."""
    weights, bias = problem.start["weights"], problem.start["bias"]

    def model(xb):  # (N, 784) -> (N, 10)
        return log_softmax(xb @ weights + bias)

    for xb, yb in problem.batches():
        output = model(xb)
        loss = nll(output, yb)
        loss.backward()
        with torch.no_grad():
            weights -= weights.grad * problem.lr
            bias -= bias.grad * problem.lr
        yield Step(loss, {"weights": weights, "bias": bias}, output, yb, model)
        weights.grad.zero_()
        bias.grad.zero_()


def functional(problem):
    """``F.cross_entropy`` replaces activation and loss."""
    weights, bias = problem.start["weights"], problem.start["bias"]

    def model(xb):
        return xb @ weights + bias

    for xb, yb in problem.batches():
        output = model(xb)
        loss = F.cross_entropy(output, yb)
        loss.backward()
        with torch.no_grad():
            weights -= weights.grad * problem.lr
            bias -= bias.grad * problem.lr
        yield Step(loss, {"weights": weights, "bias": bias}, output, yb, model)
        weights.grad.zero_()
        bias.grad.zero_()


# --- 3 module, 4 linear, 5 optim -----------------------------------------------------------------


class MnistLogistic(nn.Module):
    """Weights and bias as parameters of a module."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(784, 10))
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, xb):
        return xb @ self.weights + self.bias


class MnistLinear(nn.Module):
    """The same parameters held by ``nn.Linear``, with the weights transposed."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(784, 10)

    def forward(self, xb):
        return self.lin(xb)


def update_by_hand(problem, model):
    """The loop of steps 3 and 4: the module lists its parameters; the update is still by hand."""
    for xb, yb in problem.batches():
        output = model(xb)
        loss = F.cross_entropy(output, yb)
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= p.grad * problem.lr
        yield Step(loss, dict(model.named_parameters()), output, yb, model)
        model.zero_grad()


def module(problem):
    """A module collects the parameters."""
    yield from update_by_hand(problem, problem.load(MnistLogistic()))


def linear(problem):
    """A torch layer replaces our own module."""
    yield from update_by_hand(problem, problem.load(MnistLinear()))


def optimize(problem, model, opt, batches):
    """The loop of steps 5 to 8: an optimizer does the update."""
    for xb, yb in batches:
        output = model(xb)
        loss = F.cross_entropy(output, yb)
        loss.backward()
        opt.step()
        yield Step(loss, model, output, yb, opt)
        opt.zero_grad()


def get_model(problem):
    """The linear model and its optimizer."""
    model = problem.load(MnistLinear())
    return model, problem.resume(optim.SGD(model.parameters(), lr=problem.lr))


def optimizer(problem):
    """``optim.SGD`` updates the parameters and zeroes the gradients."""
    model, opt = get_model(problem)
    yield from optimize(problem, model, opt, problem.batches())


# --- 6 dataset, 7 dataloader, 8 validation -------------------------------------------------------


def dataset(problem):
    """Slices of a ``TensorDataset`` give inputs and targets together."""
    model, opt = get_model(problem)
    train_ds = TensorDataset(problem.train.x, problem.train.y)
    for epoch in problem.epochs():
        order, bs = problem.order(epoch), problem.batch_size
        slices = (train_ds[order[i : i + bs]] for i in range(0, len(order), bs))
        yield from optimize(problem, model, opt, slices)


def train_loader(problem, epoch):
    """A ``DataLoader`` over the batches of this epoch."""
    train_ds = TensorDataset(problem.train.x, problem.train.y)
    rows = problem.row_order(epoch).split(problem.batch_size)
    return DataLoader(train_ds, sampler=rows, batch_size=None)


def valid_loader(problem):
    """Validation needs no gradients, so its batches can be twice as large."""
    valid_ds = TensorDataset(problem.valid.x, problem.valid.y)
    rows = torch.arange(len(valid_ds)).split(problem.batch_size * 2)
    return DataLoader(valid_ds, sampler=rows, batch_size=None)


def dataloader(problem):
    """A ``DataLoader`` makes the batches."""
    model, opt = get_model(problem)
    for epoch in problem.epochs():
        yield from optimize(problem, model, opt, train_loader(problem, epoch))


def validation(problem):
    """Shuffled training; after each epoch, the mean loss of the validation batches."""
    model, opt = get_model(problem)
    valid_dl = valid_loader(problem)
    for epoch in problem.epochs():
        model.train()
        yield from optimize(problem, model, opt, train_loader(problem, epoch))
        model.eval()
        with torch.no_grad():
            valid_loss = sum(F.cross_entropy(model(xb), yb) for xb, yb in valid_dl)
        yield Epoch({"val_loss": float(valid_loss / len(valid_dl))})


# --- 9 fit ---------------------------------------------------------------------------------------


def loss_batch(model, loss_func, xb, yb, opt=None):
    """Output, loss and size of one batch; with an optimizer, also the update."""
    output = model(xb)
    loss = loss_func(output, yb)
    if opt is not None:
        opt.zero_grad()
        loss.backward()
        opt.step()
    return output, loss, len(xb)


def fit(problem, model, opt, loss_func, wrap=lambda batches: batches):
    """Train, then validate with batches weighted by their size; ``wrap`` preprocesses batches."""
    for epoch in problem.epochs():
        model.train()
        for xb, yb in wrap(train_loader(problem, epoch)):
            output, loss, _ = loss_batch(model, loss_func, xb, yb, opt)
            yield Step(loss, model, output, yb, opt)
        model.eval()
        with torch.no_grad():
            scores = [
                loss_batch(model, loss_func, xb, yb) for xb, yb in wrap(valid_loader(problem))
            ]
        losses, sizes = [float(loss) for _, loss, _ in scores], [size for *_, size in scores]
        yield Epoch({"val_loss": float(np.average(losses, weights=sizes))})


def fit_linear(problem):
    """The whole training in one call."""
    yield from fit(problem, *get_model(problem), F.cross_entropy)


# --- 10 cnn, 11 sequential, 12 wrapped loader, 13 device -----------------------------------------


class MnistCNN(nn.Module):
    """Three strided convolutions, then the average over the remaining 4×4 pixels."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 16, kernel_size=3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(16, 10, kernel_size=3, stride=2, padding=1)

    def forward(self, xb):  # (N, 784)
        xb = xb.view(-1, 1, 28, 28)
        xb = F.relu(self.conv1(xb))  # (N, 16, 14, 14)
        xb = F.relu(self.conv2(xb))  # (N, 16, 7, 7)
        xb = F.relu(self.conv3(xb))  # (N, 10, 4, 4)
        xb = F.avg_pool2d(xb, 4)  # (N, 10, 1, 1)
        return xb.view(-1, xb.size(1))  # (N, 10)


class Lambda(nn.Module):
    """A function as a layer."""

    def __init__(self, func):
        super().__init__()
        self.func = func

    def forward(self, x):
        return self.func(x)


def as_image(x):
    """(N, 784) -> (N, 1, 28, 28)."""
    return x.view(-1, 1, 28, 28)


def as_row(x):
    """(N, 10, 1, 1) -> (N, 10)."""
    return x.view(x.size(0), -1)


def convolutions():
    """The three convolutions, each with its ReLU."""
    for inputs, outputs in ((1, 16), (16, 16), (16, 10)):
        yield nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1)
        yield nn.ReLU()


def sequential():
    """The CNN as a sequence; reshaping is one of its layers."""
    return nn.Sequential(Lambda(as_image), *convolutions(), nn.AvgPool2d(4), Lambda(as_row))


def any_size():
    """The CNN without its first layer: adaptive pooling takes images of any size."""
    return nn.Sequential(*convolutions(), nn.AdaptiveAvgPool2d(1), Lambda(as_row))


class WrappedDataLoader:
    """A loader that applies a function to each batch."""

    def __init__(self, loader, func):
        self.loader, self.func = loader, func

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for batch in self.loader:
            yield self.func(*batch)


MOMENTUM_SGD = partial(optim.SGD, momentum=0.9)


def momentum_sgd(model, problem):
    """SGD with momentum, used by all CNN steps."""
    return problem.resume(MOMENTUM_SGD(model.parameters(), lr=problem.lr))


def wrapped_loader(problem):
    """Preprocessing moves from the model to the loader."""
    model = problem.load(any_size())
    opt = momentum_sgd(model, problem)
    wrap = partial(WrappedDataLoader, func=lambda x, y: (as_image(x), y))
    yield from fit(problem, model, opt, F.cross_entropy, wrap)


def device(problem):
    """The loader also moves each batch to the model's device."""
    model = problem.load(any_size())
    opt = momentum_sgd(model, problem)

    def preprocess(x, y):
        return as_image(x).to(problem.device), y.to(problem.device)

    wrap = partial(WrappedDataLoader, func=preprocess)
    yield from fit(problem, model, opt, F.cross_entropy, wrap)


def numbers_of_convolutions() -> list[int]:
    """How many numbers each convolution has."""
    return [sum(p.numel() for p in layer.parameters()) for layer in MnistCNN().children()]


def own_log_softmax_apart() -> float:
    """The largest difference between log-softmax by hand and ``F.log_softmax``."""
    x = torch.linspace(-5, 5, 640).reshape(64, 10)
    return float((log_softmax(x) - F.log_softmax(x, 1)).abs().max())


# --- the gradient by hand ------------------------------------------------------------------------


def by_hand(problem):
    """NumPy only: the gradient of the cross entropy is softmax minus one-hot."""
    weights, bias = (value.detach().numpy() for value in problem.start.values())
    for xb, yb in problem.batches():
        x, y = xb.numpy(), yb.numpy()
        scores = x @ weights + bias  # (N, 10)
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        log_probabilities = np.log(probabilities)
        loss = -log_probabilities[np.arange(len(y)), y].mean()
        error = (probabilities - np.eye(10, dtype=x.dtype)[y]) / len(y)  # (N, 10)
        gradients = {"weights": x.T @ error, "bias": error.sum(axis=0)}
        weights = weights - problem.lr * gradients["weights"]
        bias = bias - problem.lr * gradients["bias"]
        parameters = {"weights": torch.from_numpy(weights), "bias": torch.from_numpy(bias)}
        yield Step(
            loss,
            parameters,
            output=torch.from_numpy(log_probabilities),
            target=yb,
            model=lambda x, p=parameters: torch.log_softmax(x @ p["weights"] + p["bias"], 1),
            gradients={name: torch.from_numpy(value) for name, value in gradients.items()},
        )


# --- what the document states --------------------------------------------------------------------

IN_FILE_ORDER = Protocol(
    epochs=2,
    learning_rate=0.5,
    batch_size=64,
    shuffle=False,
    report="last-batch",
    stand_in_epochs=10,
)
SHUFFLED = Protocol(
    epochs=2,
    learning_rate=0.5,
    batch_size=64,
    valid_batch_size=128,
    stand_in_epochs=10,
)
WEIGHTED = Protocol(
    epochs=2,
    learning_rate=0.5,
    batch_size=64,
    valid_batch_size=128,
    average="samples",
    stand_in_epochs=10,
)
CNN = Protocol(
    epochs=2,
    learning_rate=0.1,
    batch_size=64,
    valid_batch_size=128,
    average="samples",
    stand_in_epochs=20,
)


UNTRAINED = {"real": (2.1, 2.7), "stand_in": (2.0, 2.9)}
"""Of weights drawn from N(0, 1)/28; those of ``nn.Linear`` are smaller, and the loss nearer."""
UNTRAINED_LINEAR = {"real": (2.15, 2.5), "stand_in": (2.1, 2.6)}


def before(loss: float, **ranges) -> Figure:
    """The loss of the first batch before any update; equal chances for ten classes have 2.3026."""
    return Figure("loss", loss, **(ranges or UNTRAINED), epoch=0)


FIRST_ACCURACY = Figure("accuracy", 0.0625, real=(0.0, 0.35), stand_in=(0.0, 0.4), epoch=0)


def logistic_facts(after: float, state_dict: tuple[str, ...] = (), *further: Figure) -> Facts:
    """7,850 parameters; after two epochs, the last batch's loss and its accuracy, which is 1."""
    return Facts(
        parameters=7850,
        state_dict=state_dict,
        output=(64, 10),
        figures=(
            Figure("loss", after, real=(0.07, 0.09), stand_in=(0.0, 0.5)),
            Figure("accuracy", 1.0, real=(1.0, 1.0), stand_in=(0.8, 1.0)),
            *further,
        ),
    )


def fit_facts(val_loss: float, first: float) -> Facts:
    """The linear model's parameters, and the validation losses of both epochs."""
    return Facts(
        parameters=7850,
        state_dict=LINEAR,
        output=(64, 10),
        figures=(
            Figure("val_loss", val_loss, real=(0.26, 0.45), stand_in=(0.1, 0.6)),
            Figure("val_loss", first, real=(0.26, 0.45), epoch=1),
        ),
    )


def cnn_facts(
    val_loss: float, first: float, state_dict: tuple[str, ...], outside_because: str = ""
) -> Facts:
    """160 + 2,320 + 1,450 parameters and the validation losses of both epochs."""
    ranges = {"real": (0.19, 0.40), "stand_in": (0.02, 1.0)}
    early = {"real": (0.28, 0.60), "outside_because": outside_because, "epoch": 1}
    return Facts(
        parameters=3930,
        state_dict=state_dict,
        output=(64, 10),
        figures=(
            Figure("val_loss", val_loss, **ranges, outside_because=outside_because),
            Figure("val_loss", first, **early),
        ),
    )


def by_index(*indices: int) -> dict[str, str]:
    """Maps the parameter names of a sequence's convolutions to those of the CNN."""
    return {
        f"{index}.{kind}": f"conv{number}.{kind}"
        for number, index in enumerate(indices, start=1)
        for kind in ("weight", "bias")
    }


OF_FOUR_EPOCHS = "the document goes on with the model of the step before: it is that of four epochs"
OWN = ("weights", "bias")
LINEAR = ("lin.weight", "lin.bias")
LINEAR_NAMES = {"lin.weight": "weights.T", "lin.bias": "bias"}
BEHIND_LAMBDA, FROM_FIRST = by_index(1, 3, 5), by_index(0, 2, 4)


def own(name, steps, **changes) -> Variant:
    """A step with its own weights (784, 10), started from the document's normal distribution."""
    return Variant(name, steps, start=scaled_normal, ladder="logistic", **changes)


def lin(name, steps, facts, **changes) -> Variant:
    """A step over ``nn.Linear``."""
    return Variant(
        name,
        steps,
        build=MnistLinear,
        optimizer=optim.SGD,
        names=LINEAR_NAMES,
        ladder="logistic",
        facts=facts,
        **changes,
    )


def wrapped(name, steps, val_loss, first, outside_because="") -> Variant:
    """A CNN whose batches are preprocessed in the loader."""
    return Variant(
        name,
        steps,
        build=any_size,
        optimizer=MOMENTUM_SGD,
        prepare=as_image,
        names=FROM_FIRST,
        ladder="cnn",
        protocol=CNN,
        facts=cnn_facts(val_loss, first, tuple(FROM_FIRST), outside_because),
    )


def cnn(name, build, val_loss, first, names) -> Variant:
    """A CNN that takes images as rows of 784."""
    return Variant(
        name,
        build=build,
        optimizer=MOMENTUM_SGD,
        ladder="cnn",
        names=names,
        protocol=CNN,
        facts=cnn_facts(val_loss, first, tuple(names) or tuple(BEHIND_LAMBDA.values())),
    )


EXAMPLE = Example(
    name="mnist-logistic",
    title="MNIST logistic regression with manual updates, and its refactor steps",
    document="nn-tutorial",
    section="all",
    data=mnist.DIGITS,
    protocol=IN_FILE_ORDER,
    loss=nn.CrossEntropyLoss(),
    metrics={"accuracy": accuracy},
    variants=(
        own(
            "scratch",
            scratch,
            loss=nll,
            facts=logistic_facts(0.0824, (), before(2.3762), FIRST_ACCURACY),
        ),
        own("functional", functional, facts=logistic_facts(0.0824)),
        own(
            "module",
            module,
            build=MnistLogistic,
            optimizer=optim.SGD,
            facts=logistic_facts(0.0795, OWN, before(2.2882)),
        ),
        lin("linear", linear, logistic_facts(0.0820, LINEAR, before(2.3549, **UNTRAINED_LINEAR))),
        lin("optim", optimizer, logistic_facts(0.0828, LINEAR, before(2.3540, **UNTRAINED_LINEAR))),
        lin("dataset", dataset, logistic_facts(0.0823, LINEAR)),
        lin("dataloader", dataloader, logistic_facts(0.0807, LINEAR)),
        lin("validation", validation, fit_facts(0.4185, 0.3543), protocol=SHUFFLED),
        lin("fit", fit_linear, fit_facts(0.2856, 0.2952), protocol=WEIGHTED),
        cnn("cnn", MnistCNN, 0.2510, 0.3552, names={}),
        cnn("cnn-sequential", sequential, 0.2353, 0.4354, names=BEHIND_LAMBDA),
        wrapped("wrapped-loader", wrapped_loader, 0.2866, 0.4280),
        wrapped("device", device, 0.1849, 0.1995, OF_FOUR_EPOCHS),
        own("numpy", by_hand, numpy=True, loss=nll, facts=logistic_facts(0.0824)),
    ),
    values=(
        Exact("parameters of the three convolutions", numbers_of_convolutions, [160, 2_320, 1_450]),
        Exact(
            "scores of two images of 40×33 pixels",
            lambda: [*any_size()(torch.zeros(2, 1, 40, 33)).shape],
            [2, 10],
        ),
        Exact("own log-softmax against torch's", own_log_softmax_apart, 0.0, digits=5),
    ),
    failures=(
        Failure(
            "images of 40×40 pixels in the CNN",
            lambda: MnistCNN()(torch.zeros(2, 1_600)),
            RuntimeError,
            "invalid for input",
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
