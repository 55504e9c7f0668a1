"""A generator and a discriminator on points of a line: two losses, two optimizers."""

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
    Step,
    Variant,
    hookimpl,
    philox,
)

LATENT = 4


def points():
    """512 points (N, 1) from N(4, 1.25²)."""
    real = philox("everyday-gan").normal(4, 1.25, (512, 1)).astype(np.float32)
    return Splits(Rows(real, np.ones_like(real)))


class Both(nn.Module):
    """The generator ``g`` and the discriminator ``d``."""

    def __init__(self):
        super().__init__()
        self.g = nn.Sequential(nn.Linear(LATENT, 16), nn.Tanh(), nn.Linear(16, 1))
        self.d = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x):
        """What the discriminator says of points (N, 1)."""
        return self.d(x)


def alternating(problem):
    """One step of the discriminator, one of the generator, on each batch."""
    net, bce = problem.load(Both()), nn.BCEWithLogitsLoss()
    d = problem.resume(torch.optim.Adam(net.d.parameters(), lr=problem.lr, betas=(0.5, 0.99)), "d")
    g = problem.resume(torch.optim.Adam(net.g.parameters(), lr=problem.lr, betas=(0.5, 0.99)), "g")
    for real, ones in problem.batches():
        noise = problem.tensor(problem.draws().standard_normal((len(real), LATENT)))
        fake, output = net.g(noise), net.d(real)
        d.zero_grad()
        loss_d = bce(output, ones) + bce(net.d(fake.detach()), torch.zeros_like(ones))
        loss_d.backward()
        d.step()
        g.zero_grad()
        loss_g = bce(net.d(fake), ones)
        loss_g.backward()
        g.step()
        yield Step({"d": loss_d, "g": loss_g}, net, output, ones, {"d": d, "g": g})


EXAMPLE = Example(
    name="everyday-gan",
    title="A GAN on a line",
    document="everyday",
    section="gan",
    data=DataSet("everyday-gan", stand_in=points),
    protocol=Protocol(epochs=5, learning_rate=0.002, batch_size=64),
    loss=nn.BCEWithLogitsLoss(),
    variants=(
        Variant(
            "alternating",
            alternating,
            build=Both,
            data_parallel=False,  # the noise is that of the whole batch
        ),
    ),
    facts=Facts(parameters=146, output=(64, 1), figures=(Figure("loss_g", None, real=(0.2, 3)),)),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
