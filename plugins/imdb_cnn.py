"""Favourable or not: film reviews classified by a one-dimensional CNN over word vectors.

A review is 200 word ids. An embedding maps each of the 10,000 ids to three numbers, two
convolutions look at runs of words, and one linear layer decides. Most of the 40,625 parameters are
the embedding's; if it is frozen, 10,625 are trained. The id 1 stands for padding: its vector is
zero and stays zero, since it gets no gradient.

The document prepares the text in two ways. *keep-first* is its torchtext pipeline: the first 200
words, padded at the end, in batches that come time first and are transposed. *keep-last* is its own
``Dataset``: the last 200 words, padded at the front, sample by sample. The variant *torchtext* lets
torchtext itself number the words, if it can be installed. Occasionally training only memorises its
reviews; the document's advice is another start.

The class style: a Keras-like model that is compiled, fitted, evaluated, saved and loaded.

Source: 20-days, chapters 1-3 and 5-1; for the parts of the net and freezing, 4-3 and 6-1.
"""

import io

import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset

from refimpl import (
    Erratum,
    Exact,
    Example,
    Facts,
    Figure,
    Layer,
    Model,
    Protocol,
    Sizes,
    Variant,
    hookimpl,
    pose,
    steps_of,
)
from refimpl.fixtures import imdb
from refimpl.metrics import binary_accuracy

PADDING = 1


class Net(nn.Module):
    """Embedding, two convolutions with pooling, and one linear layer with a sigmoid."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10_000, 3, padding_idx=PADDING)
        self.conv = nn.Sequential()
        self.conv.add_module("conv_1", nn.Conv1d(3, 16, kernel_size=5))
        self.conv.add_module("pool_1", nn.MaxPool1d(kernel_size=2))
        self.conv.add_module("relu_1", nn.ReLU())
        self.conv.add_module("conv_2", nn.Conv1d(16, 128, kernel_size=2))
        self.conv.add_module("pool_2", nn.MaxPool1d(kernel_size=2))
        self.conv.add_module("relu_2", nn.ReLU())
        self.dense = nn.Sequential()
        self.dense.add_module("flatten", nn.Flatten())
        self.dense.add_module("linear", nn.Linear(6144, 1))
        self.dense.add_module("sigmoid", nn.Sigmoid())

    def forward(self, x):  # (N, 200)
        x = self.embedding(x)  # (N, 200, 3)
        x = x.transpose(1, 2)  # (N, 3, 200): a convolution wants channels before time
        x = self.conv(x)  # (N, 128, 48)
        return self.dense(x)  # (N, 1)


def compiled(problem, net):
    """The net as a model: cross entropy, Adagrad on the parameters not frozen, accuracy."""
    trained = [p for p in net.parameters() if p.requires_grad]
    model = Model(net)
    model.compile(
        nn.BCELoss(),
        problem.resume(torch.optim.Adagrad(trained, lr=problem.lr)),
        {"accuracy": binary_accuracy},
    )
    return model


# --- pipeline (a): batches with time first -------------------------------------------------------


def time_first(batches):
    """Batches as torchtext yields them: ids (200, N), labels (N,)."""
    for ids, labels in batches:
        yield ids.T, labels.squeeze(1)


class BatchFirst:
    """A loader that transposes them: ids (N, 200), labels (N, 1)."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        for ids, labels in self.loader:
            yield ids.T, labels.unsqueeze(1)


def keep_first(problem):
    """Compile, then fit on the transposed batches."""
    model = compiled(problem, problem.load(Net()))
    yield from model.steps(BatchFirst(time_first(problem.batches())))


def frozen_net():
    """The net with word vectors that keep their initial values."""
    net = Net()
    for parameter in dict(net.named_children())["embedding"].parameters():
        parameter.requires_grad = False
    return net


def frozen(problem):
    """The optimizer gets only the parameters left to train."""
    model = compiled(problem, problem.load(frozen_net()))
    yield from model.steps(BatchFirst(time_first(problem.batches())))


# --- pipeline (b): a data set of one's own -------------------------------------------------------


class Reviews(Dataset):
    """Reviews one by one; the document keeps each in its own file."""

    def __init__(self, ids, labels):
        self.ids, self.labels = ids, labels

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):  # (200,), (1,)
        return self.ids[index], self.labels[index]


def keep_last(problem):
    """A ``DataLoader`` collates the samples."""
    model = compiled(problem, problem.load(Net()))
    reviews = Reviews(problem.train.x, problem.train.y)
    for epoch in problem.epochs():
        sampler = BatchSampler(problem.order(epoch), problem.batch_size, drop_last=False)
        yield from model.steps(DataLoader(reviews, batch_sampler=sampler))


# --- exact values --------------------------------------------------------------------------------


def briefly_trained(steps=60):
    """The problem, and the net after ``steps`` updates on the stand-in."""
    variant = EXAMPLE.variant("keep-first")
    problem = pose(variant, "stand-in", seed=0)
    *_, last = steps_of(variant, problem, steps)
    return problem, last.model


def vector_of_padding():
    """The embedding's vector for padding after some updates."""
    _, net = briefly_trained()
    return net.embedding.weight[PADDING]


def reload_evaluates_the_same():
    """Whether a net into which the weights are loaded has the same validation loss and accuracy."""
    problem, net = briefly_trained()
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = Net()
    other.load_state_dict(torch.load(file, weights_only=True))
    before, after = (compiled(problem, n).evaluate(problem.valid_batches()) for n in (net, other))
    return before == after


def parts():
    """How many children, named children, modules and named modules the net has."""
    net = Net()
    every = (net.children(), net.named_children(), net.modules(), net.named_modules())
    return tuple(len(list(found)) for found in every)


def names_of_children():
    """The names of the three parts."""
    return [name for name, _ in Net().named_children()]


def shapes_of_a_batch():
    """The shapes of ids and labels as they come time first, and as the net takes them."""
    batches = [(torch.zeros(20, 200, dtype=torch.int64), torch.zeros(20, 1))]
    [(ids, labels)] = time_first(batches)
    [turned] = BatchFirst(time_first(batches))
    return tuple(tuple(t.shape) for t in (ids, labels, *turned))


def ends_of_reviews() -> list[int]:
    """The ids in the last column of *keep-last*: the empty word at the end of every line."""
    reviews = imdb.KEEP_LAST.load("stand-in").train
    return sorted(set(reviews.x[:, -1].tolist()))


def same_ids_as_torchtext():
    """Whether torchtext numbers every word of every review as the built-in pipeline does."""
    ours, theirs = imdb.KEEP_FIRST.load("stand-in"), imdb.TORCHTEXT.load("stand-in")
    return all(
        np.array_equal(a.x, b.x)
        for a, b in ((ours.train, theirs.train), (ours.valid, theirs.valid))
    )


def torchtext_reads_tables() -> bool:
    """Whether torchtext still has the classes with which the document prepares its data."""
    import torchtext.data

    names = ("Field", "TabularDataset", "Iterator")
    return all(hasattr(torchtext.data, name) for name in names)


# --- what the document states --------------------------------------------------------------------


def facts(*figures: Figure, trainable: int = 40_625) -> Facts:
    """The net's layer table, and the figures at the end of training."""
    return Facts(
        parameters=40_625,
        trainable=trainable,
        layers=(
            Layer("embedding", "Embedding", (-1, 200, 3), 30_000),
            Layer("conv.conv_1", "Conv1d", (-1, 16, 196), 256),
            Layer("conv.pool_1", "MaxPool1d", (-1, 16, 98), 0),
            Layer("conv.relu_1", "ReLU", (-1, 16, 98), 0),
            Layer("conv.conv_2", "Conv1d", (-1, 128, 97), 4_224),
            Layer("conv.pool_2", "MaxPool1d", (-1, 128, 48), 0),
            Layer("conv.relu_2", "ReLU", (-1, 128, 48), 0),
            Layer("dense.flatten", "Flatten", (-1, 6144), 0),
            Layer("dense.linear", "Linear", (-1, 1), 6_145),
            Layer("dense.sigmoid", "Sigmoid", (-1, 1), 0),
        ),
        sizes=Sizes(input=0.000763, forward_backward=0.287796, parameters=0.154972, total=0.443531),
        state_dict=(
            "embedding.weight",
            "conv.conv_1.weight",
            "conv.conv_1.bias",
            "conv.conv_2.weight",
            "conv.conv_2.bias",
            "dense.linear.weight",
            "dense.linear.bias",
        ),
        output=(20, 1),
        figures=figures,
    )


TWENTY_EPOCHS = Protocol(epochs=20, learning_rate=0.02, batch_size=20, stand_in_epochs=10)
TEN_EPOCHS = Protocol(epochs=10, learning_rate=0.02, batch_size=20, stand_in_epochs=7)

OTHER_REVIEWS = (
    "the document trains on 20,000 others of the 25,000 reviews: they have 108,197 words, "
    "those here 107,744"
)
KEEP_FIRST = facts(
    Figure("val_accuracy", 0.795, real=(0.77, 0.83), stand_in=(0.85, 0.999)),
    Figure("val_loss", 0.506, real=(0.40, 0.65)),
    Figure("accuracy", 0.931, real=(0.88, 0.97)),
    Figure("loss", 0.191, real=(0.10, 0.30), outside_because=OTHER_REVIEWS),
    Figure("val_accuracy", 0.64, real=(0.50, 0.70), epoch=1),
    Figure("val_accuracy", 0.705, real=(0.53, 0.75), epoch=2),
)
KEEP_LAST = facts(
    Figure("val_accuracy", 0.795, real=(0.77, 0.83), stand_in=(0.85, 0.999)),
    Figure("val_loss", 0.464, real=(0.38, 0.55)),
    Figure("accuracy", 0.875, real=(0.82, 0.93)),
    Figure("loss", 0.298, real=(0.22, 0.40), outside_because=OTHER_REVIEWS),
    Figure("val_accuracy", 0.613, real=(0.50, 0.70), epoch=1),
    Figure("val_accuracy", 0.716, real=(0.53, 0.75), epoch=2),
)


def variant(name, steps, facts, build=Net, **changes) -> Variant:
    """One way to read the text and train, always with Adagrad."""
    return Variant(name, steps, facts=facts, build=build, optimizer=torch.optim.Adagrad, **changes)


EXAMPLE = Example(
    name="imdb-cnn",
    title="Film reviews by a convolutional network, two text pipelines",
    document="20-days",
    section="1-3, 4-3, 5-1",
    data=imdb.KEEP_FIRST,
    protocol=TWENTY_EPOCHS,
    loss=nn.BCELoss(),
    metrics={"accuracy": binary_accuracy},
    variants=(
        variant("keep-first", keep_first, KEEP_FIRST, ladder="reviews"),
        variant(
            "torchtext",
            keep_first,
            KEEP_FIRST,
            data=imdb.TORCHTEXT,
            needs="torchtext",
        ),
        variant(
            "keep-last",
            keep_last,
            KEEP_LAST,
            ladder="reviews",
            data=imdb.KEEP_LAST,
            protocol=TEN_EPOCHS,
        ),
        variant("frozen", frozen, facts(trainable=10_625), build=frozen_net, protocol=TEN_EPOCHS),
    ),
    values=(
        Exact("vector of padding after training", vector_of_padding, [0.0, 0.0, 0.0]),
        Exact("a reload evaluates exactly the same", reload_evaluates_the_same, True),
        Exact("children, named, modules, named", parts, (3, 3, 13, 13)),
        Exact("names of the children", names_of_children, ["embedding", "conv", "dense"]),
        Exact(
            "a batch with time first, and turned around",
            shapes_of_a_batch,
            ((200, 20), (20,), (20, 200), (20, 1)),
        ),
        Exact("ids that end a review: one, the empty word's", lambda: len(ends_of_reviews()), 1),
        Exact("word ids as torchtext's", same_ids_as_torchtext, True, needs="torchtext"),
    ),
    errata=(
        Erratum(
            "torchtext's tables",
            says="data.Field, data.TabularDataset and data.Iterator of torchtext prepare the text",
            today="they are gone; a vocabulary of torchtext and a loader of torch do the same",
            since="torchtext>=0.12",
            holds=torchtext_reads_tables,
            needs="torchtext",
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
