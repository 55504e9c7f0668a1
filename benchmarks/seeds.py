"""Times many seeds together against one seed alone: ``python -m benchmarks.seeds``.

One seed alone is the run that ``refimpl run`` makes. The seeds together are those of one job of
``refimpl calibrate``, with as many threads as there are cores. They take turns; each figure is a
median.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

from benchmarks.loops import variant_of
from benchmarks.tables import show
from refimpl.baselines.sweep import train_seeds
from refimpl.executions.ensemble import gains

TIMED = ("titanic-dnn/script", "ring-dnn/high", "ring-dnn/low", "mnist-logistic/fit")
HEAD = """# Many seeds at once

Made by `python -m benchmarks.seeds`: seeds in the same tensors, as `refimpl calibrate` trains them,
with a thread a core, against one seed alone.
"""

COLUMNS = ("example/variant", "one seed s", "seeds together s", "together/one")
FIRST = 200_000


def medians(name: str, count: int, repeats: int) -> tuple[float, float]:
    """Median seconds of one seed and of ``count`` together; the first turn does not count."""
    variant = variant_of(name)
    if not gains(variant, "stand-in"):
        raise click.ClickException(f"{name} is not trained together")
    cores = os.cpu_count() or 1
    seeds = range(FIRST, FIRST + count)
    seconds: dict[str, list[float]] = {"one": [], "together": []}
    runs: dict[str, Callable[[], object]] = {
        "one": lambda: train_seeds(variant, "stand-in", seeds[:1]),
        "together": lambda: train_seeds(variant, "stand-in", seeds),
    }
    for turn in range(repeats + 1):
        for which, run in runs.items():
            torch.set_num_threads(cores if which == "together" else 1)
            began = time.perf_counter()
            run()
            if turn:
                seconds[which].append(time.perf_counter() - began)
    return statistics.median(seconds["one"]), statistics.median(seconds["together"])


@click.command()
@click.argument("names", nargs=-1)
@click.option("--seeds", "count", type=click.IntRange(2), default=32, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--table", "page", type=click.Path(dir_okay=False, path_type=Path))
def main(names: tuple[str, ...], count: int, repeats: int, page: Path | None) -> None:
    """Time these variants (EXAMPLE/VARIANT), or those for which the project states figures."""
    rows = []
    for name in names or TIMED:
        one, together = medians(name, count, repeats)
        rows.append((name, f"{one:.3f}", f"{together:.3f}", f"{together / one:.2f}"))
    how = f"Medians of {repeats} repeats of {count} seeds on stand-in data"
    show(HEAD, COLUMNS, rows, how, page)


if __name__ == "__main__":
    main()
