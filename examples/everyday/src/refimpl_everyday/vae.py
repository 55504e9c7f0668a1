"""A variational autoencoder: a tuple as output, a loss of two terms, noise in the loop."""

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

LATENT = 2


def rows():
    """128 rows (N, 6) of mixtures of two waves, in (0, 1); each is its own target."""
    phase = philox("everyday-vae").uniform(0, np.pi, (128, 2))
    x = 0.5 + 0.25 * (np.sin(phase[:, :1] + np.arange(6)) + np.cos(phase[:, 1:] * np.arange(6)))
    x = x.astype(np.float32)
    return Splits(Rows(x[:96], x[:96]), Rows(x[96:], x[96:]))


class Autoencoder(nn.Module):
    """6 → a mean and a variance for each of 2 → 6."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(6, 2 * LATENT)
        self.decode = nn.Linear(LATENT, 6)

    def forward(self, x, noise=0.0):
        """Reconstruction (N, 6), mean and log variance (N, 2); without noise, of the mean."""
        mean, log_variance = self.encode(x).chunk(2, dim=1)
        code = mean + noise * torch.exp(0.5 * log_variance)
        return torch.sigmoid(self.decode(code)), mean, log_variance


def negative_elbo(output, target):
    """Squared error of the reconstruction, and the divergence of the code from N(0, 1)."""
    made, mean, log_variance = output
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(dim=1)
    return ((made - target) ** 2).sum(dim=1).mean() + 0.1 * divergence.mean()


def sampled(problem):
    """The code of each row is drawn around its mean."""
    net = problem.load(Autoencoder())
    optimizer = problem.resume(torch.optim.Adam(net.parameters(), lr=problem.lr))
    for x, y in problem.batches():
        noise = problem.tensor(problem.draws().standard_normal((len(x), LATENT)))
        output = net(x, noise)
        loss = negative_elbo(output, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield Step(loss, net, output, y, optimizer)


EXAMPLE = Example(
    name="everyday-vae",
    title="A variational autoencoder",
    document="everyday",
    section="vae",
    data=DataSet("everyday-vae", stand_in=rows),
    protocol=Protocol(epochs=10, learning_rate=0.01, batch_size=16),
    loss=negative_elbo,
    variants=(
        Variant(
            "sampled",
            sampled,
            build=Autoencoder,
            data_parallel=False,  # the noise is that of the whole batch
        ),
    ),
    facts=Facts(parameters=46, output=(16, 6), figures=(Figure("val_loss", None, real=(0, 1)),)),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
