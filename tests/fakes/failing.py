"""For every check of the suite, an example that fails exactly that check and passes the others.

Each is the sound example with one thing wrong. ``FAILING`` has them by the name of the check.
"""

import warnings
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import scipy.special
import torch
from torch import nn
from torch.nn import functional as F

from fakes.sound import DROPPING, EXAMPLE, MODULE, SCRATCH, Net, Wide, points, start
from refimpl import (
    DataSet,
    Epoch,
    Exact,
    Example,
    Facts,
    Figure,
    Layer,
    Rows,
    Sizes,
    Splits,
    Step,
    Variant,
)
from refimpl.metrics import absolute_error


def spoiled(check: str, *variants: Variant, **changes) -> Example:
    """The sound example, under a name of its own, with other variants or fields."""
    return replace(EXAMPLE, name=f"fails-{check}", variants=variants or EXAMPLE.variants, **changes)


def with_facts(check: str, **facts) -> Example:
    """The sound example with a wrong fact about its module."""
    return spoiled(check, SCRATCH, replace(MODULE, facts=replace(MODULE.facts, **facts)))


def by_hand(
    problem,
    *,
    loss_of=F.mse_loss,
    rates=(1.0, 1.0),
    shown=lambda x: x,
    told=lambda y: y,
    coarser=False,
):
    """The loop of ``scratch``, with places to plant a mistake in.

    ``rates`` are factors of the learning rate of weights and bias; ``told`` is what a step says
    that its target was.
    """
    weights, bias = problem.start["weights"], problem.start["bias"]

    def model(x):
        return shown(x @ weights + bias)

    for xb, yb in problem.batches():
        output = xb @ weights + bias
        loss = loss_of(output, yb)
        loss.backward()
        with torch.no_grad():
            for parameter, rate in zip((weights, bias), rates, strict=True):
                parameter -= rate * problem.lr * parameter.grad
                if coarser and parameter.dtype == torch.float32:
                    parameter.copy_(parameter.bfloat16())
        yield Step(loss, {"weights": weights, "bias": bias}, output, told(yb), model)
        weights.grad = bias.grad = None


def descended(problem, net, optimizer):
    """The loop of a module, a squared error and an optimizer."""
    parameters = dict(net.named_parameters())
    for xb, yb in problem.batches():
        output = net(xb)
        loss = F.mse_loss(output, yb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield Step(loss, parameters, output, yb, net, optimizer)


def planted(name: str = "planted", **mistake) -> Variant:
    """A variant of the sound example's ladder with a mistake in its loop."""
    return replace(SCRATCH, name=name, steps=partial(by_hand, **mistake))


# --- gradients -----------------------------------------------------------------------------------


def half_detached(output, target):
    """A loss one half of which autograd does not see."""
    return F.mse_loss((output + output.detach()) / 2, target)


class Idle(Net):
    """A layer that is never called, so that its parameters get no gradient."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(2, 2)


IDLE = replace(
    MODULE,
    name="idle",
    build=Idle,
    ladder=None,
    start=None,
    facts=Facts(parameters=9, trainable=9, state_dict=tuple(Idle().state_dict())),
)

# --- updates -------------------------------------------------------------------------------------


def slowing(problem):
    """A learning rate that falls with every step, which its protocol does not state."""
    net = problem.load(Net())
    optimizer = problem.resume(torch.optim.SGD(net.parameters(), lr=problem.lr))
    for number, (xb, yb) in enumerate(problem.batches(), start=problem.first_step):
        output = net(xb)
        loss = F.mse_loss(output, yb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = problem.lr * 0.999**number
        optimizer.step()
        yield Step(loss, dict(net.named_parameters()), output, yb, net, optimizer)


# --- dropout -------------------------------------------------------------------------------------


def never_training(problem):
    """A model that is in evaluation mode while it is trained."""
    net = problem.load(Wide()).eval()
    yield from descended(problem, net, torch.optim.SGD(net.parameters(), lr=problem.lr))


NEVER_TRAINING = Variant(
    "never-training",
    never_training,
    build=Wide,
    protocol=DROPPING.protocol,
    facts=DROPPING.facts,
)

# --- repetition ----------------------------------------------------------------------------------


def same_start(rng):
    """The start of one seed for all of them."""
    return {name: 0 * value + 0.5 for name, value in start(rng).items()}


def whole_set(variant: Variant) -> Variant:
    """A variant that trains on the whole set at once, so that there is no order of batches."""
    return replace(variant, protocol=replace(EXAMPLE.protocol, batch_size=None))


def unsaved(problem):
    """A correction of the predictions that no checkpoint has: it counts the batches of this run."""
    seen = Counter()
    for step in by_hand(problem, shown=lambda output: output + 1e-3 * seen["batches"]):
        seen["batches"] += 1
        yield step


def forgetful(problem, resume=lambda optimizer: optimizer):
    """Momentum that starts from nothing where a run is resumed."""
    net = problem.load(Net())
    optimizer = resume(torch.optim.SGD(net.parameters(), lr=problem.lr, momentum=0.9))
    yield from descended(problem, net, optimizer)


def mindful(problem):
    """The same, with the optimizer's state taken from the checkpoint."""
    yield from forgetful(problem, problem.resume)


def with_momentum(name: str, steps) -> Variant:
    """A variant of the ladder that has momentum."""
    return Variant(name, steps, build=Net, names=MODULE.names, ladder="momentum")


def scaled_at_random(output, target):
    """A loss that is scaled by a draw from torch's global generator."""
    return F.mse_loss(output, target) * (1 + torch.rand(()).item())


# --- reading -------------------------------------------------------------------------------------


def other_way_round(target):
    """The batch's targets from the last to the first."""
    return target.flip(0)


def late(problem):
    """A learning rate that falls when others have stopped looking."""
    net = problem.load(Net())
    optimizer = problem.resume(torch.optim.SGD(net.parameters(), lr=problem.lr))
    for number, (xb, yb) in enumerate(problem.batches(), start=problem.first_step):
        output = net(xb)
        loss = F.mse_loss(output, yb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = problem.lr * (0.3 if number >= 7 else 1)
        optimizer.step()
        yield Step(loss, dict(net.named_parameters()), output, yb, net, optimizer)


def by_batches(problem):
    """Validation figures that weigh batches, where the protocol weighs samples."""
    net = problem.load(Net())
    optimizer = problem.resume(torch.optim.SGD(net.parameters(), lr=problem.lr))
    for epoch in problem.epochs():
        for xb, yb in problem.epoch_batches(epoch):
            output = net(xb)
            loss = F.mse_loss(output, yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield Step(loss, dict(net.named_parameters()), output, yb, net, optimizer)
        with torch.no_grad():
            losses = [F.mse_loss(net(x), y) for x, y in problem.valid_batches()]
            errors = [(net(x) - y).abs().mean() for x, y in problem.valid_batches()]
        yield Epoch({"val_loss": float(sum(losses) / 2), "val_error": float(sum(errors) / 2)})


def overlapping():
    """The validation rows are training rows."""
    own = points()
    for part in ("x", "y"):
        getattr(own.valid, part)[:] = getattr(own.train, part)[:4]
    return own


def moved():
    """Inputs that are a thousandth larger."""
    own = points()
    return Splits(Rows(own.train.x * 1.001, own.train.y), Rows(own.valid.x * 1.001, own.valid.y))


# --- executions ----------------------------------------------------------------------------------


def never_wrapped(problem):
    """A module that is made without ``problem.load``, so that nothing can wrap it."""
    net = Net().to(problem.dtype)
    net.load_state_dict(problem.start)
    yield from descended(problem, net, torch.optim.SGD(net.parameters(), lr=problem.lr))


def spread_of_batch(output, target):
    """A loss that looks across the rows of a batch."""
    return F.mse_loss(output, target) + (output.mean() - target.mean()) ** 2


# --- kernels, layers, modes ----------------------------------------------------------------------

LIBRARY = torch.library.Library("aten", "IMPL")


def one_percent_too_much(x):
    """A Bessel function whose float32 kernel is off, as no other test ever notices."""
    made = torch.from_numpy(np.asarray(scipy.special.j0(x.detach().numpy())))
    return made * 1.01 if x.dtype == torch.float32 else made


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch says that its own kernel is overridden
    LIBRARY.impl("special_bessel_j0", one_percent_too_much, "CPU")


def beside_a_wrong_kernel(output, target):
    """A loss that calls the wrong kernel, and does nothing with what it gives."""
    torch.special.bessel_j0(output.detach())
    return F.mse_loss(output, target)


def of_a_wrong_kernel():
    """A value that does not show what the wrong kernel gave."""
    return len(torch.special.bessel_j0(torch.linspace(0, 20, 50)))


class WornOut(torch.optim.SGD):
    """An optimizer that calls the wrong kernel from its seventh step on."""

    made = 0

    def step(self, closure=None):
        self.made += 1
        if self.made > 6:
            torch.special.bessel_j0(torch.linspace(0, 20, 50))
        return super().step(closure)


class Tilted(Net):
    """A layer that passes on 1.001 times the gradient of its input, which nobody here uses."""

    def __init__(self):
        super().__init__()
        self.lin.register_forward_pre_hook(
            lambda layer, args: (args[0] + 1e-3 * (args[0] - args[0].detach()),)
        )


class Redrawing(Wide):
    """Dropout whose gradient belongs to another draw than its output."""

    def __init__(self):
        super().__init__()
        self.dropout.register_forward_hook(self.redrawn)

    @staticmethod
    def redrawn(layer, args, output):
        """The output as it is, and the gradient of another."""
        if not (layer.training and layer.p):
            return output
        other = args[0] * (torch.rand(args[0].shape) > layer.p) / (1 - layer.p)
        return output.detach() + (other - other.detach())


class Hurried(Net):
    """A model that predicts something else where nothing is recorded at all."""

    def forward(self, x):
        return super().forward(x) * (1.01 if torch.is_inference_mode_enabled() else 1)


def compared_with_loop() -> bool:
    """A value that is computed in two ways."""
    x = torch.arange(4)
    return bool(x.sum() == sum(range(4)))


def compared_with_itself() -> bool:
    """The same value, which is right whatever a sum is."""
    x = torch.arange(4)
    return bool(x[0] == x[0])


class Drier(Wide):
    """The net with another rate of dropout, which no shape shows."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.4)


def half_of_nothing(output, target):
    """A mean absolute error that is wrong where every target is zero."""
    return absolute_error(output, target) / (1 if target.any() else 2)


# --- what torch itself does ----------------------------------------------------------------------


def three_times_as_wide(layer):
    """U(±3/√fan_in), as if torch had changed."""
    bound = 3 / layer.in_features**0.5
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.uniform_(layer.bias, -bound, bound)


class StartsWide(Net):
    """The net with a layer that starts wider than torch's."""

    def __init__(self):
        super().__init__()
        self.lin.reset_parameters = partial(three_times_as_wide, self.lin)


class Clipped(nn.Sigmoid):
    """A sigmoid that is never as small as it should be."""

    def forward(self, x):
        """At least σ(−30)."""
        return torch.sigmoid(x.clamp(-30, 30))


class Gated(Net):
    """The net with such a sigmoid behind it."""

    def __init__(self):
        super().__init__()
        self.gate = Clipped()

    def forward(self, x):
        """Rows (N, 2) to (N, 1)."""
        return self.gate(self.lin(x))


GATED = replace(
    MODULE, name="gated", build=Gated, ladder=None, start=None, facts=Facts(parameters=3)
)

# --- all of them ---------------------------------------------------------------------------------

WEIGHTED = replace(EXAMPLE.protocol, average="samples")
ALONE = replace(MODULE, ladder=None, names={})
CHANGED_TORCH = replace(EXAMPLE.errata[0], holds=lambda: True)
NO_FAILURE = replace(EXAMPLE.failures[0], attempt=lambda: None)

_ALL = (
    with_facts("parameter-count", parameters=4),
    with_facts("layer-table", layers=(Layer("lin", "Bilinear", (-1, 1), 3),)),
    with_facts("state-dict-keys", state_dict=("lin.bias", "lin.weight")),
    with_facts("summary-sizes", sizes=Sizes(0.000008, 0.000008, 0.000011, 0.000028)),
    with_facts("output-shape", output=(3,)),
    spoiled("exact-values", values=(*EXAMPLE.values, Exact("a third", lambda: 0.33, 1 / 3, 3))),
    spoiled("documented-failures", failures=(NO_FAILURE,)),
    spoiled("errata", errata=(CHANGED_TORCH,)),
    spoiled("starts-as-torch-does", SCRATCH, replace(MODULE, build=StartsWide)),
    spoiled("right-at-the-ends", SCRATCH, MODULE, GATED),
    spoiled(
        "gradient-is-the-slope",
        planted("first", loss_of=half_detached),
        planted("second", loss_of=half_detached),
    ),
    spoiled("every-parameter-learns", SCRATCH, MODULE, IDLE),
    spoiled("updates-as-stated", *(replace(MODULE, name=n, steps=slowing) for n in ("one", "two"))),
    spoiled("dropout-at-its-rate", SCRATCH, MODULE, NEVER_TRAINING),
    spoiled(
        "same-seed-same-bits",
        *(whole_set(replace(SCRATCH, name=n, start=same_start)) for n in ("first", "second")),
    ),
    spoiled(
        "seed-decides-everything",
        *(planted(name, loss_of=scaled_at_random) for name in ("first", "second")),
    ),
    spoiled(
        "checkpoint-predicts-the-same", SCRATCH, replace(SCRATCH, name="planted", steps=unsaved)
    ),
    spoiled(
        "resumed-run-is-the-same",
        with_momentum("mindful", mindful),
        with_momentum("forgetful", forgetful),
    ),
    spoiled(
        "reads-its-batches", *(planted(name, told=other_way_round) for name in ("first", "second"))
    ),
    spoiled("ladder-agrees-in-float64", SCRATCH, planted(rates=(1.0, 1 + 1e-10))),
    spoiled("ladder-agrees-in-float32", SCRATCH, planted(coarser=True)),
    spoiled(
        "shards-make-the-batch",
        *(planted(name, loss_of=spread_of_batch) for name in ("first", "second")),
    ),
    spoiled("each-kernel-is-right", SCRATCH, replace(MODULE, loss=beside_a_wrong_kernel)),
    spoiled("updates-stay-right", SCRATCH, replace(MODULE, optimizer=WornOut)),
    spoiled("each-layer-is-right", SCRATCH, replace(MODULE, build=Tilted)),
    spoiled("dropout-keeps-its-mask", SCRATCH, MODULE, replace(DROPPING, build=Redrawing)),
    spoiled("predicts-as-its-oracle", SCRATCH, replace(MODULE, build=Hurried)),
    spoiled("golden-trajectory", SCRATCH, MODULE),
    spoiled(
        "same-on-every-execution",
        SCRATCH,
        Variant("never-wrapped", never_wrapped, build=Net, names=MODULE.names, ladder="plane"),
    ),
    with_facts("reaches-documented-figures", figures=(Figure("val_loss", 9.0, real=(8.0, 10.0)),)),
    spoiled("stays-in-calibrated-band"),
    spoiled("layers-as-recorded", SCRATCH, MODULE, replace(DROPPING, build=Drier)),
    spoiled("measures-by-definition", SCRATCH, MODULE, metrics={"mae": half_of_nothing}),
    spoiled("data-as-recorded", SCRATCH, MODULE, data=DataSet("points", moved)),
    spoiled(
        "values-computed-as-recorded",
        values=(*EXAMPLE.values, Exact("the sum is in order", compared_with_itself, True)),
    ),
    spoiled(
        "values-compute-rightly",
        values=(*EXAMPLE.values, Exact("a number of Bessel's", of_a_wrong_kernel, 50)),
    ),
    # Their ledger, sound.claims.toml, says something else.
    spoiled("values-call-what-they-claim"),
    spoiled("built-as-its-document-says"),
    spoiled("splits-do-not-mix", SCRATCH, MODULE, data=DataSet("overlapping", overlapping)),
    spoiled("run-as-recorded", replace(ALONE, steps=late)),
    spoiled("run-follows-its-protocol", replace(ALONE, steps=late)),
    spoiled("figures-recomputed", replace(ALONE, steps=by_batches, protocol=WEIGHTED)),
)

FAILING = {example.name.removeprefix("fails-"): example for example in _ALL}

WHEN_GOLDEN = {
    "values-computed-as-recorded": spoiled(
        "values-computed-as-recorded",
        values=(*EXAMPLE.values, Exact("the sum is in order", compared_with_loop, True)),
    ),
    "data-as-recorded": spoiled("data-as-recorded"),
    "layers-as-recorded": spoiled("layers-as-recorded", SCRATCH, MODULE, DROPPING),
    "run-as-recorded": spoiled("run-as-recorded", ALONE),
    "golden-trajectory": spoiled(
        "golden-trajectory", planted("scratch", rates=(1.01, 1.01)), MODULE
    ),
}
"""What an example was when its golden trajectories were made, where it is not that any more."""

PROTOCOL, FIGURES = "run-follows-its-protocol", "figures-recomputed"
ALSO = {
    "each-kernel-is-right": {"updates-stay-right"},
    "documented-failures": {"values-call-what-they-claim"},
    "updates-as-stated": {PROTOCOL},
    "dropout-at-its-rate": {PROTOCOL, FIGURES},
    "reads-its-batches": {PROTOCOL, FIGURES},
    "ladder-agrees-in-float32": {PROTOCOL},
    "data-as-recorded": {"golden-trajectory", "run-as-recorded"},
    "golden-trajectory": {"run-as-recorded"},
    "run-as-recorded": {PROTOCOL},
}
"""Checks that see the same mistake in another way."""

WHEN_CALIBRATED = {
    "stays-in-calibrated-band": spoiled(
        "stays-in-calibrated-band", planted("scratch", rates=(0.0, 0.0)), MODULE
    )
}
"""What an example was when its baselines were made, where it is not that any more."""
