"""Small recipes: early stopping, k-fold, ragged rows, sparse gradients, a stream, frozen layers,
a loop of one's own that follows its protocol, one that changes its gradients, and one with two
optimizers, a scheduler and figures of its own."""

import numpy as np
import torch
from torch import nn

from refimpl import (
    DataSet,
    Epoch,
    Example,
    Facts,
    Figure,
    Protocol,
    Rows,
    Schedule,
    Splits,
    Step,
    Stop,
    Variant,
    hookimpl,
    philox,
)

SGD, MSE = torch.optim.SGD, nn.MSELoss()


def line(fold=0):
    """96 rows (N, 2) near a plane; every third, from row ``fold`` on, is held out."""
    rng = philox("everyday-recipes")
    x = rng.standard_normal((96, 2)).astype(np.float32)
    noise = 0.1 * rng.standard_normal((96, 1)).astype(np.float32)
    y = x @ np.float32([[1.0], [2.0]]) + noise
    held = np.arange(96) % 3 == fold
    return Splits(Rows(x[~held], y[~held]), Rows(x[held], y[held]))


def folds():
    """A data set for each of three folds."""
    return [DataSet(f"fold-{k}", stand_in=lambda k=k: line(k)) for k in range(3)]


def build():
    """2 → 4 → 1."""
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))


def recipe(name, parameters, *variants, **fields):
    """An example of these variants on the plane, unless the fields say otherwise."""
    return Example(
        **{
            "name": f"recipe-{name}",
            "title": name,
            "document": "everyday",
            "section": "recipes",
            "data": DataSet("line", stand_in=line),
            "protocol": Protocol(epochs=6, learning_rate=0.1, batch_size=8),
            "loss": MSE,
            "variants": variants,
            "facts": Facts(parameters, figures=(Figure("loss", None, real=(0, 20)),)),
            **fields,
        }
    )


# --- early stopping, and k-fold ------------------------------------------------------------------

EARLY = recipe(
    "early-stopping",
    17,
    Variant("stops", build=build, optimizer=SGD),
    protocol=Protocol(
        epochs=60, learning_rate=0.1, batch_size=8, stop=Stop("val_loss", patience=2)
    ),
)

K_FOLD = recipe(
    "k-fold",
    17,
    *(Variant(data.name, build=build, optimizer=SGD, data=data) for data in folds()),
)

# --- ragged rows ---------------------------------------------------------------------------------


def bags():
    """Sixty-four bags of one to five words, and the share of words below ten in each (1,)."""
    rng = philox("everyday-bags")
    x = [rng.integers(0, 20, rng.integers(1, 6)) for _ in range(64)]
    return Splits(Rows(x, np.float32([[np.mean(bag < 10)] for bag in x])))


def padded(rows):
    """Bags as one tensor of words (N, longest), with 20 where there is none."""
    words = nn.utils.rnn.pad_sequence([x for x, _ in rows], batch_first=True, padding_value=20)
    return words, torch.stack([y for _, y in rows])


RAGGED = recipe(
    "ragged-rows",
    85,
    Variant(
        "bags",
        build=lambda: nn.Sequential(nn.EmbeddingBag(21, 4, padding_idx=20), nn.Linear(4, 1, False)),
        optimizer=SGD,
        facts=Facts(88, figures=(Figure("loss", None, real=(0, 20)),)),
    ),
    data=DataSet("bags", stand_in=bags),
    collate=padded,
)

# --- sparse gradients ----------------------------------------------------------------------------


def words():
    """Words (N,) and the number (N, 1) that each stands for."""
    x = philox("everyday-words").integers(0, 6, 64)
    return Splits(Rows(x, np.float32(x[:, None] / 6)))


SPARSE = recipe(
    "sparse-gradients",
    6,
    Variant(
        "sparse",
        build=lambda: nn.Embedding(6, 1, sparse=True),
        optimizer=torch.optim.SparseAdam,
    ),
    data=DataSet("words", stand_in=words),
)

# --- a stream ------------------------------------------------------------------------------------


def batches(rng):
    """Ten batches of an endless plane."""
    for _ in range(10):
        x = rng.standard_normal((8, 2))
        yield x, x @ np.array([[1.0], [2.0]])


STREAM = recipe(
    "stream",
    17,
    Variant("streamed", build=build, optimizer=SGD),
    data=DataSet("plane", batches=batches, length=10),
)

# --- frozen layers -------------------------------------------------------------------------------


def half_frozen():
    """The first layer stays as it starts."""
    net = build()
    net[0].requires_grad_(False)
    return net


def last_layer(problem):
    """Only what is not frozen is given to the optimizer."""
    net = problem.load(half_frozen())
    optimizer = problem.resume(SGD(net[2].parameters(), lr=problem.lr))
    for x, y in problem.batches():
        output = net(x)
        loss = MSE(output, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield Step(loss, net, output, y, optimizer)


FROZEN = recipe(
    "frozen-layers",
    17,
    Variant("last-layer", last_layer, build=half_frozen),
    facts=Facts(17, trainable=5, figures=(Figure("loss", None, real=(0, 20)),)),
)


# --- a loop of one's own that accumulates, clips and schedules ------------------------------------


def own_loop(problem):
    """What the protocol states is read from the problem, so that checks can change it."""
    net = problem.load(build())
    optimizer = problem.resume(SGD(net.parameters(), lr=problem.lr))
    for number, batches in enumerate(problem.updates(), start=problem.first_step):
        optimizer.param_groups[0]["lr"] = problem.rate(number)
        optimizer.zero_grad()
        rows, total, outputs = sum(len(x) for x, _ in batches), 0.0, []
        for x, y in batches:
            outputs.append(net(x))
            part = MSE(outputs[-1], y) * (len(x) / rows)
            part.backward()
            total += part.detach()
        nn.utils.clip_grad_norm_(net.parameters(), problem.clip)
        optimizer.step()
        yield Step(total, net, torch.cat(outputs), torch.cat([y for _, y in batches]), optimizer)


OWN_LOOP = recipe(
    "own-loop",
    17,
    Variant("by-epoch", own_loop, build=build),
    protocol=Protocol(6, 0.1, 8, accumulate=2, clip=1.0, schedule=Schedule(lambda n: 0.5**n)),
)

# --- gradients that the loop changes itself ------------------------------------------------------


def by_sign(problem):
    """Only the sign of each gradient is used; the step shows what autograd made."""
    net = problem.load(build())
    optimizer = problem.resume(SGD(net.parameters(), lr=problem.lr))
    for x, y in problem.batches():
        output = net(x)
        loss = MSE(output, y)
        optimizer.zero_grad()
        loss.backward()
        made = {name: p.grad.clone() for name, p in net.named_parameters()}
        for p in net.parameters():
            p.grad.sign_()
        optimizer.step()
        yield Step(loss, net, output, y, optimizer, gradients=made)


SIGNS = recipe(
    "changed-gradients",
    17,
    Variant("by-sign", by_sign, build=build),
    protocol=Protocol(epochs=6, learning_rate=0.01, batch_size=8),
)


# --- one loss for two optimizers, schedulers of torch's, a figure of one's own --------------------


def warm_up(update):
    """The first sixteen updates are made at a rate that grows."""
    return min(1.0, (update + 1) / 16)


def two_halves(problem):
    """Both halves learn from one loss; the run ends where R² gets no better."""
    net = problem.load(build())
    halves = {"first": net[0], "last": net[2]}
    adams = {n: torch.optim.Adam(half.parameters(), lr=problem.lr) for n, half in halves.items()}
    schedules = {n: torch.optim.lr_scheduler.LambdaLR(adam, warm_up) for n, adam in adams.items()}
    adams = {name: problem.resume(adam, name) for name, adam in adams.items()}
    rates = {f"rate of {n}": problem.resume(s, f"rate of {n}") for n, s in schedules.items()}
    update = problem.first_step
    for epoch in problem.epochs():
        for x, y in problem.epoch_batches(epoch):
            for rate in rates.values() if update else ():
                rate.step()
            update += 1
            output = net(x)
            loss = MSE(output, y)
            for adam in adams.values():
                adam.zero_grad()
            loss.backward()
            for adam in adams.values():
                adam.step()
            yield Step(loss, net, output, y, adams, state=rates)
        with torch.no_grad():
            rows = problem.valid
            left = MSE(net(rows.x), rows.y) / rows.y.var(unbiased=False)
        yield Epoch({"val_r2": 1 - left.item()})


TWO_HALVES = recipe(
    "two-halves",
    17,
    Variant("warmed-up", two_halves, build=build),
    protocol=Protocol(
        epochs=30,
        learning_rate=0.05,
        schedule=Schedule(warm_up, per="step"),
        batch_size=8,
        stop=Stop("val_r2", patience=3, higher_is_better=True),
    ),
)

# --- a check that cannot apply -------------------------------------------------------------------


def normal(rng):
    """Two weights and a bias."""
    return {"weight": rng.standard_normal((2, 1)), "bias": rng.standard_normal(1)}


def momentum(problem):
    """Momentum without an optimizer, on new tensors in every step."""
    values, moved = problem.start, problem.resume(None, "moved")
    moved = moved or {name: torch.zeros_like(value) for name, value in values.items()}
    for x, y in problem.batches():
        output = x @ values["weight"] + values["bias"]
        loss = MSE(output, y)
        loss.backward()
        made = {name: value.grad for name, value in values.items()}
        moved = {name: 0.9 * moved[name] + made[name] for name in made}
        values = {
            name: (value.detach() - problem.lr * moved[name]).requires_grad_()
            for name, value in values.items()
        }
        yield Step(
            loss,
            values,
            output,
            y,
            model=lambda x, now=values: x @ now["weight"] + now["bias"],
            gradients=made,
            state={"moved": moved},
        )


EXEMPT = recipe(
    "exempt",
    3,
    Variant(
        "momentum",
        momentum,
        start=normal,
        exempt={"updates-as-stated": "without an optimizer, its learning rate is not seen"},
    ),
    protocol=Protocol(epochs=6, learning_rate=0.01, batch_size=8),
)


@hookimpl
def refimpl_examples():
    """This module's examples."""
    return [EARLY, K_FOLD, RAGGED, SPARSE, STREAM, FROZEN, OWN_LOOP, SIGNS, TWO_HALVES, EXEMPT]
