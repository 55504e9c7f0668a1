"""CIFAR-10 by a fully connected net of two layers, with checkpoints of model and optimizer.

To this net an image is a row of 3 × 32 × 32 numbers: flatten → linear → ReLU → linear. The weights
start from Kaiming's normal distribution, whose standard deviation √(2 / inputs) preserves the scale
of the activations from layer to layer despite the ReLUs. Two samplers over one data set select the
training rows, the first ``NUM_TRAIN`` images, and the validation rows, the rest. The notes leave
``NUM_TRAIN`` undefined; here it is 49,000, as in the course that they follow. Every batch is moved
to the device, images in the net's dtype and labels as int64.

The example shows that a run can be resumed exactly only if the optimizer's state is saved with the
weights: momentum is part of the run's state. The document specifies neither the width of the hidden
layer nor the length of training; here they are 100 units and three epochs of SGD with momentum.

Source: notes (CS231n style, on CIFAR-10).
"""

import io
from bisect import bisect
from functools import partial
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, SubsetRandomSampler, TensorDataset

from refimpl import (
    Epoch,
    Exact,
    Example,
    Facts,
    Failure,
    Figure,
    Layer,
    Protocol,
    Step,
    Variant,
    hookimpl,
    philox,
    pose,
)
from refimpl.fixtures import cifar10
from refimpl.metrics import accuracy

INPUTS, HIDDEN, CLASSES = 3 * 32 * 32, 100, 10


class TwoLayerNet(nn.Module):
    """flatten → linear → ReLU → linear."""

    def __init__(self, inputs=INPUTS, hidden=HIDDEN, classes=CLASSES):
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, classes)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x):  # (N, 3, 32, 32)
        x = x.flatten(start_dim=1)  # (N, 3072)
        return self.fc2(F.relu(self.fc1(x)))  # (N, 10)


def kaiming_normal(rng):
    """Weights as from ``kaiming_normal_``, of variance 2 / inputs; biases as from ``nn.Linear``."""
    start = {}
    for name, inputs, outputs in (("fc1", INPUTS, HIDDEN), ("fc2", HIDDEN, CLASSES)):
        bound = 1 / np.sqrt(inputs)
        start[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / inputs), (outputs, inputs))
        start[f"{name}.bias"] = rng.uniform(-bound, bound, outputs)
    return start


# --- training ------------------------------------------------------------------------------------


class Images(ConcatDataset):
    """Parts one after the other; the rows of a batch, all of one part, are read together."""

    def __getitems__(self, numbers):
        part = bisect(self.cumulative_sizes, numbers[0])
        before = self.cumulative_sizes[part - 1] if part else 0
        return self.datasets[part][[number - before for number in numbers]]


class SubsetInOrder(SubsetRandomSampler):
    """Every row of a subset once, in the problem's random order instead of torch's."""

    def __init__(self, indices, order):
        super().__init__(indices)
        self.order = order

    def __iter__(self):
        return (self.indices[i] for i in self.order)

    def __len__(self):
        return len(self.order)


momentum_sgd = partial(torch.optim.SGD, momentum=0.9)
"""An optimizer with a state worth saving."""


def sampled(problem):
    """Two samplers split the images; accuracy on the validation rows after every epoch."""
    net = problem.load(TwoLayerNet())
    optimizer = problem.resume(momentum_sgd(net.parameters(), lr=problem.lr))
    train, valid = problem.train, problem.valid
    images = Images([TensorDataset(train.x, train.y), TensorDataset(valid.x, valid.y)])
    load = partial(DataLoader, images, batch_size=problem.batch_size, collate_fn=tuple)
    validation = load(sampler=SubsetRandomSampler(range(len(train), len(images))))

    def move(x, y):
        return x.to(problem.device, problem.dtype), y.to(problem.device, torch.int64)

    for epoch in problem.epochs():
        training_rows = SubsetInOrder(range(len(train)), problem.order(epoch))
        for batch in load(sampler=training_rows):
            x, y = move(*batch)
            scores = net(x)
            loss = F.cross_entropy(scores, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield Step(loss, net, scores, y, optimizer)
        yield Epoch({"val_accuracy": check_accuracy(net, (move(*batch) for batch in validation))})


@torch.no_grad()
def check_accuracy(net, batches):
    """The share of images whose highest score is that of their class."""
    net.eval()
    found = torch.cat([accuracy(net(x), y) for x, y in batches])
    net.train()
    return float(found.mean())


# --- checkpoints ---------------------------------------------------------------------------------


def save_checkpoint(file, net, optimizer):
    """Write the state of both."""
    torch.save({"state_dict": net.state_dict(), "optimizer": optimizer.state_dict()}, file)


def load_checkpoint(file, net, optimizer):
    """Read the state of both."""
    checkpoint = torch.load(file, weights_only=True)
    net.load_state_dict(checkpoint["state_dict"])
    optimizer.load_state_dict(checkpoint["optimizer"])


def update(net, optimizer, batches):
    """Train on each batch once."""
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()


def apart_after_resuming(with_optimizer: bool) -> float:
    """The largest difference in any weight between a resumed run and an uninterrupted one."""
    problem = pose(EXAMPLE.variant(), "stand-in", seed=0)
    batches = list(islice(problem.batches(), 10))

    whole = problem.load(TwoLayerNet())
    update(whole, momentum_sgd(whole.parameters(), lr=problem.lr), batches)

    first = problem.load(TwoLayerNet())
    optimizer = momentum_sgd(first.parameters(), lr=problem.lr)
    update(first, optimizer, batches[:5])
    file = io.BytesIO()
    save_checkpoint(file, first, optimizer)

    file.seek(0)
    second = TwoLayerNet()
    optimizer = momentum_sgd(second.parameters(), lr=problem.lr)
    load_checkpoint(file, second, optimizer)
    if not with_optimizer:
        optimizer = momentum_sgd(second.parameters(), lr=problem.lr)
    update(second, optimizer, batches[5:])
    pairs = zip(whole.parameters(), second.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


# --- exact values --------------------------------------------------------------------------------


def kaiming_in_numpy() -> list[float]:
    """The :func:`spread` of the first layer's weights, drawn by NumPy."""
    return spread(kaiming_normal(philox("kaiming"))["fc1.weight"])


def kaiming_in_torch() -> list[float]:
    """The same for the weights that torch itself draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return spread(TwoLayerNet().fc1.weight.detach().double().numpy())


def spread(weights: np.ndarray) -> list[float]:
    """Standard deviation in units of √(2 / inputs), and the share of weights within one unit."""
    units = weights / np.sqrt(2 / INPUTS)
    return [float(units.std()), float((np.abs(units) < 1).mean())]


def rows_of_samplers() -> tuple[list[int], list[int]]:
    """Rows 10 to 14 as drawn by torch's random sampler, sorted; and by ours, in the order given."""
    torchs = SubsetRandomSampler(range(10, 15), generator=torch.Generator().manual_seed(0))
    return sorted(torchs), list(SubsetInOrder(range(10, 15), [3, 0, 4, 1, 2]))


def gradient_of_squares() -> torch.Tensor:
    """The gradient of Σx² at [[1, −1], [1, 1]]."""
    x = torch.tensor([[1.0, -1.0], [1.0, 1.0]], requires_grad=True)
    (x**2).sum().backward()
    return x.grad


def detached() -> tuple[bool, bool]:
    """Whether what ``detach`` gives is a leaf, and whether it requires a gradient."""
    x = torch.ones(2, requires_grad=True)
    alone = (x * 2).detach()
    return alone.is_leaf, alone.requires_grad


def shuffled_with_a_sampler():
    """A loader takes a sampler or shuffles, not both."""
    images = TensorDataset(torch.zeros(4, 1))
    DataLoader(images, sampler=SubsetRandomSampler(range(2)), shuffle=True)


def keys_of_checkpoint() -> list[str]:
    """What a checkpoint holds."""
    net, file = TwoLayerNet(), io.BytesIO()
    save_checkpoint(file, net, momentum_sgd(net.parameters(), lr=0.01))
    file.seek(0)
    return [*torch.load(file, weights_only=True)]


def white_pixel() -> np.ndarray:
    """The three channels of a white pixel after normalisation."""
    white = np.full((1, 3, 32, 32), 255, dtype=np.uint8)
    return cifar10.as_rows(white, np.zeros(1, dtype=np.int64)).x[0, :, 0, 0]


# --- what the document states --------------------------------------------------------------------

EXAMPLE = Example(
    name="cifar10-two-layer",
    title="CIFAR-10 by a fully connected net of two layers",
    document="notes",
    section="all",
    data=cifar10.CIFAR10,
    protocol=Protocol(epochs=3, learning_rate=0.01, batch_size=64),
    start=kaiming_normal,
    loss=nn.CrossEntropyLoss(),
    metrics={"accuracy": accuracy},
    variants=(Variant("sampled", sampled, build=TwoLayerNet, optimizer=momentum_sgd),),
    facts=Facts(
        parameters=308_310,
        layers=(
            Layer("fc1", "Linear", (-1, HIDDEN), 307_300),
            Layer("fc2", "Linear", (-1, CLASSES), 1_010),
        ),
        state_dict=("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"),
        output=(64, 10),
        figures=(Figure("val_accuracy", None, stand_in=(0.90, 0.98)),),
    ),
    values=(
        Exact("Kaiming's normal in NumPy", kaiming_in_numpy, [1.0, 0.68], digits=2),
        Exact("Kaiming's normal in torch", kaiming_in_torch, [1.0, 0.68], digits=2),
        Exact("resumed with the optimizer's state", lambda: apart_after_resuming(True), 0.0),
        Exact("resumed without it", lambda: apart_after_resuming(False) > 1e-4, True),
        Exact(
            "rows of both samplers", rows_of_samplers, ([10, 11, 12, 13, 14], [13, 10, 14, 11, 12])
        ),
        Exact("gradient of a sum of squares", gradient_of_squares, [[2.0, -2.0], [2.0, 2.0]]),
        Exact("detach gives a leaf, without a gradient", detached, (True, False)),
        Exact("keys of a checkpoint", keys_of_checkpoint, ["state_dict", "optimizer"]),
        Exact("white, normalised", white_pixel, [2.5141, 2.5968, 2.7537], digits=4),
    ),
    failures=(
        Failure("a sampler together with shuffle", shuffled_with_a_sampler, ValueError, "sampler"),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
