"""A Siamese net: do two handwritten digits show the same number? Two inputs, accumulation."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from refimpl import (
    DataSet,
    Example,
    Facts,
    Figure,
    Protocol,
    Rows,
    Splits,
    Variant,
    hookimpl,
    philox,
)


def pairs():
    """Pairs of digits, each (N, 64), and 1 where both show the same number, (N, 1)."""
    digits, rng = load_digits(), philox("everyday-siamese")
    images, numbers = (digits.data / 16).astype(np.float32), digits.target
    one = rng.permutation(len(images))[:200]
    same = [rng.choice(np.flatnonzero(numbers == numbers[i])) for i in one[:100]]
    other = np.concatenate([same, rng.integers(0, len(images), 100)])
    alike = (numbers[one] == numbers[other])[:, None].astype(np.float32)
    mixed = rng.permutation(200)
    first, second, y = images[one[mixed]], images[other[mixed]], alike[mixed]
    train = Rows((first[:160], second[:160]), y[:160])
    return Splits(train, Rows((first[160:], second[160:]), y[160:]))


class Siamese(nn.Module):
    """The same net sees both; their distance decides."""

    def __init__(self):
        super().__init__()
        self.seen = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 8, bias=False))
        self.decide = nn.Linear(8, 1)

    def forward(self, one, other):
        """(N, 64) twice → a score (N, 1)."""
        return self.decide((self.seen(one) - self.seen(other)) ** 2)


EXAMPLE = Example(
    name="everyday-siamese",
    title="Do two digits show the same number?",
    document="everyday",
    section="siamese",
    data=DataSet("everyday-siamese", stand_in=pairs),
    protocol=Protocol(epochs=5, learning_rate=0.01, batch_size=16, accumulate=2),
    loss=nn.BCEWithLogitsLoss(),
    variants=(Variant("siamese", build=Siamese, optimizer=torch.optim.Adam),),
    facts=Facts(parameters=1177, output=(32, 1), figures=(Figure("val_loss", None, real=(0, 1)),)),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
