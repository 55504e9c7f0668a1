"""Baselines: make them from many runs, and audit the error rates that they declare."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from refimpl.cli.commands.options import data_option, debug_option, output_option, plugin_option
from refimpl.cli.commands.recording import BECAUSE
from refimpl.cli.messages import complain, say
from refimpl.errors import RefimplError
from refimpl.names import unknown

if TYPE_CHECKING:
    from refimpl.contract import Example
    from refimpl.data import Tier


@click.command()
@click.argument("names", nargs=-1)
@click.option("--seeds", default=50, show_default=True, type=click.IntRange(5),
              help="Number of runs that each baseline has in the end.")  # fmt: skip
@click.option("--variant", "variants", multiple=True, metavar="NAME",
              help="Only variants with this name (repeatable).")  # fmt: skip
@data_option
@click.option("-n", "workers", type=click.IntRange(1), default=None, metavar="N",
              help="Number of processes (default: one per core).")  # fmt: skip
@click.option("--engine", "kind", type=click.Choice(["processes", "ray"]), default="processes",
              show_default=True,
              help="Train in processes on this machine, or on a Ray cluster.")  # fmt: skip
@click.option("--address", metavar="HOST:PORT",
              help="Address of the Ray cluster "
              "(default: Ray starts one on this machine).")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=3600.0,
              show_default=True, metavar="SECONDS",
              help="The most time that one seed may take.")  # fmt: skip
@output_option("--fresh", folder=True,
               help="Run seeds that no baseline has, and write the runs to this folder for "
               "audit --fresh; missing folders are created.")  # fmt: skip
@BECAUSE
@plugin_option
@debug_option
def calibrate(
    names: tuple[str, ...],
    seeds: int,
    variants: tuple[str, ...],
    tier: Tier,
    workers: int | None,
    kind: Literal["processes", "ray"],
    address: str | None,
    timeout: float,
    fresh: Path | None,
    because: str,
    plugins: tuple[str, ...],
) -> None:
    """Train with many seeds; keep the final figures as baselines.

    Covers the named examples (default: all). A baseline of another program, other data or another
    torch is only made anew with --because. Each finished seed is written to disk at once. If the
    command is interrupted, only the seeds in progress are lost; run it again to continue.
    """
    from dataclasses import replace

    from refimpl.baselines import calibration, committed
    from refimpl.baselines.sweep import Engine
    from refimpl.cli.progress import CalibrationProgress
    from refimpl.loading import registry
    from refimpl.processes import interrupted_by_signals
    from refimpl.requirements import require_some_real_data
    from refimpl.seeds import FIRST_SEED, FRESH_SEED

    engine = Engine(workers or os.cpu_count() or 1, kind, address, timeout)
    loaded = registry.load(plugins, only=names or None)
    examples = loaded.chosen(names)
    _require_variants(names, examples, variants)
    if tier == "real":
        require_some_real_data(examples)
    first_seed = FIRST_SEED
    if fresh is not None:
        examples, first_seed = [replace(each, baselines=fresh) for each in examples], FRESH_SEED
    chosen = list(calibration.wanted(examples, variants, tier))
    if not chosen:
        raise RefimplError("no named example trains here, so there is no baseline to make")
    with interrupted_by_signals(), CalibrationProgress() as progress:
        try:
            paths = calibration.calibrate(
                chosen, tier, seeds, engine, plugins, progress, first_seed, curves=fresh is None,
                because=because,
            )  # fmt: skip
        except KeyboardInterrupt:
            kept = sum(plan.finished_seeds() for plan in progress.plans)
            complain(f"{kept} finished seeds are kept; repeat the command to go on")
            raise
    for path in paths if because else ():
        for change in committed.read(path).changes[-1:]:
            for move in change.moved if change.because == because else ():
                say(f"{path.stem}: {move}")
    say(f"{len(paths)} baselines of {seeds} seeds in {paths[0].parent}")


def _require_variants(
    names: Sequence[str], examples: Iterable[Example], variants: Iterable[str]
) -> None:
    known = {variant.name for example in examples for variant in example.variants}
    for variant in variants:
        if variant not in known:
            whose = ", ".join(names) or "any example"
            raise unknown(f"there is no variant {variant!r} of {whose}", variant, known)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every figure.")
@click.option("--fresh", type=click.Path(exists=True, file_okay=False, path_type=Path),
              metavar="FOLDER",
              help="Judge the runs that calibrate --fresh wrote to this folder, "
              "and count the false alarms.")  # fmt: skip
@output_option("--table", help="Write the page of the audit to this file; "
               "missing folders are created.")  # fmt: skip
@plugin_option
@debug_option
def audit(
    names: tuple[str, ...],
    as_json: bool,
    fresh: Path | None,
    table: Path | None,
    plugins: tuple[str, ...],
) -> int:
    """Check that the baselines keep their declared error rates.

    A baseline declares how often a check of an unchanged program would fail.

    Exits with 1 if the rule fails more often than declared, on drawn values or on fresh runs; if a
    variant that trains has no baseline of stand-in runs, or one of another program; if most runs
    miss a stated range; or if a documented figure lies outside its band and no reason is given.
    """
    from refimpl.baselines import audit_page
    from refimpl.baselines.auditing import audited
    from refimpl.cli.rendering import print_audit
    from refimpl.loading import registry
    from refimpl.writing import write_lines

    loaded = registry.load(plugins, only=names or None)
    examples = loaded.chosen(names)
    found = audited(examples, fresh)
    if as_json:
        click.echo(json.dumps(found.record(), indent=2))
    else:
        print_audit(found)
    if table is not None:
        write_lines(table, audit_page.page(found).splitlines())
    return 0 if found.holds else 1
