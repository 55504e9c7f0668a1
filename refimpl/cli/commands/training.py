"""Train an example, or compare two ways to train it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from refimpl.cli.commands.arguments import (
    example_of,
    located_errors,
    make_folder,
    require_device,
    require_distinct_files,
)
from refimpl.cli.commands.options import (
    data_option,
    debug_option,
    device_option,
    output_option,
    plugin_option,
)
from refimpl.cli.messages import say
from refimpl.errors import RefimplError

if TYPE_CHECKING:
    from refimpl.contract import Example, Variant
    from refimpl.data import Tier

LINES_OF_PROGRESS = 20
"""The most epochs that a run shows if its output is not a terminal."""


@click.command()
@click.argument("name")
@click.option("--variant", help="Variant to train (default: the example's first).")
@data_option
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Number of epochs (default: the document's)."
)
@click.option("--seed", type=click.IntRange(min=0),
              help="Seed of start values and batch order (default: the start that the document "
              "prints, if it prints one, or else the variant's own seed).")  # fmt: skip
@device_option
@output_option(
    "--plot",
    help="Draw the learning curves, the rows and what is predicted for them to this file; "
    "missing folders are created.",
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="FILE",
              help="Go on from a file of --save, with its variant, data and seed.")  # fmt: skip
@output_option("--save", help="Save parameters and optimizer state to this file; "
               "missing folders are created.")  # fmt: skip
@plugin_option
@debug_option
def run(
    name: str,
    variant: str | None,
    tier: Tier,
    epochs: int | None,
    seed: int | None,
    device: str,
    plot: Path | None,
    resume: Path | None,
    save: Path | None,
    plugins: tuple[str, ...],
) -> None:
    """Train an example as its document does.

    Prints each epoch as it ends, then the final figures.
    """
    from dataclasses import replace

    require_distinct_files({"--plot": plot, "--save": save})
    example, _ = example_of(name, plugins)
    chosen = example.variant(variant)
    if plot is not None:
        from refimpl.authoring.plotting import require_format

        require_format(plot)
    require_device(device)
    begin = None
    if resume is not None:
        from refimpl.training.checkpoint import load

        begin = load(resume)
        if seed is None and isinstance(begin.about.get("seed"), int):
            seed = cast("int", begin.about["seed"])
    about: dict[str, str | int | None] = {
        "example": name, "variant": chosen.name, "tier": tier, "seed": seed,
    }  # fmt: skip
    if begin is not None and resume is not None:
        begin.require(resume, about)
    if epochs is not None and chosen.protocol is not None:
        protocol = replace(chosen.protocol, epochs=epochs, stand_in_epochs=None)
        chosen = replace(chosen, protocol=protocol)

    from refimpl.checking.checks import Subject, obstacle
    from refimpl.cli.progress import RunProgress, final_line
    from refimpl.composition import on_device
    from refimpl.training.loop import train
    from refimpl.training.problem import pose

    execution = on_device(device)
    if chosen.data is not None and tier == "real":
        chosen.data.load(tier)  # what is wrong with the data is an error here, not a skip
    lacking = obstacle(Subject(example, chosen, execution, tier))
    if lacking:
        raise RefimplError(f"{name} {chosen.name} cannot run here: {lacking}")
    with (
        located_errors(example),
        RunProgress(example, chosen, tier, LINES_OF_PROGRESS) as progress,
    ):
        problem = pose(chosen, tier, seed=seed, execution=execution).but(checkpoint=begin)
        if begin is not None and problem.first_step >= problem.length:
            raise RefimplError(
                f"{resume} is of update {begin.step}, and the run has {problem.length}: nothing is "
                "left to train; give --epochs more, or leave --resume out"
            )
        history = train(chosen, problem, on_epoch=progress.epoch)
        progress.ended(history.epochs[-1])
    if history.replays is not None and history.replays.why_not:
        say(f"not replayed as one graph a step: {history.replays.why_not}")
    if save:
        from refimpl.training.checkpoint import save as save_checkpoint
        from refimpl.training.checkpoint import take

        assert history.last is not None
        save_checkpoint(take(history.last, problem.first_step + history.steps, **about), save)
        say(f"saved {save}")
    if plot:
        from refimpl.authoring.pictures import predicted_by
        from refimpl.authoring.plotting import plot_history

        assert history.last is not None
        make_folder(plot)
        figures = chosen.facts.figures if chosen.facts else ()
        rows = predicted_by(chosen, problem, history.last)
        plot_history(history, f"{name} · {chosen.name} · {tier} data", plot, figures, rows)
        say(f"plotted {plot}")
    say(final_line(history.final))


@click.command()
@click.argument("name")
@click.argument("variants", nargs=-1)
@click.option("--execution", metavar="NAME",
              help="Compare the variant under this execution with its oracle, "
              "instead of two variants.")  # fmt: skip
@click.option("--against", type=click.Choice(["cpu"]), default="cpu", show_default=True,
              help="What to compare an execution with: the oracle, which is the variant's "
              "float64 run on the CPU.")  # fmt: skip
@data_option
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True,
              help="Number of updates to compare.")  # fmt: skip
@device_option
@plugin_option
@debug_option
def compare(
    name: str,
    variants: tuple[str, ...],
    execution: str | None,
    against: str,
    tier: Tier,
    steps: int,
    device: str,
    plugins: tuple[str, ...],
) -> int:
    """Compare two variants, or an execution with the oracle.

    Both runs make the same updates, step by step; the first tensor that differs is reported.

    refimpl compare NAME A B: both start from B's start and read A's batches; A in float64 is the
    oracle.

    refimpl compare NAME [VARIANT] --execution cuda+compile: the variant, compiled, on cuda is
    compared with its float64 run on the CPU. So it is with --device cuda --execution compile.
    """
    example, _ = example_of(name, plugins)
    if execution is not None:
        if len(variants) > 1:
            raise click.UsageError("with --execution, name at most one variant")
        chosen = example.variant(variants[0] if variants else None)
        with located_errors(example):
            return _compare_execution(chosen, execution, device, tier, steps, plugins)
    if len(variants) != 2:
        raise click.UsageError("name two variants to compare, or give --execution")
    require_device(device)
    first, second = example.variant(variants[0]), example.variant(variants[1])
    _require_one_ladder(example, first, second)

    from refimpl.composition import on_device
    from refimpl.parity.lockstep import compare_in_ladder

    on = on_device(device)
    agrees = True
    for precision in ("float64", "float32"):
        with located_errors(example):
            comparison = compare_in_ladder(first, second, tier, steps, precision, on)
        agrees = agrees and comparison.agrees
        say(str(comparison))
    return 0 if agrees else 1


def _compare_execution(
    variant: Variant, name: str, device: str, tier: Tier, steps: int, plugins: Sequence[str]
) -> int:
    from refimpl.loading import registry
    from refimpl.parity.against_oracle import compare_execution
    from refimpl.parity.judged_steps import computes_here, first_beyond

    execution = registry.load(plugins, only=[]).execution(name, device)
    lacking = execution.missing()
    if lacking:
        raise RefimplError(f"execution {name!r} cannot run here: {lacking}")
    if not execution.supports(variant):
        raise RefimplError(f"variant {variant.name!r} does not support execution {name!r}")
    if unfit := execution.unfit(variant):
        raise RefimplError(f"variant {variant.name!r} cannot run under {name!r}: {unfit}")
    comparison = compare_execution(variant, execution, tier, steps)
    say(str(comparison))
    if not comparison.agrees and computes_here(execution):
        first = first_beyond(variant, execution, tier)
        say(f"the first kernel off is {first}" if first else "every kernel is right")
    return 0 if comparison.agrees else 1


def _require_one_ladder(example: Example, first: Variant, second: Variant) -> None:
    if first.ladder is None or first.ladder != second.ladder:
        others = [
            v.name
            for v in example.variants
            if v.ladder and v.ladder == first.ladder and v.name != first.name
        ]
        raise RefimplError(
            f"{first.name} and {second.name} of {example.name} are not the same computation; "
            f"{first.name} can be compared with: {', '.join(others) or 'nothing'}"
        )
