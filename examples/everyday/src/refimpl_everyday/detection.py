"""A detection head: is there a square in an image, and where? Dicts as output and target."""

import numpy as np
import torch
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

SIZE = 12


def images():
    """Images (N, 1, 12, 12), half of them with a square; its place (N, 2), in parts of 12."""
    rng = philox("everyday-detection")
    x = 0.1 * rng.standard_normal((96, 1, SIZE, SIZE))
    there = rng.integers(0, 2, 96)
    places = rng.integers(0, SIZE - 3, (96, 2))
    for number in np.flatnonzero(there):
        row, column = places[number]
        x[number, 0, row : row + 3, column : column + 3] += 1
    box = (places / SIZE * there[:, None]).astype(np.float32)
    x, label = x.astype(np.float32), there.astype(np.float32)[:, None]

    def rows(part):
        return Rows(x[part], {"label": label[part], "box": box[part]})

    return Splits(rows(slice(0, 64)), rows(slice(64, None)))


class Detector(nn.Module):
    """A convolution, then two heads."""

    def __init__(self):
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Tanh(), nn.Flatten())
        self.norm = nn.LayerNorm(100)
        self.label, self.box = nn.Linear(100, 1), nn.Linear(100, 2)

    def forward(self, x):
        """Images → a score (N, 1) and a place (N, 2)."""
        seen = self.norm(self.see(x))
        return {"label": self.label(seen), "box": self.box(seen)}


def both(output, target):
    """Cross entropy of the label; squared error of the place, where there is a square."""
    label = nn.functional.binary_cross_entropy_with_logits(output["label"], target["label"])
    off = ((output["box"] - target["box"]) ** 2).sum(dim=1, keepdim=True)
    return label + (off * target["label"]).mean()


EXAMPLE = Example(
    name="everyday-detection",
    title="Is there a square, and where?",
    document="everyday",
    section="detection",
    data=DataSet("everyday-detection", stand_in=images),
    protocol=Protocol(epochs=6, learning_rate=0.01, batch_size=16),
    loss=both,
    variants=(Variant("two-heads", build=Detector, optimizer=torch.optim.Adam),),
    facts=Facts(parameters=543, figures=(Figure("val_loss", None, real=(0, 1)),)),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
