"""A small transformer: warm-up, clipping, and an embedding tied to the output layer."""

import torch
from torch import nn

from refimpl import (
    DataSet,
    Example,
    Facts,
    Figure,
    Protocol,
    Rows,
    Schedule,
    Splits,
    Variant,
    hookimpl,
    philox,
)

WORDS, LENGTH, WIDTH = 10, 6, 16


def sequences():
    """Sequences (N, 6) of words; the target is each sequence backwards."""
    x = philox("everyday-transformer").integers(0, WORDS, (96, LENGTH))
    y = x[:, ::-1].copy()
    return Splits(Rows(x[:64], y[:64]), Rows(x[64:], y[64:]))


class Net(nn.Module):
    """Words (N, T) → scores (N, words, T); the output layer has the embedding's weights."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.position = nn.Embedding(LENGTH, WIDTH)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(WIDTH, WORDS)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        """Every position sees all others."""
        at = torch.arange(x.shape[1], device=x.device)
        seen = self.layer(self.embedding(x) + self.position(at))
        return self.head(seen).transpose(1, 2)


def warm_up(update):
    """Up over the first eight updates, then down with the square root."""
    return min((update + 1) / 8, (8 / (update + 1)) ** 0.5)


EXAMPLE = Example(
    name="everyday-transformer",
    title="A transformer that reads backwards",
    document="everyday",
    section="transformer",
    data=DataSet("everyday-transformer", stand_in=sequences),
    protocol=Protocol(
        epochs=8,
        learning_rate=0.01,
        batch_size=16,
        clip=1.0,
        schedule=Schedule(warm_up, per="step"),
    ),
    loss=nn.CrossEntropyLoss(),
    variants=(Variant("encoder", build=Net, optimizer=torch.optim.Adam),),
    facts=Facts(
        parameters=2490, output=(16, 10, 6), figures=(Figure("val_loss", None, real=(0.5, 3)),)
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
