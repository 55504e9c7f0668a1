"""Times three loops of the same training on a GPU: ``python -m benchmarks.graphs --device cuda``.

The loop as its document writes it, refimpl's run, and one graph of the whole step, written by hand.
They take turns; each figure is a median. A run counts only if all three end with the same
parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from benchmarks.__main__ import TIMED, geometric_mean
from benchmarks.agreement import LARGEST, apart_of, by_refimpl, first_epochs
from benchmarks.loops import (
    OWN,
    End,
    Samples,
    as_documented,
    documented_samples,
    graphed,
    variant_of,
    workers_of,
)
from benchmarks.tables import show
from benchmarks.turns import medians
from refimpl.composition import on_device
from refimpl.data import Tier
from refimpl.training.problem import Problem, pose

HEAD = """# One graph a step

Made by `python -m benchmarks.graphs`. *Document* is the loop as documents write it, *refimpl* a
whole run, *graph* one graph of the whole step. Where refimpl is eager, the last column says why.
"""

COLUMNS = ("example/variant", "document s", "refimpl s", "graph s", "a/b", "b/c", "eager because")


@dataclass(frozen=True)
class Timed:
    """Median seconds of each loop, and why refimpl's steps are eager, if they are."""

    name: str
    documented: float
    refimpl: float
    graph: float
    eager: str


def timed(name: str, tier: Tier, device: str, repeats: int) -> Timed:
    """Compare the ends of the three loops, then time them in turn, ``repeats`` times.

    Raises :class:`click.ClickException` if they end apart.
    """
    example, _, chosen = name.partition("/")
    variant = variant_of(name)
    problem = pose(variant, tier, dropout=False, execution=on_device(device))
    own, eager = OWN.get(name), [""]

    def loops_of(given: Problem, samples: Samples) -> dict[str, Callable[[], End]]:
        workers = workers_of(example, chosen)
        return {
            "documented": lambda: as_documented(variant, given, samples, workers, own),
            "refimpl": lambda: by_refimpl(variant, given, eager),
            "graph": lambda: graphed(variant, given, own),
        }

    first = first_epochs(problem)
    with documented_samples(first) as samples:
        ends = [run() for run in loops_of(first, samples).values()]
    far = max(apart_of(variant, ends[-1], end) for end in ends)
    if not far <= LARGEST:
        raise click.ClickException(f"{name}: the loops end {far:.2g} apart")
    with documented_samples(problem) as samples:
        seconds = medians(
            loops_of(problem, samples), repeats, lambda loop, end: _wait(problem.device)
        )
    return Timed(name, **seconds, eager=eager[0])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--device", default="cuda", show_default=True)
@click.option("--data", "tier", type=click.Choice(["stand-in", "real"]), default="stand-in")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--table", "page", type=click.Path(dir_okay=False, path_type=Path))
def main(names: tuple[str, ...], device: str, tier: Tier, repeats: int, page: Path | None) -> None:
    """Time the loops of these examples' variants (EXAMPLE/VARIANT), or of all."""
    found = [timed(name, tier, device, repeats) for name in names or TIMED]
    rows = [
        (
            each.name,
            *(f"{seconds:.3f}" for seconds in (each.documented, each.refimpl, each.graph)),
            f"{each.documented / each.refimpl:.2f}",
            f"{each.refimpl / each.graph:.2f}",
            each.eager,
        )
        for each in found
    ]
    gains = [each.documented / each.refimpl for each in found]
    how = (
        f"a/b is {geometric_mean(gains):.2f} in the geometric mean, {min(gains):.2f} at the least; "
        f"b/c is {max(each.refimpl / each.graph for each in found):.2f} at the most. "
        f"Medians of {repeats} repeats on {tier} data, {device}"
    )
    show(HEAD, COLUMNS, rows, how, page)
    click.echo(how)


if __name__ == "__main__":
    main()
