"""Torch's own start: what its layers are drawn from by default, and what a seed draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import data

from refimpl.checking.checks import Measurement, Subject, check, equal, true, within
from refimpl.contract import Example
from refimpl.training.starts import Distribution, known_start
from refimpl.whereabouts import names_something_of

ALPHA = 1e-6
"""The probability that a sound build fails, of one check; its tests share it. The draws are from
fixed seeds, so that a verdict on a build stands."""

DISTINCT = 0.99
"""The least share of different numbers: of twenty thousand in float32, a few coincide."""

TESTS = 3
"""Of each parameter: its spread, its distribution, and whether numbers depend on those before."""

FOLLOWING = 500
"""So many numbers show whether each depends on the one before."""

TIMES, ENOUGH, MOST = 200, 2000, 20_000
"""A layer is drawn anew until there are enough values of each parameter, or so many times."""


@dataclass(frozen=True)
class Drawn:
    """What seed 0 is recorded to draw on the CPU, and on which versions of torch it was seen."""

    call: str
    draw: Callable[[], Sequence[float]]
    expected: tuple[float, ...]
    seen: str
    digits: int = 5


class Numbers(data.Dataset[int]):
    """Rows that are their own numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> int:
        if number >= self.count:
            raise IndexError(number)
        return number


def _parts(first: int, second: int, of_its_own: bool = False) -> list[int]:
    own = torch.Generator().manual_seed(0) if of_its_own else None
    if of_its_own:
        torch.manual_seed(1)  # which must not matter
    parts = data.random_split(Numbers(first + second), [first, second], generator=own)
    return [number for part in parts for number in part.indices]


def _batches(count: int, size: int) -> list[int]:
    loader: Iterable[Tensor] = data.DataLoader(Numbers(count), size, shuffle=True)
    return [number for batch in loader for number in batch.tolist()]


RECORDED = (
    Drawn(
        "torch.rand(3)", lambda: torch.rand(3).tolist(), (0.4962566, 0.7682218, 0.0884774),
        "torch 2.3 and 2.14", digits=7,
    ),
    Drawn(
        "torch.randn(3)", lambda: torch.randn(3).tolist(), (1.54100, -0.29343, -2.17879),
        "torch 2.13 and 2.14",
    ),
    Drawn(
        "torch.randperm(6)", lambda: torch.randperm(6).tolist(), (2, 5, 3, 0, 1, 4),
        "torch 2.13 and 2.14",
    ),
    Drawn(
        "random_split(range(6), [4, 2])", lambda: _parts(4, 2), (2, 5, 3, 0, 1, 4),
        "torch 2.6 and 2.14",
    ),
    Drawn(
        "random_split(range(6), [4, 2], generator=…)", lambda: _parts(4, 2, of_its_own=True),
        (2, 5, 3, 0, 1, 4), "torch 2.3 and 2.14",
    ),
    Drawn(
        "SubsetRandomSampler(range(10, 16))", lambda: [*data.SubsetRandomSampler(range(10, 16))],
        (12, 15, 13, 10, 11, 14), "torch 2.3 and 2.14",
    ),
    Drawn(
        "DataLoader(range(6), 2, shuffle=True)", lambda: _batches(6, 2), (0, 4, 3, 5, 2, 1),
        "torch 2.6 and 2.14",
    ),
)  # fmt: skip


ROWS = range(1000)

EACH_ONCE: dict[str, Callable[[], Iterable[int]]] = {
    "random_split": lambda: _parts(700, 300),
    "RandomSampler": lambda: data.RandomSampler(ROWS),
    "SubsetRandomSampler": lambda: data.SubsetRandomSampler(ROWS),
    "DataLoader": lambda: _batches(len(ROWS), 7),
}
"""What shuffles a thousand rows."""


def _not_once(rows: Iterable[int]) -> list[int]:
    """The first few rows that are lacking or come twice."""
    times = Counter(rows)
    return [row for row in ROWS if times[row] != 1][:5]


def _layers(subject: Subject) -> dict[str, nn.Module]:
    """The layers of a newly built model whose default start is known, one of each kind and size."""
    build = subject.trained.build
    found: dict[str, nn.Module] = {}
    for layer in build().modules() if build is not None else ():
        resets = callable(getattr(layer, "reset_parameters", None))
        if resets and any(True for _ in layer.parameters(recurse=False)) and known_start(layer):
            found.setdefault(str(layer), layer)
    return found


@check(
    "starts-as-torch-does",
    on_cpu=True,
    applies=lambda subject: bool(_layers(subject)),
    reading="this build of torch starts layers in another way than the documents' did: restate it "
    "in refimpl/training/starts.py, or report it to torch",
)
def starts_as_torch_does(subject: Subject) -> Iterator[Measurement]:
    """Does torch draw each layer's default start from the distribution that it is restated as?

    Starts are drawn by NumPy, so that no other check notices if a build of torch changes its own.
    """
    layers = _layers(subject)
    tests = TESTS * sum(len(known_start(layer) or ()) for layer in layers.values())
    for described, layer in layers.items():
        values = _values(layer)
        for name, distribution in (known_start(layer) or {}).items():
            if distribution.zero is not None:
                padding = float(getattr(layer, name)[distribution.zero].abs().max())
                yield equal(f"largest of the padding row of {described}", padding, 0.0)
            yield from of_distribution(
                f"{name} of {described}", values[name], distribution, ALPHA / tests
            )
        yield equal(f"parameters of {described} that repeat another's numbers", _alike(layer), [])


def _alike(layer: nn.Module) -> list[str]:
    """The drawn parameters of a layer more than half of whose numbers another has, too."""
    known = known_start(layer) or {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(20)
        layer.reset_parameters()  # type: ignore[operator]
        units = {
            name: np.unique(np.round(parameter.double().numpy() / known[name].width * 2**22))
            for name, parameter in layer.named_parameters(recurse=False)
            if known[name].kind != "constant"
        }
    return [
        name
        for name, own in units.items()
        for other, its in units.items()
        if other != name and len(own) <= len(its) and np.isin(own, its).mean() > 0.5
    ]


def _draws(example: Example) -> bool:
    """Whether an example trains, or loads rows without."""
    return bool(example.variants) or names_something_of(example, "torch.utils.data")


@check(
    "draws-as-torch-does",
    about="example",
    on_cpu=True,
    applies=lambda subject: _draws(subject.example),
    reading="this build of torch draws other numbers from a seed than it did, or what splits, "
    "samples or loads rows loses some, repeats them or gives others: report it to torch",
)
def draws_as_torch_does(subject: Subject) -> Iterator[Measurement]:
    """Does a seed draw the numbers that it drew before, and is each row given once?"""
    for record in RECORDED:
        yield _as_recorded(record)
    for what, draw in EACH_ONCE.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield equal(f"rows that {what} gives other than once", _not_once(draw()), [])
    rows = (3, 1, 4, 1, 5)
    subset = data.Subset(Numbers(10), rows)
    yield equal("rows of a Subset", [subset[n] for n in range(len(rows))], list(rows))
    loader: Iterable[Tensor] = data.DataLoader(subset, 2)
    loaded = [number for batch in loader for number in batch.tolist()]
    yield equal("rows of a DataLoader of a Subset", loaded, list(rows))


def _as_recorded(record: Drawn) -> Measurement:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = record.draw()
    what = f"{record.call} of seed 0"
    rounded = [round(value, record.digits) for value in found]
    measured = equal(what, rounded, list(record.expected))
    message = f"{what} is {rounded}; in {record.seen} it is {list(record.expected)}"
    return replace(measured, message="" if measured.holds else message)


def _values(layer: nn.Module) -> dict[str, NDArray[Any]]:
    """Draws of each of a layer's own parameters by its own ``reset_parameters``."""
    drawn: dict[str, list[NDArray[Any]]] = {n: [] for n, _ in layer.named_parameters(recurse=False)}
    known = known_start(layer) or {}
    smallest = min(p.numel() for p in layer.parameters(recurse=False))
    constant = all(own.kind == "constant" for own in known.values())
    times = 1 if constant else min(TIMES, -(-ENOUGH // smallest))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(20)
        for _ in range(times):
            layer.reset_parameters()  # type: ignore[operator]
            for name, parameter in layer.named_parameters(recurse=False):
                if sum(part.size for part in drawn[name]) < MOST:
                    rows = parameter.detach().numpy()
                    zero = known[name].zero
                    rows = rows if zero is None else np.delete(rows, zero, axis=0)
                    drawn[name].append(rows.ravel()[:MOST].copy())
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def of_distribution(
    what: str, values: NDArray[Any], distribution: Distribution, level: float, who: str = "torch"
) -> Iterator[Measurement]:
    """Whether values come from a distribution, which a sound draw fails with ``level``."""
    from scipy import stats

    largest = float(np.abs(values).max())
    says = (
        f"{who} draws {what} from something else than {distribution}: its largest is {largest:.4g}"
    )
    repeats = f"{who} draws the same numbers of {what} again and again, or their negatives"
    if distribution.kind == "constant":
        yield true(f"{what} is {distribution}", bool((values == distribution.width).all()), says)
        return
    if distribution.kind == "uniform":
        low, high = level ** (1 / values.size) * distribution.width, 1.000001 * distribution.width
        yield _saying(within(f"largest {what}", largest, low, high), says)
        cdf = stats.uniform(-distribution.width, 2 * distribution.width).cdf
    else:
        cdf = stats.norm(0, distribution.width).cdf
        spread = stats.chi2(values.size).cdf(
            float((values.astype(np.float64) ** 2).sum()) / distribution.width**2
        )
        p = 2 * min(spread, 1 - spread)
        yield _saying(within(f"χ² p of {what}", p, level, 1.0), f"{says} (p = {p:.2g})")
    distinct = len(np.unique(np.abs(values))) / values.size
    yield _saying(within(f"share of {what} that differs", distinct, DISTINCT, 1.0), repeats)
    if values.size >= FOLLOWING:
        p = float(stats.pearsonr(values[:-1], values[1:]).pvalue)
        follows = f"{who} draws each number of {what} by the one before it (p = {p:.2g})"
        yield _saying(within(f"p of what follows in {what}", p, level, 1.0), follows)
    p = float(stats.kstest(values.astype(np.float64), cdf).pvalue)
    yield _saying(within(f"Kolmogorov–Smirnov p of {what}", p, level, 1.0), f"{says} (p = {p:.2g})")


def _saying(measured: Measurement, message: str) -> Measurement:
    return replace(measured, message="" if measured.holds else message)
