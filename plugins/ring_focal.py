"""Few positives among many negatives: focal loss, and L1 and L2 penalties on the weights.

Of 6,200 points 200 are positive, so always answering "negative" is right 96.8 % of the time. With
focal loss, the more certain the classifier already is of a point, the less the point counts: the
cross entropy of a point whose true class is given probability p is multiplied by α·(1 − p)². The
penalties pull weights towards zero, L2 in proportion to their size and L1 at a constant rate;
biases are not penalised.

The example shows that accuracy says little here, so recall and the area under the ROC curve are
needed too; that a loss may depend on the parameters and not only on the output; and that an
optimizer's ``weight_decay`` is a shorthand for the L2 penalty.

Source: 20-days, chapter 5-3.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refimpl import (
    Epoch,
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
)
from refimpl.fixtures import ring
from refimpl.metrics import binary_accuracy, recall, roc_auc

ALPHA, GAMMA = 0.75, 2.0
L1_STRENGTH, L2_STRENGTH = 0.001, 0.001


class Net(nn.Module):
    """2 → 4 → 8 → 1, with ReLU between and a probability at the end."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(2, 4)
        self.fc2 = nn.Linear(4, 8)
        self.fc3 = nn.Linear(8, 1)

    def forward(self, x):  # (N, 2)
        x = torch.relu(self.fc1(x))  # (N, 4)
        x = torch.relu(self.fc2(x))  # (N, 8)
        return torch.sigmoid(self.fc3(x))  # (N, 1)


# --- the loss ------------------------------------------------------------------------------------


class FocalLoss(nn.Module):
    """Mean of α_t·(1 − p_t)^γ·BCE, where p_t is the probability given to the true class.

    ``alpha`` is the weight of positives, 1 − ``alpha`` that of negatives; the larger ``gamma``,
    the less the easy points count.
    """

    def __init__(self, gamma=GAMMA, alpha=ALPHA):
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, p, y):  # (N, 1), (N, 1) -> ()
        bce = F.binary_cross_entropy(p, y, reduction="none")  # (N, 1)
        p_t = y * p + (1 - y) * (1 - p)
        alpha_t = y * self.alpha + (1 - y) * (1 - self.alpha)
        return (alpha_t * (1 - p_t) ** self.gamma * bce).mean()


def weights_of(net: nn.Module) -> list[Tensor]:
    """The parameters that are penalised: all but the biases."""
    return [p for name, p in net.named_parameters() if not name.endswith("bias")]


def biases_of(net: nn.Module) -> list[Tensor]:
    """The parameters that are not penalised."""
    return [p for name, p in net.named_parameters() if name.endswith("bias")]


def l2_penalty(net: nn.Module, strength: float) -> Tensor:
    """½·β·Σw², whose derivative is β·w."""
    return 0.5 * strength * sum((w**2).sum() for w in weights_of(net))


def l1_penalty(net: nn.Module, strength: float) -> Tensor:
    """β·Σ|w|, whose derivative is β·sign(w)."""
    return strength * sum(w.abs().sum() for w in weights_of(net))


# --- training ------------------------------------------------------------------------------------


def focal(problem):
    """The class style; the objective depends on the net's weights as well as on its output."""
    net = problem.load(Net())
    focal_loss = FocalLoss()

    def objective(p, y):
        return focal_loss(p, y) + l2_penalty(net, L2_STRENGTH) + l1_penalty(net, L1_STRENGTH)

    optimizer = problem.resume(torch.optim.Adam(net.parameters(), lr=problem.lr))
    model = Model(net)
    model.compile(objective, optimizer, {"accuracy": binary_accuracy})
    x, y = problem.valid.x, problem.valid.y
    for epoch in problem.epochs():
        yield from model.steps(problem.epoch_batches(epoch))
        figures = model.evaluate(problem.valid_batches())
        # A batch of 100 has only about three positives, so these two are computed on all rows.
        p = model.predict([x])
        found = {"val_recall": float(recall(p, y)), "val_auc": float(roc_auc(p, y))}
        yield Epoch({**figures, **found})


def objective_again(final):
    """The validation objective a second time: p_t is the probability of the true class."""
    x, y = final.valid.x, final.valid.y
    p_t = np.where(y == 1, final.predict(x), 1 - final.predict(x)).astype(np.float64)
    losses = np.where(y == 1, ALPHA, 1 - ALPHA) * (1 - p_t) ** GAMMA * -np.log(p_t)
    weights = np.concatenate([w.ravel() for w in final.parameters.values() if w.ndim == 2])
    penalty = L2_STRENGTH / 2 * (weights**2).sum() + L1_STRENGTH * abs(weights).sum()
    batches = np.split(losses, range(100, len(x), 100))
    return {"val_loss": np.mean([batch.mean() for batch in batches]) + penalty}


# --- exact values --------------------------------------------------------------------------------

HARD = torch.tensor([[0.5], [0.5]]), torch.tensor([[1.0], [0.0]])
EASY = torch.tensor([[0.9], [0.1]]), torch.tensor([[1.0], [0.0]])


def focal_and_plain(pair: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Focal loss and cross entropy of a pair of points."""
    return FocalLoss()(*pair).item(), F.binary_cross_entropy(*pair).item()


def shares_left() -> list[float]:
    """Focal loss divided by cross entropy: for the hard pair, and for the easy one."""
    return [loss / bce for loss, bce in map(focal_and_plain, (HARD, EASY))]


def shares_left_of_printed() -> list[float]:
    """The same from figures first rounded to four digits."""
    pairs = map(focal_and_plain, (HARD, EASY))
    return [round(loss, 4) / round(bce, 4) for loss, bce in pairs]


SCORES, CLASSES = torch.tensor([[10.0, 0.0, -10.0], [8.0, 8.0, 8.0]]), torch.tensor([0, 2])


def cross_entropy() -> Tensor:
    """Mean cross entropy of one confident, correct answer and one with equal scores."""
    return F.cross_entropy(SCORES, CLASSES)


def cross_entropy_in_two_layers() -> Tensor:
    """The same by log-softmax and negative log-likelihood."""
    return nn.NLLLoss()(nn.LogSoftmax(dim=1)(SCORES), CLASSES)


def penalties() -> list[float]:
    """L2 and L1 penalty of a net whose 48 weights are all 2 and whose biases are all 5."""
    net = Net().double()
    with torch.no_grad():
        for w in weights_of(net):
            w.fill_(2)
        for b in biases_of(net):
            b.fill_(5)
    return [l2_penalty(net, L2_STRENGTH).item(), l1_penalty(net, L1_STRENGTH).item()]


def sgd_steps(decay_in_optimizer: bool, steps: int = 20) -> list[Tensor]:
    """Parameters after SGD with weight decay, done by the optimizer or as a penalty in the loss."""
    lr, strength = 0.1, 0.01
    net = Net().double()
    numbers = torch.linspace(-1, 1, 61, dtype=torch.float64)
    nn.utils.vector_to_parameters(numbers, net.parameters())
    if decay_in_optimizer:
        groups = [
            {"params": weights_of(net), "weight_decay": strength},
            {"params": biases_of(net), "weight_decay": 0.0},
        ]
        optimizer = torch.optim.SGD(groups, lr=lr)
    else:
        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    rows = ring.UNBALANCED_RING.load("stand-in").train
    x = torch.tensor(rows.x[:100], dtype=torch.float64)
    y = torch.tensor(rows.y[:100], dtype=torch.float64)
    for _ in range(steps):
        loss = F.binary_cross_entropy(net(x), y)
        if not decay_in_optimizer:
            loss = loss + l2_penalty(net, strength)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach() for p in net.parameters()]


def furthest_apart() -> float:
    """The largest difference between the two ways of decay in any parameter."""
    pairs = zip(sgd_steps(True), sgd_steps(False), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def decayed_step() -> list[float]:
    """One step from w = 2 with gradient 3, lr 0.1 and β 0.5; then the same without decay."""
    w, b = (torch.tensor(2.0, dtype=torch.float64, requires_grad=True) for _ in range(2))
    w.grad, b.grad = (torch.tensor(3.0, dtype=torch.float64) for _ in range(2))
    groups = [{"params": [w], "weight_decay": 0.5}, {"params": [b]}]
    torch.optim.SGD(groups, lr=0.1).step()
    return [w.item(), b.item()]


def momentum_of_groups() -> list[float]:
    """What each group of parameters takes over from the optimizer's defaults."""
    net = Net()
    groups = [
        {"params": weights_of(net), "weight_decay": 1e-5},
        {"params": biases_of(net), "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=1e-2, momentum=0.9)
    return [group["momentum"] for group in optimizer.param_groups]


def always_negative() -> list[float]:
    """Accuracy and recall of answering "negative" for all points."""
    splits = ring.UNBALANCED_RING.load("stand-in")
    y = torch.cat([torch.tensor(splits.train.y), torch.tensor(splits.valid.y)])
    p = torch.zeros_like(y)
    return [binary_accuracy(p, y).mean().item(), recall(p, y).item()]


def ratios_are_as_printed() -> bool:
    """Whether the ratios of focal loss to cross entropy are those that the document prints."""
    hard, easy = shares_left()
    return round(hard, 5) == 0.12496 and round(easy, 5) == 0.00474


# --- what the document states --------------------------------------------------------------------

OTHER_POINTS = (
    "the document draws its points without a seed; of thirty other draws, none ends below 0.0172"
)

EXAMPLE = Example(
    name="ring-focal",
    title="Focal loss and L1/L2 penalties on an unbalanced ring",
    document="20-days",
    section="5-3",
    data=ring.UNBALANCED_RING,
    protocol=Protocol(epochs=30, learning_rate=0.01, batch_size=100),
    loss=FocalLoss(),
    metrics={"accuracy": binary_accuracy},
    # One start in four gets stuck at "always negative", which L1 makes stable; seed 0 is one.
    variants=(Variant("focal", focal, build=Net, seed=1, recompute=objective_again),),
    facts=Facts(
        parameters=61,
        layers=(
            Layer("fc1", "Linear", (-1, 4), 12),
            Layer("fc2", "Linear", (-1, 8), 40),
            Layer("fc3", "Linear", (-1, 1), 9),
        ),
        sizes=Sizes(input=0.000008, forward_backward=0.000099, parameters=0.000233, total=0.000340),
        state_dict=(
            "fc1.weight",
            "fc1.bias",
            "fc2.weight",
            "fc2.bias",
            "fc3.weight",
            "fc3.bias",
        ),
        output=(100, 1),
        figures=(
            Figure("loss", 0.016, real=(0.015, 0.0198), outside_because=OTHER_POINTS),
            Figure("accuracy", 0.981, real=(0.975, 0.988)),
            Figure("val_loss", 0.017, real=(0.015, 0.0205)),
            Figure("val_accuracy", 0.983, real=(0.975, 0.99)),
            Figure("loss", 0.022, real=(0.018, 0.06), epoch=1),
            Figure("accuracy", 0.971, real=(0.7, 0.98), epoch=1),
            Figure("val_loss", 0.025, real=(0.02, 0.04), epoch=1),
            Figure("val_accuracy", 0.96, real=(0.95, 0.975), epoch=1),
            Figure("loss", 0.021, real=(0.018, 0.07), epoch=1, step=30),
            Figure("accuracy", 0.972, real=(0.6, 0.98), epoch=1, step=30),
            # The mean of the 14 of 20 runs that are not stuck ± 2.5 spreads.
            Figure(
                "loss",
                0.016,
                real=(0.0166, 0.0188),
                epoch=30,
                step=30,
                outside_because=OTHER_POINTS,
            ),
            Figure("accuracy", 0.984, real=(0.977, 0.985), epoch=30, step=30),
            Figure("val_recall", None, real=(0.25, 0.75)),
            Figure("val_auc", None, real=(0.95, 0.99)),
        ),
    ),
    values=(
        Exact(
            "hard pair: focal loss, BCE", lambda: focal_and_plain(HARD), (0.0866, 0.6931), digits=4
        ),
        Exact(
            "easy pair: focal loss, BCE", lambda: focal_and_plain(EASY), (0.0005, 0.1054), digits=4
        ),
        Exact("share of BCE left to both pairs", shares_left, [0.125, 0.005], digits=6),
        Exact(
            "the same from printed figures", shares_left_of_printed, [0.12496, 0.00474], digits=4
        ),
        Exact("cross entropy", cross_entropy, 0.5493, digits=4),
        Exact("LogSoftmax and NLLLoss", cross_entropy_in_two_layers, 0.5493, digits=4),
        Exact("L2 and L1 leave the biases out", penalties, [0.096, 0.096]),
        Exact("weight_decay against L2 in the loss", furthest_apart, 0.0, digits=12),
        Exact("(1 − lr·β)·w − lr·gradient, in one group of two", decayed_step, [1.6, 1.7]),
        Exact("momentum of both groups of SGD", momentum_of_groups, [0.9, 0.9]),
        Exact("always negative: accuracy, recall", always_negative, [0.968, 0.0], digits=3),
    ),
    errata=(
        Erratum(
            "ratios of focal loss to cross entropy",
            says="0.12496 of the cross entropy is left of the hard pair, 0.00474 of the easy one",
            today="0.125 and 0.005: the document divided figures that it had rounded",
            since="torch>=1.5",
            holds=ratios_are_as_printed,
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
