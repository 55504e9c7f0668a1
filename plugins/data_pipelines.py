"""Data pipelines: data sets, loaders, images in folders, and a log that TensorBoard reads.

A data set is anything with a length and an i-th sample; a loader draws indices, groups them into
batches and stacks the samples. The example shows how to split and join data sets, how to drop the
last, short batch, and how to read images from one folder per class through random transforms.
Whatever is logged (a graph, scalars, histograms, images, figures) is read back from the event
files, to verify that each entry is there and is what was logged.

Source: 20-days, chapters 5-1 and 5-4.
"""

import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
    random_split,
)

from refimpl import Erratum, Exact, Example, Failure, hookimpl
from refimpl.fixtures import iris


def seeded() -> torch.Generator:
    """A separate generator, so that torch's global one stays untouched."""
    return torch.Generator().manual_seed(0)


# --- data sets and loaders -----------------------------------------------------------------------


def flowers() -> TensorDataset:
    """150 iris flowers: four measurements each, and which of three kinds it is."""
    rows = iris.IRIS.load("real").train
    return TensorDataset(torch.tensor(rows.x), torch.tensor(rows.y))


def split_flowers() -> list[Subset]:
    """Four fifths for training and the rest for validation, at random."""
    everything = flowers()
    training = int(len(everything) * 0.8)
    return random_split(everything, [training, len(everything) - training], seeded())


def split_is_a_partition() -> bool:
    """Every flower is in exactly one part, and they are not in order."""
    training, validation = split_flowers()
    together = [*training.indices, *validation.indices]
    return sorted(together) == list(range(150)) != together


def joined_flowers() -> ConcatDataset:
    """``+`` concatenates data sets."""
    training, validation = split_flowers()
    return training + validation


def batch_shapes(dataset: Dataset, batch_size: int) -> list[tuple[int, ...]]:
    """The shapes of the features, batch after batch."""
    loader = DataLoader(dataset, batch_size=batch_size, generator=seeded())
    return [tuple(features.shape) for features, _ in loader]


def batches_by_hand(dataset: Dataset, batch_size: int) -> Iterable[list[Tensor]]:
    """What a loader does: draw indices, group them, fetch the samples, stack them."""
    indices = SequentialSampler(dataset)
    for group in BatchSampler(indices, batch_size, drop_last=False):
        yield default_collate([dataset[i] for i in group])


def loader_is_that() -> bool:
    """Whether the loader gives the same batches as the hand-written one."""
    loader = DataLoader(flowers(), batch_size=8, generator=seeded())
    return all(
        torch.equal(features, features_by_hand) and torch.equal(labels, labels_by_hand)
        for (features, labels), (features_by_hand, labels_by_hand) in zip(
            loader, batches_by_hand(flowers(), 8), strict=True
        )
    )


def one_to_forty_nine() -> DataLoader:
    """49 numbers, shuffled, in batches of ten; the last, short batch is dropped."""
    numbers = TensorDataset(torch.arange(1, 50))
    return DataLoader(numbers, batch_size=10, shuffle=True, drop_last=True, generator=seeded())


def numbers_drawn() -> list[int]:
    """The numbers of all batches in one list."""
    return torch.cat([batch for (batch,) in one_to_forty_nine()]).tolist()


class OneFilePerSample(Dataset):
    """Texts that are read from their files only when they are drawn."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> str:
        return self.files[index].read_text(encoding="utf-8")


def texts_read() -> list[list[str]]:
    """Five files in batches of two."""
    with TemporaryDirectory() as folder:
        for number in range(5):
            Path(folder, f"{number}.txt").write_text(f"text {number}", encoding="utf-8")
        return list(DataLoader(OneFilePerSample(Path(folder)), batch_size=2))


class Nothing(Dataset):
    """A data set without its methods."""


def predicted(model: Callable[[Tensor], Tensor], loader: DataLoader) -> Tensor:
    """The outputs for all batches of a loader, joined."""
    return torch.cat([model(features) for features, _ in loader])


def joined_predictions() -> list[list[int]]:
    """The shape of predictions of all flowers, batch by batch and all at once."""
    loader = DataLoader(flowers(), batch_size=8, generator=seeded())
    model = nn.Linear(4, 3)
    at_once = model(torch.stack([features for features, _ in flowers()]))
    apart = (predicted(model, loader) - at_once).abs().max()
    return [[*predicted(model, loader).shape], [int(apart > 1e-5)]]


def same_with_workers() -> bool:
    """Whether two workers give the batches that none gives."""
    alone, together = (
        [features for features, _ in DataLoader(
            flowers(), batch_size=50, num_workers=workers, generator=seeded()
        )]
        for workers in (0, 2)
    )  # fmt: skip
    return all(map(torch.equal, alone, together))


class SeedOfItsWorker(Dataset):
    """Two samples: what the worker that reads each draws from."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return torch.initial_seed()


def seeds_apart() -> int:
    """How far the seeds of two workers are apart, so that they draw other numbers."""
    loader = DataLoader(SeedOfItsWorker(), num_workers=2, generator=seeded())
    first, second = (int(seed) for seed in loader)
    return second - first


def shuffled_twice() -> bool:
    """Whether a loader that shuffles gives the same order twice."""
    loader = DataLoader(torch.arange(100), batch_size=100, shuffle=True, generator=seeded())
    first, second = next(iter(loader)), next(iter(loader))
    return torch.equal(first, second)


def predicted_twice() -> bool:
    """Whether a loader that shuffles has its predictions in the same order twice."""
    loader = DataLoader(flowers(), batch_size=8, shuffle=True, generator=seeded())
    model = nn.Linear(4, 3)
    return torch.equal(predicted(model, loader), predicted(model, loader))


# --- images in folders ---------------------------------------------------------------------------

CLASSES = ("0_airplane", "1_automobile")


def write_images(folder: Path, per_class: int) -> None:
    """Images of 32 × 32 coloured noise, in one folder per class."""
    from PIL import Image

    noise = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(per_class):
            pixels = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def label(index: int) -> Tensor:
    """A class index as the float vector (1,) that a binary loss needs."""
    return torch.tensor([index]).float()


def with_image_folder(look: Callable):
    """``look`` of a data set of 60 images, flipped and rotated at random."""
    from torchvision import datasets, transforms

    augment = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomRotation(45),
            transforms.ToTensor(),
        ]
    )
    # The transforms draw from torch's global generator, whose state is restored afterwards.
    with TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write_images(Path(folder), per_class=30)
        return look(datasets.ImageFolder(folder, augment, target_transform=label))


def fifty_images(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """The first batch: images and labels."""
    return next(iter(DataLoader(dataset, batch_size=50, shuffle=True, generator=seeded())))


def image_batch(dataset: Dataset) -> list[tuple[float, ...]]:
    """The shapes of a batch and of its labels; the labels; how often an image is read the same."""
    images, labels = fifty_images(dataset)
    same = torch.equal(dataset[0][0], dataset[0][0])
    return [tuple(images.shape), tuple(labels.shape), (*labels.unique().tolist(), float(same))]


def pixel_range(dataset: Dataset) -> list[float]:
    """The darkest and the brightest value of a batch of images."""
    images, _ = fifty_images(dataset)
    return [images.min().item(), images.max().item()]


def tiled(images: Tensor, margin: int = 2) -> Tensor:
    """Fifty images (50, 3, 32, 32) in one, eight per row, each with a margin of some pixels."""
    side = 32 + margin
    empty = nn.functional.pad(images, (0, margin, 0, margin, 0, 0, 0, 6))  # 56: seven rows
    rows = empty.unflatten(0, (7, 8)).permute(2, 0, 3, 1, 4)  # (3, 7, side, 8, side)
    return nn.functional.pad(rows.reshape(3, 7 * side, 8 * side), (margin, 0, margin, 0))


def grid_of(dataset: Dataset) -> tuple[tuple[int, ...], bool]:
    """The shape of torchvision's grid of fifty images, and whether tiling by hand gives it."""
    from torchvision.utils import make_grid

    images, _ = fifty_images(dataset)
    return tuple(make_grid(images).shape), torch.equal(make_grid(images), tiled(images))


# --- a log for TensorBoard -----------------------------------------------------------------------


def logged(write: Callable):
    """Let ``write`` log something, close the log, and read it back from its event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            write(writer)
        everything = dict.fromkeys(("scalars", "histograms", "images", "tensors"), 0)
        return EventAccumulator(folder, size_guidance=everything).Reload()


class Net(nn.Module):
    """The image net whose graph the document shows. It is not trained here."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, kernel_size=3)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=5)
        self.dropout = nn.Dropout2d(p=0.1)
        self.adaptive_pool = nn.AdaptiveMaxPool2d((1, 1))
        self.flatten = nn.Flatten()
        self.linear1 = nn.Linear(64, 32)
        self.relu = nn.ReLU()
        self.linear2 = nn.Linear(32, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 32, 32) -> (N, 1)
        x = self.pool(self.conv2(self.pool(self.conv1(x))))
        x = self.flatten(self.adaptive_pool(self.dropout(x)))
        return self.sigmoid(self.linear2(self.relu(self.linear1(x))))


class Line(nn.Module):
    """The first net whose graph the document shows: two parameters, no layers."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 1))
        self.b = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: Tensor) -> Tensor:  # (N, 2) -> (N, 1)
        return x @ self.w + self.b


def parts_of_graph(net: nn.Module, sample: Tensor) -> set[str]:
    """The parts of the names of all nodes that the output of the logged graph comes from."""
    graph = logged(lambda writer: writer.add_graph(net, sample)).Graph()
    inputs = {node.name: list(node.input) for node in graph.node}
    found, left = set(), [name for name in inputs if name.startswith("output/")]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += inputs.get(name, [])  # the module itself is no node
    return {part for name in found for part in name.split("/")}


def layers_in_graph() -> list[str]:
    """Which of its layers the output of the image net's logged graph comes from."""
    parts = parts_of_graph(Net(), torch.zeros(1, 3, 32, 32))
    layers = [(name, type(layer).__name__) for name, layer in Net().named_children()]
    return [name for name, kind in layers if f"{kind}[{name}]" in parts]


def parameters_in_graph() -> list[bool]:
    """Whether the output of the line's logged graph comes from w and b."""
    parts = parts_of_graph(Line(), torch.zeros(10, 2))
    return [name in parts for name in ("w", "b")]


def input_in_graph() -> bool:
    """Whether the output of the line's logged graph comes from x."""
    return "x" in parts_of_graph(Line(), torch.zeros(10, 2))


def log_scalars(writer) -> None:
    """x and y at each of 500 gradient descent steps on y = x² − 2x + 1."""
    x = torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=0.01)
    for step in range(500):
        optimizer.zero_grad()
        y = x**2 - 2 * x + 1
        y.backward()
        optimizer.step()
        writer.add_scalar("x", x.item(), step)
        writer.add_scalar("y", y.item(), step)


def scalars_read(tag: str) -> list[float]:
    """The number of values of this scalar, its last step and its last value."""
    events = logged(log_scalars).Scalars(tag)
    return [len(events), events[-1].step, events[-1].value]


def scalars_against_the_law() -> list[float]:
    """The furthest that logged values are from 1 − 0.98ⁿ, which x is after n steps, and 0.98²ⁿ."""
    log = logged(log_scalars)
    x = [abs(event.value - (1 - 0.98 ** (event.step + 1))) for event in log.Scalars("x")]
    y = [abs(event.value - 0.98 ** (2 * event.step)) for event in log.Scalars("y")]
    return [max(x), max(y)]


def normal_numbers() -> list[Tensor]:
    """2,000 normal numbers around each of −10, −9, … 9."""
    generator = seeded()
    return [torch.randn(100, 20, generator=generator) + mean for mean in range(-10, 10)]


def log_histograms(writer) -> None:
    """A histogram at each step."""
    for step, numbers in enumerate(normal_numbers()):
        writer.add_histogram("w", numbers, step)


def histograms_read() -> list:
    """The histograms that are logged."""
    return [event.histogram_value for event in logged(log_histograms).Histograms("w")]


def times_logged() -> bool:
    """Whether each histogram is logged with the time at which it is, one after the other."""
    before = time.time()
    times = [event.wall_time for event in logged(log_histograms).Histograms("w")]
    return before <= times[0] and times == sorted(times) and times[-1] <= time.time()


def counts_and_means() -> list[list[float]]:
    """How many numbers each histogram counts, and their mean rounded to an integer."""
    values = histograms_read()
    return [[v.num for v in values], [round(v.sum / v.num) for v in values]]


def histograms_against_numbers() -> float:
    """The furthest relative error of a logged minimum, maximum, sum or sum of squares."""
    apart = []
    for value, numbers in zip(histograms_read(), normal_numbers(), strict=True):
        own = numbers.double().numpy()
        expected = own.min(), own.max(), own.sum(), (own**2).sum()
        found = value.min, value.max, value.sum, value.sum_squares
        apart += [abs(f / e - 1) for f, e in zip(found, expected, strict=True)]
    return max(apart)


def histograms_around_their_means() -> bool:
    """Whether the numbers that each histogram counts lie around its mean."""
    around = []
    for value, mean in zip(histograms_read(), range(-10, 10), strict=True):
        pairs = zip(value.bucket_limit, value.bucket, strict=True)
        total = sum(limit * count for limit, count in pairs)
        around.append(abs(total / sum(value.bucket) - mean) < 1)
    return all(around)


def log_images(writer) -> None:
    """One image, then fifty as a grid, then fifty at once."""
    images = torch.rand(50, 3, 32, 32, generator=seeded())
    writer.add_image("grid", tiled(images))
    writer.add_image("one", images[0])
    writer.add_images("fifty", images, global_step=0)


def nine_images():
    """A Matplotlib figure: nine images, three by three, each with its label."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), dpi=50)
    for number, axes in enumerate(figure.subplots(3, 3).flat):
        axes.imshow(torch.rand(32, 32, 3, generator=seeded()))
        axes.set_title(f"label = {number % 2}")
    return figure


def log_figure(writer) -> None:
    """The figure, as an image."""
    writer.add_figure("figure", nine_images(), global_step=0)


def image_size(write: Callable, tag: str) -> list[int]:
    """Width and height of the one image logged under this tag."""
    (event,) = logged(write).Images(tag)
    return [event.width, event.height]


def pixels_read(log, tag: str) -> np.ndarray:
    """The shades of the one image logged under this tag, 0 to 255: (height, width, 3)."""
    from PIL import Image

    (event,) = log.Images(tag)
    return np.asarray(Image.open(BytesIO(event.encoded_image_string)))


def pixels_logged() -> list[bool]:
    """Whether the one, the grid and the fifty are the images given, to one of 255 shades."""
    images = torch.rand(50, 3, 32, 32, generator=seeded())
    log = logged(log_images)
    fifty = tiled(images, margin=0)
    return [
        bool((abs(pixels_read(log, tag) - 255 * given.permute(1, 2, 0).numpy()) <= 1).all())
        for tag, given in (("one", images[0]), ("grid", tiled(images)), ("fifty", fifty))
    ]


def figure_logged() -> bool:
    """Whether the logged figure is the one that Matplotlib draws."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(nine_images())
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[:, :, :3]
    return np.array_equal(pixels_read(logged(log_figure), "figure"), drawn)


# --- what does not hold --------------------------------------------------------------------------


def iterators_have_next() -> bool:
    """Whether iterators have the ``next`` method of Python 2."""
    return hasattr(iter(one_to_forty_nine()), "next")


# --- what the document states --------------------------------------------------------------------

PIPELINES = (
    Exact("flowers", lambda: torch.bincount(flowers().tensors[1]).tolist(), [50, 50, 50]),
    Exact(
        "flowers to train on and to validate", lambda: list(map(len, split_flowers())), [120, 30]
    ),
    Exact("the split is a partition", split_is_a_partition, True),
    Exact(
        "a split gives", lambda: [type(part).__name__ for part in split_flowers()], ["Subset"] * 2
    ),
    Exact("flowers joined again", lambda: len(joined_flowers()), 150),
    Exact("+ gives", lambda: type(joined_flowers()).__name__, "ConcatDataset"),
    Exact("batches to train on", lambda: batch_shapes(split_flowers()[0], 8), [(8, 4)] * 15),
    Exact(
        "batches to validate", lambda: batch_shapes(split_flowers()[1], 8), [(8, 4)] * 3 + [(6, 4)]
    ),
    Exact("a loader does what its parts do", loader_is_that, True),
    Exact(
        "sizes of batches without the last",
        lambda: [len(b) for (b,) in one_to_forty_nine()],
        [10] * 4,
    ),
    Exact("distinct numbers drawn", lambda: len(set(numbers_drawn())), 40),
    Exact("numbers drawn from elsewhere", lambda: len({*numbers_drawn()} - {*range(1, 50)}), 0),
    Exact(
        "texts read from five files",
        texts_read,
        [["text 0", "text 1"], ["text 2", "text 3"], ["text 4"]],
    ),
    Exact(
        "predictions of a loader joined, and whether they differ",
        joined_predictions,
        [[150, 3], [0]],
    ),
    Exact("the same batches from two workers", same_with_workers, True),
    Exact("seeds of two workers, how far apart", seeds_apart, 1),
    Exact("the same order from a loader that shuffles twice", shuffled_twice, False),
    Exact("the same predictions from a loader that shuffles twice", predicted_twice, False),
    Exact("numbers drawn in order", lambda: numbers_drawn() == sorted(numbers_drawn()), False),
)

IMAGES = (
    Exact(
        "classes of a folder of images",
        lambda: with_image_folder(lambda dataset: [dataset.class_to_idx[name] for name in CLASSES]),
        [0, 1],
        needs="torchvision",
    ),
    Exact(
        "a batch of augmented images, and its labels",
        lambda: with_image_folder(image_batch),
        [(50, 3, 32, 32), (50, 1), (0.0, 1.0, 0.0)],
        needs="torchvision",
    ),
    Exact(
        "darkest and brightest value",
        lambda: with_image_folder(pixel_range),
        [0.0, 1.0],
        needs="torchvision",
    ),
    Exact(
        "fifty images in a grid, and whether by hand too",
        lambda: with_image_folder(grid_of),
        ((3, 240, 274), True),
        needs="torchvision",
    ),
)

LOG = (
    Exact(
        "layers in the logged graph of the image net",
        layers_in_graph,
        [
            "conv1",
            "pool",
            "conv2",
            "dropout",
            "adaptive_pool",
            "flatten",
            "linear1",
            "relu",
            "linear2",
            "sigmoid",
        ],
        needs="tensorboard",
    ),
    Exact(
        "parameters in the logged graph of a line",
        parameters_in_graph,
        [True, True],
        needs="tensorboard",
    ),
    Exact("input in the logged graph of a line", input_in_graph, True, needs="tensorboard"),
    Exact(
        "a logged grid of fifty images",
        lambda: image_size(log_images, "grid"),
        [274, 240],
        needs="tensorboard",
    ),
    Exact(
        "logged x", lambda: scalars_read("x"), [500.0, 499.0, 1.0], digits=4, needs="tensorboard"
    ),
    Exact(
        "logged y", lambda: scalars_read("y"), [500.0, 499.0, 0.0], digits=4, needs="tensorboard"
    ),
    Exact(
        "logged x and y against their law",
        scalars_against_the_law,
        [0.0, 0.0],
        digits=4,
        needs="tensorboard",
    ),
    Exact(
        "logged histograms: counts and means",
        counts_and_means,
        [[2000] * 20, [*range(-10, 10)]],
        needs="tensorboard",
    ),
    Exact("times of logged histograms", times_logged, True, needs="tensorboard"),
    Exact(
        "logged histograms: minimum, maximum, sum and squares",
        histograms_against_numbers,
        0.0,
        digits=6,
        needs="tensorboard",
    ),
    Exact(
        "logged histograms lie around their means",
        histograms_around_their_means,
        True,
        needs="tensorboard",
    ),
    Exact("pixels of logged images", pixels_logged, [True] * 3, needs="tensorboard"),
    Exact("pixels of a logged figure", figure_logged, True, needs="tensorboard"),
    Exact("a logged image", lambda: image_size(log_images, "one"), [32, 32], needs="tensorboard"),
    Exact(
        "fifty logged images, eight to a row",
        lambda: image_size(log_images, "fifty"),
        [256, 224],
        needs="tensorboard",
    ),
    Exact(
        "a logged figure",
        lambda: image_size(log_figure, "figure"),
        [400, 400],
        needs="tensorboard",
    ),
)

EXAMPLE = Example(
    name="data-pipelines",
    title="Data pipelines and what TensorBoard reads",
    document="20-days",
    section="5-1, 5-4",
    values=PIPELINES + IMAGES + LOG,
    failures=(
        Failure("length of a data set without __len__", lambda: len(Nothing()), TypeError, "len"),
        Failure(
            "a sample of a data set without __getitem__", lambda: Nothing()[0], NotImplementedError
        ),
    ),
    errata=(
        Erratum(
            "next() of a loader's iterator",
            says="iter(loader).next() gives the first batch",
            today="the method is gone; next(iter(loader)) gives it",
            since="torch>=1.13",
            holds=iterators_have_next,
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
