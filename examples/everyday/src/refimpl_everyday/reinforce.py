"""REINFORCE in a corridor: an environment instead of rows."""

import numpy as np
import torch
from torch import nn

from refimpl import DataSet, Example, Facts, Figure, Protocol, Step, Variant, hookimpl

EPISODES, STEPS = 12, 8


class Corridor:
    """Five places in a row; the last one is the goal. Each step costs, the goal pays."""

    def __init__(self, rng):
        self.rng, self.place = rng, 0

    def step(self, right):
        """Go right or left; a tenth of the steps slip. Gives the place, the reward, and the end."""
        slips = self.rng.random() < 0.1
        self.place = max(0, self.place + (1 if right != slips else -1))
        return self.place, (1.0 if self.place == 4 else -0.1), self.place == 4


def episodes(rng):
    """A corridor for each episode of an epoch, with draws of its own: a run may begin at any."""
    for seed in rng.integers(2**32, size=EPISODES):
        yield Corridor(np.random.default_rng(seed)), None


def policy():
    """Place (1, 5) → scores of left and right (1, 2)."""
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))


def reinforce(problem):
    """An episode by the policy, then one update by what it earned."""
    net = problem.load(policy())
    optimizer = problem.resume(torch.optim.Adam(net.parameters(), lr=problem.lr))
    places = torch.eye(5, dtype=problem.dtype, device=problem.device)
    for corridor, _ in problem.batches():
        rng, place, chosen, rewards = problem.draws(), 0, [], []
        for _ in range(STEPS):
            scores = net(places[place : place + 1]).log_softmax(dim=1)
            right = int(rng.random() < float(scores[0, 1].detach().exp()))
            place, reward, ended = corridor.step(bool(right))
            chosen.append(scores[0, right])
            rewards.append(reward)
            if ended:
                break
        earned = problem.tensor([sum(rewards[t:]) for t in range(len(rewards))])
        loss = -(torch.stack(chosen) * earned).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield Step(loss, net, optimizer=optimizer, model=lambda corridor: net(places))


EXAMPLE = Example(
    name="everyday-reinforce",
    title="REINFORCE in a corridor",
    document="everyday",
    section="reinforce",
    data=DataSet("corridor", batches=episodes, length=EPISODES),
    protocol=Protocol(epochs=4, learning_rate=0.02),
    variants=(
        Variant(
            "reinforce",
            reinforce,
            build=policy,
            data_parallel=False,  # an episode cannot be split
        ),
    ),
    facts=Facts(parameters=66, figures=(Figure("loss", None, real=(-10, 10)),)),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
