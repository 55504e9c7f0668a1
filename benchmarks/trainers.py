"""Times refimpl beside Lightning's and Hugging Face's Trainer: ``python -m benchmarks.trainers``.

For each variant, all three train the same net from the same start, with the same batches,
optimizer, kernels and figures. First they must end alike: in the parameters after a few epochs in
float64, then in parameters and figures of each whole run that is timed. They take turns; each time
is a median. Both Trainers run without progress bar, logger, reports, checkpoints and sanity check.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import torch

from benchmarks import afterwards, agreement, processes
from benchmarks.afterwards import AFTERWARDS
from benchmarks.agreement import LARGEST, apart_of, by_refimpl, first_epochs
from benchmarks.lines import Function, Source, watched, written
from benchmarks.loops import End, variant_of
from benchmarks.tables import show
from benchmarks.task import Task, task_of
from refimpl import Variant
from refimpl.training.problem import Problem, pose

TIMED = (
    "titanic-dnn/script",
    "mnist-logistic/fit",
    "covid-lstm/single-start",
    "model-building/module",
)
"""A dense net in batches of eight, a linear one, an LSTM in one batch, and convolutions."""

NEEDED = ("lightning", "transformers", "accelerate")

HEAD = """# Three trainers, the same training

Made by `python -m benchmarks.trainers`: *a* is refimpl, *b* Lightning's Trainer, *c* Hugging
Face's, both set for speed. All end alike. [How lines are
counted](../../benchmarks/README.md#three-trainers).
"""

COLUMNS = ("example/variant", "a s", "b s", "c s", "b/a", "c/a", "a lines", "b lines", "c lines")

SAME = 1e-6
"""How far apart, relatively, whole runs may end, in parameters and figures."""


SLOW = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Importing lightning sets it, and torch built for CUDA then looks for NVML in each update."""


@dataclass(frozen=True)
class Trainer:
    """A way to train a variant, and the files in which a user writes for it."""

    run: Callable[[Problem], End]
    files: frozenset[Path]


@dataclass(frozen=True)
class Compared:
    """Median seconds and counted lines by trainer, and how far apart whole runs end."""

    name: str
    seconds: Mapping[str, float]
    lines: Mapping[str, int]
    apart: float

    @property
    def row(self) -> tuple[str, ...]:
        """A row of the table."""
        ours, *others = self.seconds.values()
        return (
            self.name,
            *(f"{seconds:.3f}" for seconds in self.seconds.values()),
            *(f"{seconds / ours:.2f}" for seconds in others),
            *map(str, self.lines.values()),
        )


def lacking() -> str | None:
    """What to install, if a trainer is not there."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} not installed; run: python -m pip install -e '.[trainers]'"


def trainers_of(name: str, variant: Variant) -> dict[str, Trainer]:
    """The three, refimpl first."""

    def other(run: Callable[[Task], End], problem: Problem) -> End:
        end, finish = run(task_of(variant, problem)), AFTERWARDS.get(name)
        figures = finish(end.model, problem) if finish else {}
        return End(end.parameters, {**end.figures, **figures}, end.model)

    assert variant.build is not None
    plugin = frozenset([Path(inspect.getfile(variant.build)), Path(agreement.__file__)])
    found = {"refimpl": Trainer(partial(by_refimpl, variant), plugin)}
    for key in ("lightning", "hugging_face"):
        module = import_module(f"benchmarks.by_{key}")
        files = frozenset(Path(str(own.__file__)) for own in (module, afterwards))
        found[key] = Trainer(partial(other, getattr(module, f"by_{key}")), files)
    return found


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without advice on what is chosen here, and without :data:`SLOW`."""
    log = logging.getLogger("lightning.pytorch")
    level, slow = log.level, os.environ.pop(SLOW, None)
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        if slow is not None:
            os.environ[SLOW] = slow


def compared(name: str, tier: str, repeats: int) -> Compared:
    """Show that the trainers end alike and count their lines, then time them in turn."""
    variant = variant_of(name)
    problem = pose(variant, tier, dropout=False)  # type: ignore[arg-type]
    trainers = trainers_of(name, variant)
    with undisturbed():
        ends, ran = {}, {}
        for key, trainer in trainers.items():
            ends[key], ran[key] = watched(partial(trainer.run, first_epochs(problem)))
        require_alike(name, variant, ends, LARGEST)
        seconds, apart = defaultdict(list), 0.0
        for _ in range(repeats):
            for key, trainer in trainers.items():
                began = time.perf_counter()
                ends[key] = trainer.run(problem)
                seconds[key].append(time.perf_counter() - began)
            apart = max(apart, require_alike(name, variant, ends, SAME))
    medians = {key: statistics.median(own) for key, own in seconds.items()}
    return Compared(name, medians, lines_of(variant, trainers, ran), apart)


def require_alike(name: str, variant: Variant, ends: Mapping[str, End], largest: float) -> float:
    """How far parameters end apart; raises if further than ``largest``, or if figures differ."""
    ours, worst = ends["refimpl"], 0.0
    for key, theirs in ends.items():
        apart = apart_of(variant, ours, theirs)
        if not apart <= largest:
            raise click.ClickException(f"{name}: {key} ends {apart:.2g} apart from refimpl")
        if ours.figures.keys() != theirs.figures.keys():
            known = ", ".join(theirs.figures)
            raise click.ClickException(f"{name}: {key} has the figures {known}; refimpl has others")
        for figure, value in ours.figures.items():
            found = theirs.figures[figure]
            if not math.isclose(found, value, rel_tol=SAME, abs_tol=SAME):
                raise click.ClickException(
                    f"{name}: {key} ends with {figure} = {found} where refimpl has {value}"
                )
        worst = max(worst, apart)
    return worst


def lines_of(
    variant: Variant, trainers: Mapping[str, Trainer], ran: Mapping[str, frozenset[Function]]
) -> dict[str, int]:
    """What is written for each trainer; what of a plugin runs under others too is shared."""
    assert variant.build is not None
    shared = frozenset[Function]().union(*(own for key, own in ran.items() if key != "refimpl"))
    own = {**ran, "refimpl": ran["refimpl"] - shared}
    counts = {key: written(own[key], trainer.files) for key, trainer in trainers.items()}
    plugin = Source(Path(inspect.getfile(variant.build)).read_text(encoding="utf-8"))
    counts["refimpl"] += len(plugin.declared(variant.name))
    return counts


@click.command()
@click.argument("names", nargs=-1)
@click.option("--data", "tier", type=click.Choice(["stand-in", "real"]), default="stand-in")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--processes/--no-processes", "checked", default=True, show_default=True,
              help="Also time one check of some examples against a process each.")  # fmt: skip
@click.option("--table", "page", type=click.Path(dir_okay=False, path_type=Path))
def main(names: tuple[str, ...], tier: str, repeats: int, checked: bool, page: Path | None) -> None:
    """Time the trainers on these variants (EXAMPLE/VARIANT), or on four of different kinds."""
    if message := lacking():
        raise click.ClickException(message)
    torch.set_num_threads(1)
    found = [compared(name, tier, repeats) for name in names or TIMED]
    apart = max(each.apart for each in found)
    how = f"Medians of {repeats} on {tier} data, one thread; whole runs end {apart:.2g} apart. "
    if checked:
        how += f"{processes.seconds_of()}. "
    show(HEAD, COLUMNS, [each.row for each in found], how + versions(), page)
    click.echo(how)


def versions() -> str:
    """The versions of the trainers, which decide the times."""
    return "With " + ", ".join(f"{name} {import_module(name).__version__}" for name in NEEDED)


if __name__ == "__main__":
    main()
