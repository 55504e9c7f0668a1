"""Times the suite against the documents' own loops: ``python -m benchmarks.suite``.

The loops run one after another in this process, with torch's default number of threads; the suite
is ``refimpl check`` with one worker per core. If it is not declared what a variant minimises and
how, its own loop is the document's. On real data the loops take more than
half an hour; instead, a part of each one's epochs, which are all alike, can be timed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch

from benchmarks.epochs import of_part
from benchmarks.loops import (
    OWN,
    as_documented,
    documented_samples,
    in_its_own_loop,
    workers_of,
)
from benchmarks.tables import show
from refimpl import Example, Variant
from refimpl.baselines.calibration import wanted
from refimpl.checking.results import read
from refimpl.data import Tier
from refimpl.loading import registry
from refimpl.training.problem import pose

HEAD = """# The suite beside the documents' loops

Made by `python -m benchmarks.suite`: each document's loop once, one after another, added up by
example, and the suite as the command below the table, which trains them too and runs every other
check as well.
"""

COLUMNS = ("what", "seconds")


def seconds_of_loop(example: Example, variant: Variant, tier: Tier, part: float) -> float:
    """How long the document's own loop takes, extrapolated from this part of its epochs."""
    whole = pose(variant, tier)
    problem = of_part(whole, part)
    share = problem.protocol.epochs_on(tier) / whole.protocol.epochs_on(tier)
    own = OWN.get(f"{example.name}/{variant.name}")
    declared = variant.build and variant.loss and (variant.optimizer or own)
    with documented_samples(problem) as samples:
        began = time.perf_counter()
        if declared:
            workers = workers_of(example.name, variant.name)
            as_documented(variant, problem, samples, workers, own)
        else:
            in_its_own_loop(variant, problem)
        return (time.perf_counter() - began) / share


def command(names: tuple[str, ...], tier: Tier) -> list[str]:
    """The command that runs the suite on a tier; on real data for the CPU alone, as in CI."""
    only = ["--execution", "cpu"] if tier == "real" else []
    return ["refimpl", "check", *names, "--data", tier, *only]


def suite(names: tuple[str, ...], tier: Tier) -> tuple[float, str]:
    """The seconds that ``refimpl check`` takes as a command, and its peak memory in words."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", *command(names, tier), "--results", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            raise click.ClickException(
                f"the suite fails:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        footer = read(path).footer or {}
    return seconds, f"at most {footer['peak_mib']:,} MiB in one process"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--data", "tier", type=click.Choice(["stand-in", "real"]), default="stand-in")
@click.option("--part", type=click.FloatRange(0, 1), default=1.0, show_default=True,
              help="Train only this part of each loop's epochs and reckon the rest.")  # fmt: skip
@click.option("--table", "page", type=click.Path(dir_okay=False, path_type=Path))
def main(names: tuple[str, ...], tier: Tier, part: float, page: Path | None) -> None:
    """Time the loops and the checks of these examples, or of all."""
    examples = [own.value for own in registry.load(only=names or None).examples.values()]
    loops: dict[str, float] = defaultdict(float)
    for example, variant in wanted(examples, (), tier):
        loops[example.name] += seconds_of_loop(example, variant, tier, part)
    if not loops:
        raise click.UsageError("none of these trains")
    documents, (checks, memory) = sum(loops.values()), suite(names, tier)
    rows = [(name, f"{seconds:.1f}") for name, seconds in loops.items()]
    rows += [
        ("the documents' loops", f"{documents:.1f}"),
        ("the suite", f"{checks:.1f}"),
        ("the suite / the loops", f"{checks / documents:.2f}"),
    ]
    reckoned = "" if part == 1 else f", reckoned from {part:.0%} of their epochs"
    how = (
        f"One run on {tier} data, {torch.get_num_threads()} threads for the loops{reckoned}; the "
        f"suite is `{' '.join(command(names, tier))}`, its memory {memory}"
    )
    show(HEAD, COLUMNS, rows, how, page)


if __name__ == "__main__":
    main()
