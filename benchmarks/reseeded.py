"""Runs the whole suite with several other seeds: ``python -m benchmarks.reseeded FOLDER``.

An unchanged program should pass with any seeds. Each run is ``refimpl check --reseed N``,
whose results file stays in the folder; a run whose file is complete is not made again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from benchmarks.tables import show
from refimpl.checking.results import Results, read

SEEDS = (100, 200, 300, 400, 500, 600, 700, 800, 2000, 2100)
"""What is added to the variants' seeds; it avoids those of the baselines, which begin at 1000."""

HEAD = """# Whole runs with other seeds

Made by `python -m benchmarks.reseeded`: the suite on stand-in data, `refimpl check --reseed N`,
every check of it, each time with other seeds. Any failure would be a false alarm. A slope whose
start lies on a kink is taken again with the next seed; those that then passed are counted.
"""

COLUMNS = (
    "N",
    "passed",
    "of them from another draw",
    "failed",
    "skipped",
    "measured",
    "closest to its budget",
    "seconds",
)


def run(folder: Path, names: tuple[str, ...], by: int) -> Results:
    """The suite with ``by`` added to its seeds; read from its file if that is complete."""
    path = folder / f"{by}.jsonl"
    if not path.exists() or not read(path).complete:
        command = ["check", *names, "--reseed", str(by), "--results", str(path)]
        subprocess.run(
            [sys.executable, "-m", "refimpl", *command], stdout=subprocess.DEVNULL, check=False
        )
    return read(path)


def row(by: int, results: Results) -> tuple[str, ...]:
    """One run as a table row: its outcomes, and its largest error relative to a budget."""
    measured = [m for check in results.checks for m in check.measurements]
    closest = max((m.measured for m in measured if m.unit == "budget"), default=0.0)
    counts = results.outcomes
    seconds = results.footer["seconds"] if results.footer else float("nan")
    return (
        str(by),
        str(counts["passed"]),
        str(sum(check.held_later for check in results.checks)),
        str(counts["failed"]),
        str(counts["skipped"]),
        str(len(measured)),
        f"{closest:.2f}",
        f"{seconds:.0f}",
    )


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("names", nargs=-1)
@click.option("--reseed", "seeds", type=click.IntRange(min=1), multiple=True, default=SEEDS,
              help="Move the seeds by so much; once for each run.")  # fmt: skip
@click.option("--table", "page", type=click.Path(dir_okay=False, path_type=Path))
def main(folder: Path, names: tuple[str, ...], seeds: tuple[int, ...], page: Path | None) -> None:
    """Run the suite, or the checks of these examples, once for each number added to the seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = {by: run(folder, names, by) for by in seeds}
    rows = [row(by, results) for by, results in runs.items()]
    good = sum(results.passed for results in runs.values())
    how = f"{good} of {len(runs)} runs without a failure"
    show(HEAD, COLUMNS, rows, how, page)
    click.echo(how)
    if good < len(runs):
        raise click.ClickException(f"{len(runs) - good} runs failed; their results are in {folder}")


if __name__ == "__main__":
    main()
