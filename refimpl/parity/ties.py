"""Decisions that rounding makes: a unit on the kink of its activation, two equal pixels of a pool.

There a run in float32 may go one way and its oracle another, and both are right. Whether a start is
such a one is seen in the oracle: how far a pre-activation is from its kink, or the largest element
of a window from the second, in units of what rounding does to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from refimpl.composition import CPU
from refimpl.contract import Variant
from refimpl.parity.rounding import Rounded, under
from refimpl.training.comparison import FACTOR
from refimpl.training.problem import Problem
from refimpl.training.trajectories import Observation, observations

DRAWS = 4
"""How many draws show what rounding does to each element."""

MOST = 8
"""The most near ties that are tried."""

ALIKE = 1e-6
"""Values are alike that differ by less than this part of what rounding moves them by."""


@dataclass(frozen=True)
class Kinked:
    """An operation with a kink, as it was called: ``apart`` is how far each element is from it.

    Of a pool, ``second`` has the number of the second largest element within each window.
    """

    name: str
    number: int
    apart: Tensor
    second: Tensor | None = None


@dataclass(frozen=True)
class NearTie:
    """An element that rounding may put on either side, and those that are ``alike``.

    These have the same value (what is computed of padding, say), so that rounding puts them there
    together; draws move each by itself. ``call`` counts the calls with kinks of its step; ``units``
    is the distance over what rounding moves it by. In the oracle, it is ``above`` the kink or not;
    of a pool, the ``second`` element of the window is the smaller one. Moving that ``by`` so much
    changes it. Ties are tried in their ``order``.
    """

    name: str
    step: int
    call: int
    index: tuple[int, ...]
    units: float
    by: float
    above: bool
    second: int = 0
    alike: Tensor | None = field(default=None, compare=False, repr=False)
    order: tuple[bool, int, float] = (False, 0, 0.0)

    def __str__(self) -> str:
        where = ", ".join(map(str, self.index))
        pair = "two elements of window" if self.name in POOLS else "element"
        if self.alike is not None and (count := int(self.alike.sum())) > 1:
            pair = f"{count:,} equal elements such as"
        far = "equal" if self.name in POOLS else "on the kink"
        return f"{pair} [{where}] of {self.name} {self.units:.2g} roundings from {far}"

    def fallen_otherwise(
        self,
        variant: Variant,
        problem: Problem,
        precision: torch.dtype,
        products_in: torch.dtype | None,
    ) -> Iterator[list[Observation]]:
        """A draw in which this element is on the other side."""
        mode = Rounded(0, precision, products_in)
        calls = _Calls()

        def instead(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
            if calls.counted(name) == self.call and steps.now == self.step:
                return (self._beyond(name, args), *args[1:])
            return args

        mode.instead = instead
        steps = _Counted(calls)
        return steps.over(observations(variant, under(variant, mode, problem, 0), problem.length))

    def _beyond(self, name: str, args: tuple[Any, ...]) -> Tensor:
        """The input of the call with this element on the other side than in the oracle."""
        x: Tensor = args[0].clone()
        if name not in POOLS:
            kink = (args[0] - _apart(name, args))[self.index]
            where = self.index if self.alike is None else self.alike
            x[where] = kink - self.by if self.above else kink + self.by
            return x
        image, channel, window = self.index
        numbers = torch.arange(x[0, 0].numel(), dtype=x.dtype).reshape(1, 1, *x.shape[2:])
        place = int(_windows((numbers, *args[1:]))[0, 0, self.second, window])
        x[image, channel].view(-1)[place] += self.by
        return x


POOLS = ("max_pool2d_with_indices",)
KINKS = ("relu", "relu_", "threshold", "threshold_", "abs", "sign", "sgn", "leaky_relu", "hardtanh")


class _Calls:
    """Counts the calls of operations with kinks."""

    def __init__(self) -> None:
        self.count = 0

    def counted(self, name: str) -> int:
        """The number of this call, from 1, or 0 if it has no kink."""
        if name not in POOLS and name not in KINKS:
            return 0
        self.count += 1
        return self.count


@dataclass
class _Counted:
    """Which step a run is in, with the count of calls begun anew in each."""

    calls: _Calls
    now: int = 1

    def over(self, steps: Iterator[list[Observation]]) -> Iterator[list[Observation]]:
        """The steps, counted."""
        for step in steps:
            yield step
            self.now += 1
            self.calls.count = 0


class _Recorded(Rounded):  # type: ignore[no-untyped-call]
    """Notes the distance of every element from the kink of each operation that has one.

    Draw −1 is the oracle: nothing is rounded in it.
    """

    def __init__(
        self, number: int, precision: torch.dtype, products_in: torch.dtype | None
    ) -> None:
        super().__init__(max(number, 0), precision, products_in, self.note)
        self.exact = number < 0
        self.calls, self.seen = _Calls(), list[Kinked]()

    def note(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Note how far a call's elements are from its kink."""
        if (number := self.calls.counted(name)) and args[0].dtype == torch.float64:
            second = _windows(args).topk(2, dim=2).indices[:, :, 1] if name in POOLS else None
            self.seen.append(Kinked(name, number, _apart(name, args), second))
        return args

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Make the call, rounded unless this is the oracle."""
        if not self.exact:
            return super().__torch_dispatch__(func, types, args, kwargs)
        self.note(func._schema.name.removeprefix("aten::"), args)
        return func(*args, **(kwargs or {}))


def near_ties(
    variant: Variant,
    problem: Problem,
    step: int,
    precision: torch.dtype = torch.float32,
    products_in: torch.dtype | None = None,
) -> list[NearTie]:
    """The elements of a run's first steps that rounding may put on either side.

    Those of the step itself come before those of earlier ones; then many that are alike before few,
    and the nearest before others.
    """
    modes = [_Recorded(number, precision, products_in) for number in range(-1, DRAWS)]
    noted = problem.but(
        precision="float64", dropout=False, swift=False,
        execution=replace(CPU, around=lambda: modes[0]),
    )  # fmt: skip
    problems = [noted, *(under(variant, mode, problem, mode.number) for mode in modes[1:])]
    runs = [observations(variant, own, step) for own in problems]
    found: list[NearTie] = []
    for number, _ in enumerate(islice(zip(*runs, strict=False), step), start=1):
        oracle, *draws = (mode.seen for mode in modes)
        for kinked, *others in zip(oracle, *draws, strict=False):
            found += nearest_ties(kinked, others, number)
        for mode in modes:
            mode.seen, mode.calls.count = [], 0
    found.sort(key=lambda tie: (-tie.step, tie.order))
    return found[:MOST]


def nearest_ties(kinked: Kinked, draws: Sequence[Kinked], step: int) -> list[NearTie]:
    """Elements of a call near its kink, the most telling first; one of each group that is alike."""
    if any(draw.apart.shape != kinked.apart.shape for draw in draws) or not draws:
        return []
    spread = torch.stack([(draw.apart - kinked.apart).abs() for draw in draws]).amax(0)
    units = kinked.apart.abs() / spread
    near = (units <= FACTOR) & (spread > 0)
    places = near.nonzero().tolist()
    if not places:
        return []
    groups = torch.full(near.shape, -1)
    if kinked.name in POOLS:
        groups[near] = torch.arange(len(places))
    else:
        values = kinked.apart[near] / (ALIKE * spread[near].mean())
        groups[near] = torch.unique(values.round(), return_inverse=True)[1]
    counts = groups[near].bincount()
    found = [
        _Place(tuple(place), int(group), int(counts[group]), float(own))
        for place, group, own in zip(places, groups[near], units[near], strict=True)
    ]
    first: dict[int, _Place] = {}
    for place in sorted(found, key=lambda place: place.order(kinked.name)):
        first.setdefault(place.group, place)
    some = list(first.values())[:MOST]
    return [_tie(kinked, step, own, spread, groups == own.group) for own in some]


@dataclass(frozen=True)
class _Place:
    """A place near a kink: which group is alike there, and of how many elements."""

    index: tuple[int, ...]
    group: int
    count: int
    units: float

    def order(self, name: str) -> tuple[bool, int, float]:
        """Many elements tell more than one; two that are equal in the oracle stay equal, mostly."""
        return (name in POOLS and not self.units, -self.count, self.units)


def _tie(kinked: Kinked, step: int, own: _Place, spread: Tensor, alike: Tensor) -> NearTie:
    apart, by = float(kinked.apart[own.index]), float(spread[alike].max())
    pooled = kinked.name in POOLS
    return NearTie(
        kinked.name, step, kinked.number, own.index, own.units,
        by=2 * abs(apart) + 2 * by if pooled else by,
        above=apart > 0,
        second=int(kinked.second[own.index]) if kinked.second is not None else 0,
        alike=None if pooled else alike,
        order=own.order(kinked.name),
    )  # fmt: skip


def _apart(name: str, args: tuple[Any, ...]) -> Tensor:
    """How far each element is from a kink; of a pool, the first of each window from the second."""
    x: Tensor = args[0].detach()
    if name in POOLS:
        largest = _windows(args).topk(2, dim=2).values
        return largest[:, :, 0] - largest[:, :, 1]
    if name.startswith("threshold"):
        above: Tensor = x - args[1]
        return above
    if name == "hardtanh":
        low, high = (*args[1:3], -1.0, 1.0)[:2] if len(args) > 2 else (-1.0, 1.0)
        return torch.where((x - low).abs() < (x - high).abs(), x - low, x - high)
    return x.clone()


def _windows(args: tuple[Any, ...]) -> Tensor:
    """The windows of a pool (N, C, elements of a window, windows)."""
    x, size = args[0].detach(), args[1]
    stride = args[2] if len(args) > 2 and args[2] else size
    padding = args[3] if len(args) > 3 else 0
    dilation = args[4] if len(args) > 4 else 1
    count, channels = x.shape[:2]
    padded = F.pad(x, _pads(padding), value=-torch.inf) if any(_pads(padding)) else x
    each = F.unfold(padded.reshape(-1, 1, *padded.shape[2:]), size, dilation, 0, stride)
    return each.reshape(count, channels, *each.shape[1:])


def _pads(padding: int | Sequence[int]) -> list[int]:
    two = [padding] * 2 if isinstance(padding, int) else [*padding] * (3 - len(padding))
    return [two[1], two[1], two[0], two[0]]
