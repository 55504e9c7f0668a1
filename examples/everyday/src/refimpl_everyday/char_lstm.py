"""A language model by characters: hidden state carried over batches, clipping, a schedule."""

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
    Schedule,
    Splits,
    Step,
    Variant,
    hookimpl,
    philox,
)

LETTERS, LENGTH, STREAMS, CHUNKS = 12, 8, 4, 10


def text():
    """Four texts side by side, in chunks of eight letters: x and y are (40, 8)."""
    steps = philox("everyday-char-lstm").integers(1, 3, STREAMS * CHUNKS * LENGTH + 1)
    letters = np.cumsum(steps) % LETTERS

    def chunks(of):
        side_by_side = of.reshape(STREAMS, CHUNKS, LENGTH).transpose(1, 0, 2)
        return side_by_side.reshape(-1, LENGTH).astype(np.int64)

    return Splits(Rows(chunks(letters[:-1]), chunks(letters[1:])))


class Net(nn.Module):
    """Letters (N, T) → scores of the next one (N, letters, T), and the hidden state."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, 8)
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, LETTERS)

    def forward(self, x, state=None):
        """Without a state, that of the beginning of a text."""
        seen, state = self.lstm(self.embedding(x), state)
        return self.head(seen).transpose(1, 2), state


def carried(problem):
    """The state at the end of a chunk is that at the beginning of the next one."""
    net, entropy = problem.load(Net()), nn.CrossEntropyLoss()
    optimizer = problem.resume(torch.optim.SGD(net.parameters(), lr=problem.lr, momentum=0.9))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    schedule = problem.resume(schedule, "schedule")
    state = problem.resume(None, "state")
    done = problem.first_step % problem.steps_per_epoch
    for epoch in problem.epochs():
        if not done:
            state = None
            if epoch:
                schedule.step()
        for x, y in problem.epoch_batches(epoch):
            output, state = net(x, state)
            state = tuple(part.detach() for part in state)
            loss = entropy(output, y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), problem.clip)
            optimizer.step()
            yield Step(loss, net, output, y, optimizer, model=lambda x: net(x)[0],
                       state={"schedule": schedule, "state": state})  # fmt: skip
        done = 0


EXAMPLE = Example(
    name="everyday-char-lstm",
    title="A language model by characters",
    document="everyday",
    section="char-lstm",
    data=DataSet("everyday-char-lstm", stand_in=text),
    protocol=Protocol(
        epochs=6,
        learning_rate=0.5,
        batch_size=STREAMS,
        shuffle=False,
        clip=0.25,
        schedule=Schedule(lambda epoch: 0.5 ** (epoch // 2)),
    ),
    loss=nn.CrossEntropyLoss(),
    variants=(Variant("carried", carried, build=Net),),
    facts=Facts(
        parameters=1964, output=(4, 12, 8), figures=(Figure("loss", None, real=(0.5, 2.4)),)
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
