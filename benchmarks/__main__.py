"""Times three loops of the same training side by side: ``python -m benchmarks``.

For each variant: (a) the loop as its document writes it, (b) refimpl's run, (c) the bare limit; see
:mod:`benchmarks.loops`. They take turns, so that a busy machine slows all three; each figure is a
median, and the result is their ratios. A run counts only if all three end with the same parameters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch

from benchmarks.afterwards import AFTERWARDS
from benchmarks.agreement import LARGEST, apart_of, by_refimpl, first_epochs
from benchmarks.epochs import of_part
from benchmarks.loops import (
    OWN,
    End,
    Samples,
    as_documented,
    bare,
    documented_samples,
    variant_of,
    workers_of,
)
from benchmarks.tables import show
from benchmarks.turns import medians
from refimpl.data import Tier
from refimpl.environment import environment
from refimpl.requirements import missing_data
from refimpl.training.problem import Problem, pose

TIMED = (
    "linear-regression-1d/module",
    "linear-regression-2d/high",
    "mnist-logistic/fit",
    "titanic-dnn/script",
    "ring-dnn/high",
    "ring-focal/focal",
    "covid-lstm/single-start",
    "imdb-cnn/keep-first",
    "model-building/module",
    "cifar10-two-layer/sampled",
    "cifar2-cnn/function",
    "mnist-cnn/script",
)
"""One variant of each example that trains."""


HEAD = """# Three loops of the same training

Made by `python -m benchmarks`. *Document* is the loop as documents write it, *refimpl* the run that
every check makes, *bare* the fewest calls of torch that do the same. What counts are the ratios.
"""

COLUMNS = ("example/variant", "document s", "refimpl s", "bare s", "a/b", "b/c")


@dataclass(frozen=True)
class Timed:
    """Median seconds of each loop, and how far apart their parameters ended."""

    name: str
    tier: str
    documented: float
    refimpl: float
    bare: float
    apart: float

    @property
    def gain(self) -> float:
        """How many times as long as refimpl the document's loop takes."""
        return self.documented / self.refimpl

    @property
    def overhead(self) -> float:
        """How many times as long as the bare limit refimpl takes."""
        return self.refimpl / self.bare


def timed(name: str, tier: Tier, part: float, repeats: int) -> Timed:
    """Compare the ends of a variant's three loops, then time them in turn, ``repeats`` times.

    Each runs this part of the document's epochs.
    """
    example_name, _, variant_name = name.partition("/")
    variant = variant_of(name)
    problem = pose(variant, tier, dropout=False)
    first, problem = first_epochs(problem), of_part(problem, part)

    def loops_of(given: Problem, samples: Samples) -> dict[str, Callable[[], End]]:
        workers, own = workers_of(example_name, variant_name), OWN.get(name)
        return {
            "documented": lambda: as_documented(variant, given, samples, workers, own),
            "refimpl": lambda: by_refimpl(variant, given),
            "bare": lambda: bare(variant, given, own),
        }

    afterwards = AFTERWARDS.get(name)
    with documented_samples(first) as samples:
        ends = [run() for run in loops_of(first, samples).values()]
    apart = max(apart_of(variant, ends[-1], end) for end in ends)

    def then(loop: str, end: End) -> None:
        if afterwards and loop != "refimpl":
            afterwards(end.model, problem)

    with documented_samples(problem) as samples:
        seconds = medians(loops_of(problem, samples), repeats, then)
    return Timed(name, tier, **seconds, apart=apart)


def _lacks(name: str, tier: Tier) -> str | None:
    """Why a variant cannot be timed here: its data are not complete."""
    data = variant_of(name).data
    return missing_data(data, tier) if data is not None else None


def geometric_mean(values: Sequence[float]) -> float:
    """The n-th root of the product."""
    return math.exp(sum(map(math.log, values)) / len(values))


@click.command()
@click.argument("names", nargs=-1)
@click.option("--data", "tier", type=click.Choice(["stand-in", "real"]), default="stand-in")
@click.option("--part", type=click.FloatRange(0, 1), default=1.0, show_default=True,
              help="Train only this part of each loop's epochs.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--table", "page", type=click.Path(dir_okay=False, path_type=Path))
def main(
    names: tuple[str, ...],
    tier: Tier,
    part: float,
    repeats: int,
    output: Path | None,
    page: Path | None,
) -> None:
    """Time the loops of these examples' variants (EXAMPLE/VARIANT), or of all."""
    unknown = [name for name in names if name not in TIMED]
    if unknown:
        raise click.UsageError(f"{unknown[0]} is not timed; there are: {', '.join(TIMED)}")
    lacking = {name: why for name in names or TIMED if (why := _lacks(name, tier))}
    if names and lacking:
        name, why = next(iter(lacking.items()))
        raise click.ClickException(f"{name}: {why}")
    torch.set_num_threads(1)
    found = []
    for name in [name for name in names or TIMED if name not in lacking]:
        found.append(timed(name, tier, part, repeats))
        if not found[-1].apart <= LARGEST:
            raise click.ClickException(f"{name}: the loops end {found[-1].apart:.2g} apart")
        gain, overhead = found[-1].gain, found[-1].overhead
        click.echo(f"{name}: a/b {gain:.2f}, b/c {overhead:.2f}", err=True)
    rows = [
        (
            each.name,
            *(f"{seconds:.3f}" for seconds in (each.documented, each.refimpl, each.bare)),
            f"{each.gain:.2f}",
            f"{each.overhead:.2f}",
        )
        for each in found
    ]
    mean = geometric_mean([each.gain for each in found])
    reachable = geometric_mean([each.gain * each.overhead for each in found])
    of = "" if part == 1 else f" of {part:.0%} of the epochs"
    how = (
        f"a/b is {mean:.2f} in the geometric mean, a/c {reachable:.2f}; b/c is "
        f"{max(e.overhead for e in found):.2f} at the most. "
        f"Medians of {repeats} repeats{of} on {tier} data with one thread"
    )
    if lacking:
        how += f". Not timed: {', '.join(f'{name} {why}' for name, why in lacking.items())}"
    show(HEAD, COLUMNS, rows, how, page)
    click.echo(how)
    if output is not None:
        record = {"environment": environment(), "timed": [asdict(each) for each in found]}
        output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
