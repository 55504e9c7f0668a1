"""Dropout: active in training, at the rate that the layer was built with."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import torch
from torch import Tensor, nn

from refimpl.checking.checks import Measurement, Subject, at_most, check, true, within
from refimpl.parity.leaf_modules import as_executed, layers_called
from refimpl.parity.trace import trace
from refimpl.training.problem import pose

DEVIATIONS = 6.0
"""How many standard deviations the share left out may be off; by chance, once in 5e8 layers."""

ROUNDING = 1e-5
"""Relative error allowed in a unit that is kept and scaled in float32."""

ONES = (500, 400)
"""Samples and units of which a layer by itself leaves out its share."""

ELEMENTS = (nn.Dropout,)
CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def _layers(subject: Subject) -> dict[str, nn.Module]:
    """Each dropout layer with a rate above 0, by its name in a newly built model."""
    build = subject.trained.build
    layers = build().named_modules() if build is not None else ()
    return {
        name: layer
        for name, layer in layers
        if isinstance(layer, (*ELEMENTS, *CHANNELS)) and layer.p > 0
    }


@check(
    "dropout-at-its-rate",
    applies=lambda subject: bool(_layers(subject)),
    reading="dropout is off while training, has another rate, or does not scale what it keeps",
)
def dropout_at_its_rate(subject: Subject) -> Iterator[Measurement]:
    """In training, does each dropout layer drop units at its rate and scale the ones it keeps?"""
    variant = subject.trained
    problem = pose(variant, subject.tier, seed=variant.seed, execution=subject.execution)
    seen = {each.key: each.value for each in trace(variant, problem, 1)}
    for name, layer in _layers(subject).items():
        given, made = seen.get(("input", name)), seen.get(("activation", name))
        if given is None or made is None:
            yield true(f"{name} is called", False, f"{name} is not called while the model trains")
            continue
        rate = float(layer.p)  # type: ignore[arg-type]
        alive, dropped = _units(given, made, whole_channels=isinstance(layer, CHANNELS))
        count = int(alive.sum())
        share = int(dropped.sum()) / count if count else float("nan")
        spread = DEVIATIONS * sqrt(rate * (1 - rate) / max(count, 1))
        yield within(f"share that {name} leaves out", share, rate - spread, rate + spread)
        kept = (made != 0) & (given != 0)
        off = (made[kept] * (1 - rate) / given[kept] - 1).abs()
        yield at_most(
            f"error of what {name} keeps", float(off.max()) if len(off) else 0.0, ROUNDING
        )
        yield from _drawn(name, layer, rate, made.device)


def _drawn(name: str, layer: nn.Module, rate: float, device: torch.device) -> Iterator[Measurement]:
    """The rate in so many ones, and whether samples and units are left out one by one."""
    axes = next((n for n, kind in enumerate(CHANNELS, 1) if isinstance(layer, kind)), 0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        made = layer.train()(torch.ones(*ONES, *[1] * axes, device=device))
    left_out = (made == 0).reshape(ONES).cpu().double()
    deviation = DEVIATIONS / sqrt(left_out.numel())
    spread = deviation * sqrt(rate * (1 - rate))
    what = f"share that {name} leaves out of {left_out.numel():,} units"
    yield within(what, float(left_out.mean()), rate - spread, rate + spread)
    each = (left_out.mean(0) - rate).abs().max() / sqrt(rate * (1 - rate) / len(left_out))
    what = f"standard deviations that the share {name} leaves out of one unit is off"
    yield at_most(what, float(each), DEVIATIONS)
    centred = left_out - left_out.mean()
    for axis, of in enumerate(("samples", "units")):
        alike = (centred * centred.roll(1, axis)).mean() / centred.square().mean()
        what = f"correlation of what {name} leaves out of neighbouring {of}"
        yield within(what, float(alike), -deviation, deviation)


def _units(given: Tensor, made: Tensor, whole_channels: bool) -> tuple[Tensor, Tensor]:
    """Which units were not zero before dropout, and which of these are zero after it.

    A unit is an element or, with ``whole_channels``, a whole channel (N, C).
    """
    before, after = given != 0, made != 0
    if whole_channels:
        before, after = before.flatten(2).any(2), after.flatten(2).any(2)
    return before, before & ~after


def _drops_here(subject: Subject) -> bool:
    return subject.execution.steps is None and bool(_layers(subject))


@check(
    "dropout-keeps-its-mask",
    about="execution",
    applies=_drops_here,
    reading="the backward of dropout draws its mask anew; with torch.compile, see "
    "activation_memory_budget",
)
def dropout_keeps_its_mask(subject: Subject) -> Iterator[Measurement]:
    """On the way back, does each dropout leave out what it left out on the way forward?"""
    variant, execution = subject.trained, subject.execution
    calls = {name: given for name, _, given in layers_called(variant, execution, subject.tier)}
    for name, layer in _layers(subject).items():
        given = calls.get(name)
        if not isinstance(given, Tensor):
            yield true(f"{name} is called", False, f"{name} is not called while the model trains")
            continue
        x = (given.detach().abs() + 1).requires_grad_()  # where nothing is 0 but what is dropped
        called = as_executed(layer.train().to(x.device), execution)
        with torch.random.fork_rng(), execution.around(), torch.enable_grad():
            torch.manual_seed(variant.seed)
            made = called(x)
            (gradient,) = torch.autograd.grad(made.sum(), [x])
        other = int(((made != 0) != (gradient != 0)).sum())
        message = (
            f"the gradient of {name} ({type(layer).__name__}, p = {layer.p}) is 0 elsewhere than "
            f"its output, in {other} of {made.numel()} places: its backward uses another mask"
        )
        yield Measurement(f"places of {name} with another mask", other, "≤ 0", not other, message)
        kept = gradient[gradient != 0] * (1 - float(layer.p))  # type: ignore[arg-type]
        off = float((kept.cpu().double() - 1).abs().max()) if len(kept) else 0.0
        limit = ROUNDING if x.dtype == torch.float32 else float(8 * torch.finfo(x.dtype).eps)
        yield at_most(f"error of the gradient that {name} keeps", off, limit)
