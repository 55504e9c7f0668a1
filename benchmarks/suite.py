"""Times the suite against the documents' own loops: ``python -m benchmarks.suite``.

The loops run one after another in this process, with the threads that torch takes by itself; the
suite is ``refimpl check`` with a worker a core. Where a variant does not say how it is built,
updated and judged, its own loop is the document's.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
import torch

from benchmarks.loops import WORKERS, as_documented, documented_samples, in_its_own_loop
from benchmarks.tables import show
from refimpl import Example, Variant, registry
from refimpl.data import Tier
from refimpl.problem import pose
from refimpl.requirements import missing

HEAD = """# The suite beside the documents' loops

Made by `python -m benchmarks.suite`: each document's loop once, one after another, and the whole
suite, `refimpl check`, which trains them too and asks every other check besides.
"""

COLUMNS = ("what", "seconds")


def seconds_of_loop(example: Example, variant: Variant, tier: Tier) -> float:
    """How long the document's own loop of a variant takes."""
    problem = pose(variant, tier)
    declared = variant.build and variant.optimizer and variant.loss
    with documented_samples(problem) as samples:
        began = time.perf_counter()
        if declared:
            as_documented(variant, problem, samples, WORKERS.get(example.name, 0))
        else:
            in_its_own_loop(variant, problem)
        return time.perf_counter() - began


def seconds_of_suite(names: tuple[str, ...], tier: Tier) -> float:
    """How long ``refimpl check`` takes as a command; on real data it is asked about the CPU."""
    only = ["--execution", "cpu"] if tier == "real" else []
    command = [sys.executable, "-m", "refimpl", "check", *names, "--data", tier, *only]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"the suite fails:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - began


@click.command()
@click.argument("names", nargs=-1)
@click.option("--data", "tier", type=click.Choice(["stand-in", "real"]), default="stand-in")
@click.option("--table", "page", type=click.Path(dir_okay=False, path_type=Path))
def main(names: tuple[str, ...], tier: Tier, page: Path | None) -> None:
    """Time the loops and the checks of these examples, or of all."""
    examples = registry.load(only=names or None).examples.values()
    loops = {
        f"{example.value.name}/{variant.name}": seconds_of_loop(example.value, variant, tier)
        for example in examples
        for variant in example.value.variants
        if variant.trains and missing(variant.needs) is None
    }
    if not loops:
        raise click.UsageError("none of these trains")
    documents, suite = sum(loops.values()), seconds_of_suite(names, tier)
    rows = [(name, f"{seconds:.1f}") for name, seconds in loops.items()]
    rows += [
        ("the documents' loops", f"{documents:.1f}"),
        ("the suite", f"{suite:.1f}"),
        ("the suite / the loops", f"{suite / documents:.2f}"),
    ]
    how = f"One run on {tier} data, {torch.get_num_threads()} threads for the loops"
    show(HEAD, COLUMNS, rows, how, page)


if __name__ == "__main__":
    main()
