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
from ast import literal_eval
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from sklearn.metrics import accuracy_score
from torch import nn

from refimpl import (
    Epoch,
    Erratum,
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


def settings() -> list[list]:
    """Optimizer, learning rate and epochs of each style."""
    found = []
    for variant in EXAMPLE.variants:
        step = next(iter(steps_of(variant, pose(variant, seed=0), 1)))
        rate = step.optimizer.param_groups[0]["lr"]
        found.append([type(step.optimizer).__name__, rate, variant.protocol.epochs])
    return found


def loaders() -> list:
    """Rows of a batch, and whether it keeps the order of the data: training, then validation."""
    problem, found = pose(EXAMPLE.variant("script"), seed=0), []
    for batches, rows in (
        (problem.epoch_batches(1), problem.train),
        (problem.valid_batches(), problem.valid),
    ):
        images, _ = next(iter(batches))
        found += [len(images), torch.equal(images, rows.x[: len(images)])]
    return found


def after_each_function() -> list[bool]:
    """Training mode, and gradients, after ``valid_step`` and then after ``train_step``."""
    model, loss_func, found = CnnModel(), nn.CrossEntropyLoss(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batch = next(iter(pose(EXAMPLE.variant("function"), seed=0).batches()))
    for step in (
        partial(valid_step, model, loss_func),
        partial(train_step, model, loss_func, optimizer),
    ):
        step(*batch)
        found += [model.training, all(p.grad is not None for p in model.parameters())]
    return found


def dropped() -> list[list[float]]:
    """What dropout makes of ones, in evaluation and in training; whole channels are zeroed."""
    channels, found = torch.ones(128, 64, 5, 5), []
    for mode in (False, True):
        after = create_net().train(mode).dropout(channels)
        values = {tuple(round(v, 4) for v in own.unique().tolist()) for own in after.flatten(0, 1)}
        found.append(sorted(value for (value,) in values))
    return found


def counts_as_scikit_learn() -> bool:
    """Whether the accuracy is scikit-learn's of the class with the largest softmax."""
    images, labels = next(iter(pose(EXAMPLE.variant("script"), seed=0).batches()))
    with torch.no_grad():
        scores = create_net()(images)
    classes = nn.Softmax(dim=1)(scores).argmax(dim=1)
    return accuracy(scores, labels).double().mean().item() == accuracy_score(labels, classes)


def carrying_its_loss() -> list[list[str]]:
    """Parts of a net that has its loss as an attribute, and what its state dict gains by it."""
    net = CnnModel()
    bare = list(net.state_dict())
    net.loss_func = nn.CrossEntropyLoss()
    parts = [name for name, _ in net.named_children()]
    return [parts, [key for key in net.state_dict() if key not in bare]]


def in_print(net: nn.Module) -> list[str]:
    """What is printed of a net, but for the flatten layer."""
    lines = [line.strip() for line in repr(net).splitlines()]
    return [line for line in lines if "Flatten(" not in line]


# --- devices -------------------------------------------------------------------------------------


def moves(device: str) -> tuple[bool, bool, str]:
    """Moving a tensor makes a new one; moving a module changes the module itself."""
    tensor, module = torch.ones(2, 2), CnnModel()
    moved_tensor, moved_module = tensor.to(device), module.to(device)
    stays = tensor.device.type == "cpu" and moved_tensor.device.type == device
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


def printed_by_fit() -> list[list]:
    """Steps at which ``fit`` prints in two epochs of four batches, every second; and names."""
    problem = pose(EXAMPLE.variant("class"), seed=0)
    model, text = compiled(problem.load(CnnModel())), io.StringIO()
    batches = list(islice(problem.batches(), 4))
    with redirect_stdout(text):
        model.fit(2, dl_train=batches, dl_val=batches, log_step_freq=2)
    lines = [literal_eval(line) for line in text.getvalue().splitlines()]
    return [[line["step"] for line in lines], list(lines[0])]


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
ROWS = (
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
PRINTED = (
    "Conv2d(1, 32, kernel_size=(3, 3), stride=(1, 1))",
    "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)",
    "Conv2d(32, 64, kernel_size=(5, 5), stride=(1, 1))",
    "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)",
    "Dropout2d(p=0.1, inplace=False)",
    "AdaptiveMaxPool2d(output_size=(1, 1))",
    "",  # Flatten() in the document: an erratum
    "Linear(in_features=64, out_features=32, bias=True)",
    "ReLU()",
    "Linear(in_features=32, out_features=10, bias=True)",
)
IN_LIST = ["CnnModel(", "(layers): ModuleList(", *(
    f"({number}): {layer}" for number, layer in enumerate(PRINTED) if layer
), ")", ")"]  # fmt: skip


def keys(names: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of the state dict: weight and bias of the layers that have them."""
    return tuple(f"{names[i]}.{kind}" for i in TRAINED for kind in ("weight", "bias"))


def facts(names: tuple[str, ...], *figures: Figure) -> Facts:
    """53,994 parameters, the layer table for 32×32 images, and the figures after three epochs."""
    return Facts(
        parameters=53994,
        layers=tuple(Layer(name, *row) for name, row in zip(names, ROWS, strict=True)),
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


def so_far(epoch: int, *rows: tuple[float, ...]) -> Iterator[Figure]:
    """Means of an epoch up to some of its steps, with their bands on real data.

    A row is the step, the loss, its lowest and highest, and the same of the accuracy. Later bands
    are the mean of the baseline's 20 runs ± 2.5 spreads: that of the epoch's figure, and that of
    a mean of so few batches. Where the loss still falls, the curve is drawn through the epochs'
    figures of each run.
    """
    for step, *bands in rows:
        yield from (replace(f, epoch=epoch, step=int(step)) for f in real_bands(*bands))


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
                    1,
                    (100, 0.742, 0.5, 1.05, 0.745, 0.62, 0.85),
                    (200, 0.466, 0.33, 0.63, 0.843, 0.77, 0.9),
                    (300, 0.363, 0.26, 0.48, 0.88, 0.83, 0.92),
                    (400, 0.31, 0.22, 0.41, 0.898, 0.86, 0.93),
                ),
                *so_far(
                    2,
                    (100, 0.103, 0.09, 0.13, 0.97, 0.959, 0.975),
                    (200, 0.114, 0.09, 0.13, 0.966, 0.96, 0.974),
                    (300, 0.112, 0.09, 0.13, 0.967, 0.961, 0.973),
                    (400, 0.108, 0.09, 0.13, 0.968, 0.961, 0.973),
                ),
                *so_far(
                    3,
                    (100, 0.093, 0.07, 0.12, 0.972, 0.965, 0.979),
                    (200, 0.095, 0.07, 0.11, 0.971, 0.966, 0.979),
                    (300, 0.092, 0.07, 0.11, 0.972, 0.966, 0.978),
                    (400, 0.093, 0.07, 0.11, 0.972, 0.967, 0.978),
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
                *after_epoch(1, real_bands(2.254, 2.22, 2.298, 0.195, 0.13, 0.32)),
                *after_epoch(1, valid_bands(2.158, 2.0, 2.27, 0.301, 0.2, 0.65)),
                *after_epoch(2, real_bands(1.905, 1.6, 2.2, 0.435, 0.3, 0.6)),
                *after_epoch(2, valid_bands(1.469, 1.0, 1.9, 0.710, 0.45, 0.82)),
                *after_epoch(0, real_bands(2.3274, 2.27, 2.35, 0.1015625, 0.02, 0.19)),
                # What is printed before that lies where 20 nets that learned nothing also lie:
                # losses of 2.302 to 2.316, accuracies of 0.08 to 0.135.
                Figure("loss", 2.265, real=(2.24, 2.298), epoch=1, step=400),
                *so_far(
                    2,
                    (100, 2.127, 2.04, 2.28, 0.302, 0.18, 0.49),
                    (200, 2.08, 1.97, 2.27, 0.338, 0.25, 0.49),
                    (300, 2.025, 1.9, 2.25, 0.374, 0.3, 0.48),
                    (400, 1.957, 1.8, 2.23, 0.411, 0.34, 0.5),
                ),
                *so_far(
                    3,
                    (100, 1.435, 1.12, 1.89, 0.615, 0.49, 0.73),
                    (200, 1.324, 1.05, 1.78, 0.647, 0.51, 0.73),
                    (300, 1.221, 0.99, 1.67, 0.672, 0.54, 0.74),
                    (400, 1.132, 0.92, 1.56, 0.696, 0.57, 0.75),
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
                # Of the baseline's 20 starts one is lost at this rate, in the second epoch; the
                # bands are those of the others.
                *after_epoch(1, real_bands(0.371, 0.23, 0.54, 0.879, 0.81, 0.94)),
                *after_epoch(1, valid_bands(0.087, 0.01, 0.28, 0.972, 0.92, 0.985)),
                *after_epoch(2, real_bands(0.175, 0.06, 0.28, 0.951, 0.92, 0.98)),
                *after_epoch(2, valid_bands(0.152, 0.05, 0.19, 0.958, 0.94, 0.985)),
                *so_far(
                    1,
                    (100, 0.976, 0.65, 1.35, 0.664, 0.52, 0.78),
                    (200, 0.611, 0.42, 0.85, 0.795, 0.7, 0.86),
                    (300, 0.478, 0.33, 0.66, 0.841, 0.77, 0.89),
                    (400, 0.403, 0.28, 0.56, 0.868, 0.8, 0.91),
                ),
                *so_far(
                    2,
                    (100, 0.182, 0.08, 0.27, 0.948, 0.93, 0.975),
                    (200, 0.176, 0.08, 0.26, 0.949, 0.93, 0.975),
                    (300, 0.173, 0.08, 0.26, 0.95, 0.93, 0.975),
                    (400, 0.174, 0.08, 0.26, 0.951, 0.93, 0.975),
                ),
                *so_far(
                    3,
                    (100, 0.143, 0.08, 0.23, 0.961, 0.945, 0.974),
                    (200, 0.151, 0.08, 0.23, 0.959, 0.945, 0.973),
                    (300, 0.149, 0.09, 0.22, 0.96, 0.945, 0.973),
                    (400, 0.152, 0.09, 0.22, 0.959, 0.945, 0.973),
                ),
            ),
        ),
    ),
    values=(
        Exact("same losses in all styles with one optimizer", styles_agree, True),
        Exact(
            "optimizer, learning rate and epochs of each style",
            settings,
            [["Adam", 0.01, 3], ["SGD", 0.01, 3], ["Adam", 0.02, 3]],
        ),
        Exact("batches, and whether they are in order", loaders, [128, False, 128, True]),
        Exact(
            "training mode and gradients after valid_step and train_step",
            after_each_function,
            [False, False, True, True],
        ),
        Exact("ones after dropout, evaluating and training", dropped, [[1.0], [0.0, 1.1111]]),
        Exact("accuracy as scikit-learn counts it", counts_as_scikit_learn, True),
        Exact("a net that carries its loss", carrying_its_loss, [["layers", "loss_func"], []]),
        Exact(
            "the sequence in print",
            lambda: in_print(create_net()),
            [
                "Sequential(",
                *(f"({n}): {layer}" for n, layer in zip(BY_NAME, PRINTED, strict=True) if layer),
                ")",
            ],
        ),
        Exact("the list in print", lambda: in_print(CnnModel()), IN_LIST),
        Exact("the model in print", lambda: in_print(Model(CnnModel())), IN_LIST),
        Exact(
            "rows of the model's summary",
            lambda: [
                (layer.kind, layer.output, layer.parameters)
                for layer in Model(CnnModel()).summary(input_shape=(1, 32, 32)).layers
            ],
            [*ROWS],
        ),
        Exact(
            "what fit prints",
            printed_by_fit,
            [[2, 4, 2, 4], ["step", "loss", "accuracy"]],
        ),
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
    errata=(
        Erratum(
            "torchkeras by its name",
            says="the model is torchkeras.Model(…), after summary and Model were imported from it",
            today="there is no such name: call Model(…), or import torchkeras too",
            since="torch>=1.5",  # so it was from the start
            holds=lambda: eval("torchkeras.Model(net)", {"Model": Model, "net": CnnModel()}),
            raises=(NameError,),
        ),
        Erratum(
            "accuracy_score(…).item()",
            says="accuracy_score gives a number of NumPy, whose item() is added up",
            today="gives a float, which has no item(): add it as it is",
            since="scikit-learn>=1.4",
            holds=lambda: accuracy_score([0, 1], [0, 0]).item(),
            raises=(AttributeError,),
        ),
        Erratum(
            "Flatten in print",
            says="Flatten() is printed as Flatten()",
            today="is printed as Flatten(start_dim=1, end_dim=-1)",
            since="torch>=1.7",
            holds=lambda: "(flatten): Flatten()" in repr(create_net()),
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
