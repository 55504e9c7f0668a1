"""MNIST by a small convolutional network, trained in three styles, on one device or several.

The same net and the same loss, three ways to organise the work: the *script* style is one plain
loop; the *function* style passes each batch to ``train_step`` or ``valid_step``; the *class* style
hides the loop behind ``compile``, ``fit`` and ``evaluate`` of a Keras-like model. The document
chooses the optimizer per style: three epochs reach about 0.97 with Adam, but less than 0.9 with
SGD. That is the only difference: with the same optimizer, start and batches, the three give the
same losses to the last bit.

The net is written as a ``Sequential`` and as a ``ModuleList``. The class style then moves to a GPU
and under ``DataParallel`` without a change to the net: the document's 0.968 and 0.960 there come
from the same computation as 0.975 on the CPU, with other starts and batches. What does change is
where the weights are: inside the wrapper, in ``.module``.

Source: 20-days, chapters 6-2, 6-3.
"""

import io
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import nn

from refimpl import (
    Epoch,
    Exact,
    Example,
    Facts,
    Failure,
    Figure,
    Layer,
    Model,
    Protocol,
    Sizes,
    Step,
    Variant,
    hookimpl,
    pose,
    steps_of,
)
from refimpl.fixtures import mnist
from refimpl.metrics import accuracy

# --- the net, two ways ---------------------------------------------------------------------------


def create_net() -> nn.Sequential:
    """The layers in a sequence, each added by name."""
    net = nn.Sequential()  # (N, 1, 28, 28); shapes for 32×32, as the document has them:
    net.add_module("conv1", nn.Conv2d(1, 32, kernel_size=3))  # (N, 32, 30, 30)
    net.add_module("pool1", nn.MaxPool2d(kernel_size=2, stride=2))  # (N, 32, 15, 15)
    net.add_module("conv2", nn.Conv2d(32, 64, kernel_size=5))  # (N, 64, 11, 11)
    net.add_module("pool2", nn.MaxPool2d(kernel_size=2, stride=2))  # (N, 64, 5, 5)
    net.add_module("dropout", nn.Dropout2d(p=0.1))
    net.add_module("adaptive_pool", nn.AdaptiveMaxPool2d((1, 1)))  # (N, 64, 1, 1)
    net.add_module("flatten", nn.Flatten())  # (N, 64)
    net.add_module("linear1", nn.Linear(64, 32))  # (N, 32)
    net.add_module("relu", nn.ReLU())
    net.add_module("linear2", nn.Linear(32, 10))  # (N, 10)
    return net


class CnnModel(nn.Module):
    """The same layers in a list, which ``forward`` iterates over."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(1, 32, kernel_size=3),
                nn.MaxPool2d(kernel_size=2, stride=2),
                nn.Conv2d(32, 64, kernel_size=5),
                nn.MaxPool2d(kernel_size=2, stride=2),
                nn.Dropout2d(p=0.1),
                nn.AdaptiveMaxPool2d((1, 1)),
                nn.Flatten(),
                nn.Linear(64, 32),
                nn.ReLU(),
                nn.Linear(32, 10),
            ]
        )

    def forward(self, x):  # (N, 1, 28, 28) -> (N, 10)
        for layer in self.layers:
            x = layer(x)
        return x


# --- script style --------------------------------------------------------------------------------


def script(problem, make_optimizer=torch.optim.Adam):
    """Everything in one loop: train on every batch of an epoch, then validate."""
    net = problem.load(create_net())
    loss_func = nn.CrossEntropyLoss()
    optimizer = problem.resume(make_optimizer(net.parameters(), lr=problem.lr))
    for epoch in problem.epochs():
        net.train()
        for features, labels in problem.epoch_batches(epoch):
            optimizer.zero_grad()
            predictions = net(features)
            loss = loss_func(predictions, labels)
            loss.backward()
            optimizer.step()
            yield Step(loss, net, predictions, labels, optimizer)
        net.eval()
        losses, accuracies = [], []
        with torch.no_grad():
            for features, labels in problem.valid_batches():
                predictions = net(features)
                losses.append(loss_func(predictions, labels).item())
                accuracies.append(accuracy(predictions, labels).mean().item())
        yield Epoch(
            {"val_loss": float(np.mean(losses)), "val_accuracy": float(np.mean(accuracies))}
        )


# --- function style ------------------------------------------------------------------------------


def train_step(model, loss_func, optimizer, features, labels):
    """Update the model on one batch; returns its predictions and loss."""
    model.train()
    optimizer.zero_grad()
    predictions = model(features)
    loss = loss_func(predictions, labels)
    loss.backward()
    optimizer.step()
    return predictions, loss


@torch.no_grad()
def valid_step(model, loss_func, features, labels):
    """Loss and accuracy of one batch, without dropout and without gradients."""
    model.eval()
    predictions = model(features)
    return loss_func(predictions, labels).item(), accuracy(predictions, labels).mean().item()


def train_model(problem, model, loss_func, optimizer):
    """Epochs of training steps, each followed by the mean figures of the validation batches."""
    for epoch in problem.epochs():
        for features, labels in problem.epoch_batches(epoch):
            predictions, loss = train_step(model, loss_func, optimizer, features, labels)
            yield Step(loss, model, predictions, labels, optimizer)
        figures = [valid_step(model, loss_func, *batch) for batch in problem.valid_batches()]
        val_loss, val_accuracy = np.mean(figures, axis=0)
        yield Epoch({"val_loss": float(val_loss), "val_accuracy": float(val_accuracy)})


def function(problem, make_optimizer=torch.optim.SGD):
    """Model, loss and optimizer are passed to the functions."""
    model = problem.load(CnnModel())
    optimizer = problem.resume(make_optimizer(model.parameters(), lr=problem.lr))
    yield from train_model(problem, model, nn.CrossEntropyLoss(), optimizer)


# --- class style ---------------------------------------------------------------------------------


def class_style(problem, make_optimizer=torch.optim.Adam):
    """Compile once; then fit and evaluate."""
    net = problem.load(CnnModel())
    model = Model(net)
    optimizer = problem.resume(make_optimizer(net.parameters(), lr=problem.lr))
    model.compile(nn.CrossEntropyLoss(), optimizer, {"accuracy": accuracy})
    for epoch in problem.epochs():
        yield from model.steps(problem.epoch_batches(epoch))
        yield Epoch(model.evaluate(problem.valid_batches()))


def styles_agree() -> bool:
    """Whether the styles give the same losses, bit for bit, if all use Adam at 0.01."""
    losses = []
    for variant in EXAMPLE.variants:
        with_adam = replace(variant, steps=partial(variant.steps, make_optimizer=torch.optim.Adam))
        problem = pose(with_adam, seed=0).but(protocol=EXAMPLE.variant("script").protocol)
        losses.append([step.loss.item() for step in steps_of(with_adam, problem, 5)])
    return losses[0] == losses[1] == losses[2]


# --- devices -------------------------------------------------------------------------------------


def moves(device: str) -> tuple[bool, bool, str]:
    """Moving a tensor makes a new one; moving a module changes the module itself."""
    tensor, module = torch.ones(2, 2), CnnModel()
    moved_tensor, moved_module = tensor.to(device), module.to(device)
    stays = tensor.device.type == "cpu" and moved_tensor is not tensor
    return stays, moved_module is module, next(module.parameters()).device.type


def product_shape(device: str) -> tuple[int, ...]:
    """The shape of the large matrix product that the document times on CPU and GPU."""
    left, right = torch.empty(10000, 200, device=device), torch.empty(200, 10000, device=device)
    return (left @ right).shape


def product_is_faster(device: str = "cuda") -> bool:
    """Whether that product takes less time on a GPU than on the CPU."""
    from torch.utils.benchmark import Timer

    seconds = []
    for where in ("cpu", device):
        factors = {
            "left": torch.rand(10000, 200, device=where),
            "right": torch.rand(200, 10000, device=where),
        }
        seconds.append(Timer("left @ right", globals=factors).timeit(3).median)
    return seconds[1] < seconds[0]


def data_parallel(net: nn.Module) -> nn.DataParallel:
    """``net`` under ``DataParallel`` on the first GPU; without a GPU the wrapper just calls it."""
    if torch.cuda.is_available():
        return nn.DataParallel(net.to("cuda:0"), device_ids=[0])
    return nn.DataParallel(net)


def takes_every_device() -> bool:
    """Whether ``device_ids`` defaults to all GPUs present."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return nn.DataParallel(CnnModel()).device_ids == list(range(there))


def compiled(net: nn.Module) -> Model:
    """A model as the class style trains it."""
    model = Model(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    model.compile(nn.CrossEntropyLoss(), optimizer, {"accuracy": accuracy})
    return model


def bare_net_evaluates_the_same() -> bool:
    """Train under ``DataParallel``, save ``.module``, load into a bare net, evaluate both."""
    problem = pose(EXAMPLE.variant("class"), seed=0, dropout=False)
    model = compiled(data_parallel(problem.load(CnnModel())))
    device = next(model.net.parameters()).device
    training = ((x.to(device), y.to(device)) for x, y in islice(problem.batches(), 5))
    for _ in model.steps(training):
        pass
    file = io.BytesIO()
    torch.save(model.net.module.state_dict(), file)
    file.seek(0)
    bare = CnnModel().to(device)
    bare.load_state_dict(torch.load(file, weights_only=True))
    validation = [(x.to(device), y.to(device)) for x, y in problem.valid_batches()]
    return model.evaluate(validation) == compiled(bare).evaluate(validation)


def fitted() -> tuple[Model, dict[str, list[float]], list]:
    """A model that was fitted as the document does, its history, and its validation batches."""
    problem = pose(EXAMPLE.variant("class"), seed=0)
    model = compiled(problem.load(CnnModel()))
    training, validation = list(islice(problem.batches(), 3)), list(problem.valid_batches())
    return model, model.fit(2, dl_train=training, dl_val=validation), validation


def clone_evaluates_the_same() -> bool:
    """Load the saved weights into another model, compile it without an optimizer, evaluate both."""
    model, _, validation = fitted()
    clone = Model(CnnModel())
    clone.load_state_dict(model.state_dict())
    clone.compile(loss_func=nn.CrossEntropyLoss(), metrics_dict={"accuracy": accuracy})
    return clone.evaluate(validation) == model.evaluate(validation)


def predictions_of_a_loader() -> list[int]:
    """How many validation images there are, and the shape of their predictions."""
    model, _, validation = fitted()
    return [sum(len(labels) for _, labels in validation), *model.predict(validation).shape]


def parallel_and_back() -> list[str]:
    """What a model trains when it is compiled with ``device_ids``, and again without."""
    model = Model(CnnModel())
    found = []
    for device_ids in ([0], None):
        model.compile(nn.CrossEntropyLoss(), device_ids=device_ids)
        found.append(type(model.net).__name__)
    return [*found, *(["prefixed"] if "layers.0.weight" not in model.state_dict() else [])]


def weights_of_the_wrapper():
    """If saved from the wrapper, every name begins with ``module.`` and fits no bare net."""
    CnnModel().load_state_dict(data_parallel(CnnModel()).state_dict())


# --- what the document states --------------------------------------------------------------------

BY_NAME = (
    "conv1", "pool1", "conv2", "pool2", "dropout", "adaptive_pool", "flatten", "linear1", "relu",
    "linear2",
)  # fmt: skip
BY_INDEX = tuple(f"layers.{index}" for index in range(10))
TRAINED = (0, 2, 7, 9)


def keys(names: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of the state dict: weight and bias of the layers that have them."""
    return tuple(f"{names[i]}.{kind}" for i in TRAINED for kind in ("weight", "bias"))


def facts(names: tuple[str, ...], *figures: Figure) -> Facts:
    """53,994 parameters, the layer table for 32×32 images, and the figures after three epochs."""
    rows = (
        ("Conv2d", (-1, 32, 30, 30), 320),
        ("MaxPool2d", (-1, 32, 15, 15), 0),
        ("Conv2d", (-1, 64, 11, 11), 51264),
        ("MaxPool2d", (-1, 64, 5, 5), 0),
        ("Dropout2d", (-1, 64, 5, 5), 0),
        ("AdaptiveMaxPool2d", (-1, 64, 1, 1), 0),
        ("Flatten", (-1, 64), 0),
        ("Linear", (-1, 32), 2080),
        ("ReLU", (-1, 32), 0),
        ("Linear", (-1, 10), 330),
    )
    return Facts(
        parameters=53994,
        layers=tuple(Layer(name, *row) for name, row in zip(names, rows, strict=True)),
        sizes=Sizes(input=0.003906, forward_backward=0.359695, parameters=0.205971, total=0.569572),
        state_dict=keys(names),
        output=(128, 10),
        summary_input=(1, 32, 32),
        figures=figures,
    )


def real_bands(loss, low, high, accuracy, lowest, highest) -> tuple[Figure, Figure]:
    """Mean training loss and accuracy of an epoch, and the bands they lie in on real data."""
    return (
        Figure("loss", loss, real=(low, high)),
        Figure("accuracy", accuracy, real=(lowest, highest)),
    )


def valid_bands(loss, low, high, accuracy, lowest, highest) -> tuple[Figure, Figure]:
    """The same of the validation figures."""
    return (
        Figure("val_loss", loss, real=(low, high)),
        Figure("val_accuracy", accuracy, real=(lowest, highest)),
    )


def after_epoch(epoch: int | None, figures: tuple[Figure, ...]) -> tuple[Figure, ...]:
    """The figures as those after an epoch."""
    return tuple(replace(figure, epoch=epoch) for figure in figures)


def so_far(*rows: tuple[float, ...]) -> Iterator[Figure]:
    """Means of the first epoch up to some steps, with their bands on real data.

    A row is the step, the loss, its lowest and highest, and the same of the accuracy.
    """
    for step, *bands in rows:
        yield from (replace(f, epoch=1, step=int(step)) for f in real_bands(*bands))


def protocol(learning_rate: float, stand_in_epochs: int) -> Protocol:
    """Three epochs of shuffled batches of 128."""
    return Protocol(
        epochs=3,
        learning_rate=learning_rate,
        batch_size=128,
        valid_batch_size=128,
        stand_in_epochs=stand_in_epochs,
    )


NAMES = dict(zip(keys(BY_INDEX), keys(BY_NAME), strict=True))

EXAMPLE = Example(
    name="mnist-cnn",
    title="MNIST by a convolutional network, three ways to train",
    document="20-days",
    section="6-2, 6-3",
    data=mnist.DIGIT_IMAGES,
    loss=nn.CrossEntropyLoss(),
    metrics={"accuracy": accuracy},
    variants=(
        Variant(
            "script",
            script,
            build=create_net,
            optimizer=torch.optim.Adam,
            ladder="style",
            protocol=protocol(0.01, stand_in_epochs=6),
            facts=facts(
                BY_NAME,
                Figure("val_accuracy", 0.970, real=(0.96, 0.992), stand_in=(0.79, 0.97)),
                Figure("loss", 0.098, real=(0.06, 0.12)),
                Figure("accuracy", 0.971, real=(0.965, 0.98)),
                Figure("val_loss", 0.113, real=(0.04, 0.15)),
                *after_epoch(1, real_bands(0.281, 0.24, 0.35, 0.908, 0.88, 0.925)),
                *after_epoch(1, valid_bands(0.087, 0.05, 0.15, 0.972, 0.95, 0.985)),
                *after_epoch(2, real_bands(0.111, 0.085, 0.14, 0.967, 0.958, 0.975)),
                *after_epoch(2, valid_bands(0.082, 0.04, 0.14, 0.976, 0.955, 0.985)),
                *so_far(
                    (100, 0.742, 0.5, 1.05, 0.745, 0.62, 0.85),
                    (200, 0.466, 0.33, 0.63, 0.843, 0.77, 0.9),
                    (300, 0.363, 0.26, 0.48, 0.88, 0.83, 0.92),
                    (400, 0.31, 0.22, 0.41, 0.898, 0.86, 0.93),
                ),
            ),
        ),
        Variant(
            "function",
            function,
            build=CnnModel,
            optimizer=torch.optim.SGD,
            names=NAMES,
            ladder="style",
            ladder_depth="gradients",
            protocol=protocol(0.01, stand_in_epochs=8),
            # After the stand-in's few steps SGD is still on its initial plateau: equal
            # probabilities for all classes cost log 10 = 2.3026, and the loss is just below that.
            facts=facts(
                BY_INDEX,
                Figure("val_accuracy", 0.878, real=(0.80, 0.93)),
                Figure("val_loss", 0.582, real=(0.45, 0.95), stand_in=(2.24, 2.299)),
                *after_epoch(None, real_bands(1.074, 0.75, 1.5, 0.711, 0.55, 0.80)),
                *after_epoch(1, real_bands(2.254, 2.2, 2.3, 0.195, 0.12, 0.32)),
                *after_epoch(1, valid_bands(2.158, 2.0, 2.27, 0.301, 0.2, 0.65)),
                *after_epoch(2, real_bands(1.905, 1.6, 2.2, 0.435, 0.3, 0.6)),
                *after_epoch(2, valid_bands(1.469, 1.0, 1.9, 0.710, 0.45, 0.82)),
                Figure("loss", 2.3274, real=(2.2, 2.45), epoch=0),
                *so_far(
                    (100, 2.298, 2.26, 2.33, 0.137, 0.07, 0.25),
                    (200, 2.288, 2.24, 2.32, 0.145, 0.07, 0.28),
                    (300, 2.278, 2.22, 2.315, 0.165, 0.08, 0.3),
                    (400, 2.265, 2.2, 2.31, 0.183, 0.09, 0.32),
                ),
            ),
        ),
        Variant(
            "class",
            class_style,
            build=CnnModel,
            optimizer=torch.optim.Adam,
            names=NAMES,
            ladder="style",
            ladder_depth="gradients",
            protocol=protocol(0.02, stand_in_epochs=6),
            facts=facts(
                BY_INDEX,
                Figure("val_accuracy", 0.975, real=(0.95, 0.99), stand_in=(0.78, 0.97)),
                Figure("val_loss", 0.086, real=(0.05, 0.17)),
                *after_epoch(None, real_bands(0.153, 0.1, 0.2, 0.959, 0.945, 0.97)),
                Figure("val_accuracy", 0.972, real=(0.92, 0.985), epoch=1),
                Figure("val_accuracy", 0.958, real=(0.94, 0.985), epoch=2),
                *so_far(
                    (100, 0.976, 0.65, 1.35, 0.664, 0.52, 0.78),
                    (200, 0.611, 0.42, 0.85, 0.795, 0.7, 0.86),
                    (300, 0.478, 0.33, 0.66, 0.841, 0.77, 0.89),
                    (400, 0.403, 0.28, 0.56, 0.868, 0.8, 0.91),
                ),
            ),
        ),
    ),
    values=(
        Exact("same losses in all styles with one optimizer", styles_agree, True),
        Exact("a tensor moved, a module moved", partial(moves, "meta"), (True, True, "meta")),
        Exact(
            "a tensor and a module moved to the GPU",
            partial(moves, "cuda"),
            (True, True, "cuda"),
            needs="cuda",
        ),
        Exact("shape of the large product", partial(product_shape, "meta"), (10000, 10000)),
        Exact(
            "shape of the large product on the GPU",
            partial(product_shape, "cuda"),
            (10000, 10000),
            needs="cuda",
        ),
        Exact("the large product is faster on the GPU", product_is_faster, True, needs="cuda"),
        Exact(
            "columns of the history of fit",
            lambda: list(fitted()[1]),
            ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"],
        ),
        Exact("a clone of the model evaluates the same", clone_evaluates_the_same, True),
        Exact("images, and predictions of the loader", predictions_of_a_loader, [1000, 1000, 10]),
        Exact(
            "a model's parameters, without a prefix",
            lambda: list(Model(CnnModel()).state_dict()),
            list(keys(BY_INDEX)),
        ),
        Exact(
            "a model with device_ids, and without",
            parallel_and_back,
            ["DataParallel", "CnnModel"],
        ),
        Exact("DataParallel takes every GPU", takes_every_device, True),
        Exact("same evaluation from DataParallel's weights", bare_net_evaluates_the_same, True),
    ),
    failures=(
        Failure(
            "weights saved from the wrapper", weights_of_the_wrapper, RuntimeError, "Missing key"
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
