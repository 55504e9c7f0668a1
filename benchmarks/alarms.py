"""Looks for false alarms: ``python -m benchmarks.alarms FOLDER``.

An unchanged program should pass with any seeds, on any number of threads, and with any of the
kernels that the CPU's libraries choose from. Each setting is one run of ``refimpl check``, whose
results file stays in the folder; a run whose file is complete is not made again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from benchmarks.tables import show
from refimpl.checking.results import Results, read

RESEEDED = (100, 200, 300, 400, 500, 600, 700, 800, 2000, 2100)
"""What is added to the variants' seeds; it avoids those of the baselines, which begin at 1000."""

WITHOUT_ONEDNN = Path(__file__).with_name("without_onednn.py")


@dataclass(frozen=True)
class Setting:
    """What is different in a run: further arguments of ``refimpl check``, and its environment."""

    name: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


SETTINGS = (
    *(Setting(f"seeds + {by}", ("--reseed", str(by))) for by in RESEEDED),
    *(
        Setting(f"threads: {n}", ("-n", "0"), {"OMP_NUM_THREADS": n, "MKL_NUM_THREADS": n})
        for n in ("1", "2", "4")
    ),
    Setting("torch without vector code", environment={"ATEN_CPU_CAPABILITY": "default"}),
    Setting("torch with AVX2", environment={"ATEN_CPU_CAPABILITY": "avx2"}),
    Setting("oneDNN with SSE4.1", environment={"DNNL_MAX_CPU_ISA": "SSE41"}),
    Setting("without oneDNN", ("--plugin", str(WITHOUT_ONEDNN))),
    Setting("MKL with SSE4.2", environment={"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
)

HEAD = """# Whole runs in which nothing is wrong

Made by `python -m benchmarks.alarms`: the suite on stand-in data with other seeds (`--reseed N`),
other numbers of threads, and other kernels of the CPU's libraries. Any failure would be a false
alarm. A slope whose start lies on a kink is taken again with the next seed; those that then passed
are counted.
"""

COLUMNS = (
    "setting",
    "passed",
    "of them from another draw",
    "failed",
    "skipped",
    "measured",
    "closest to its budget",
    "seconds",
)


def run(folder: Path, setting: Setting, arguments: tuple[str, ...]) -> Results:
    """The suite in a setting; read from its file if that is complete."""
    path = folder / f"{setting.name.replace(' ', '-').replace(':', '')}.jsonl"
    if not path.exists() or not read(path).complete:
        command = ["check", *arguments, *setting.arguments, "--results", str(path)]
        subprocess.run(
            [sys.executable, "-m", "refimpl", *command],
            stdout=subprocess.DEVNULL, check=False, env={**os.environ, **setting.environment},
        )  # fmt: skip
    return read(path)


def row(name: str, results: Results) -> tuple[str, ...]:
    """One run as a table row: its outcomes, and its largest error relative to a budget."""
    measured = [m for check in results.checks for m in check.measurements]
    closest = max((m.measured for m in measured if m.unit == "budget"), default=0.0)
    counts = results.outcomes
    seconds = results.footer["seconds"] if results.footer else float("nan")
    return (
        name,
        str(counts["passed"]),
        str(sum(check.held_later for check in results.checks)),
        str(counts["failed"]),
        str(counts["skipped"]),
        str(len(measured)),
        f"{closest:.2f}",
        f"{seconds:.0f}",
    )


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--setting", "names", type=click.Choice([each.name for each in SETTINGS]),
              multiple=True, help="Run only in this setting (repeatable).")  # fmt: skip
@click.option("--table", "page", type=click.Path(dir_okay=False, path_type=Path))
def main(
    folder: Path, arguments: tuple[str, ...], names: tuple[str, ...], page: Path | None
) -> None:
    """Run the suite once in each setting; ARGUMENTS are those of refimpl check."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [each for each in SETTINGS if not names or each.name in names]
    runs = {each.name: run(folder, each, arguments) for each in chosen}
    rows = [row(name, results) for name, results in runs.items()]
    good = sum(results.passed for results in runs.values())
    how = f"{good} of {len(runs)} runs without a failure"
    show(HEAD, COLUMNS, rows, how, page)
    click.echo(how)
    if good < len(runs):
        raise click.ClickException(f"{len(runs) - good} runs failed; their results are in {folder}")


if __name__ == "__main__":
    main()
