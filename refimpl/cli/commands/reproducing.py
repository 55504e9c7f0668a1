"""A wrong kernel as a script of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from refimpl.cli.commands.arguments import example_of, located_errors
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
    from refimpl.data import Tier


@click.command()
@click.argument("name")
@click.argument("variant", required=False)
@click.option("--execution", metavar="NAME",
              help="Where the kernel is wrong (default: the plain device).")  # fmt: skip
@click.option("--kernel", metavar="NAME",
              help="Which one, as aten::mm (default: the first that is wrong).")  # fmt: skip
@output_option("--output", help="The script to write (default: reproduce.py).",
               default=Path("reproduce.py"))  # fmt: skip
@data_option
@device_option
@plugin_option
@debug_option
def reproduce(
    name: str,
    variant: str | None,
    execution: str | None,
    kernel: str | None,
    output: Path,
    tier: Tier,
    device: str,
    plugins: tuple[str, ...],
) -> None:
    """Write a script that shows a wrong kernel, for a bug report.

    It needs torch and NumPy alone: one call, with inputs as small as still show the fault. It exits
    with 1 where the fault is there, with 0 where it is not.
    """
    example, _ = example_of(name, plugins)
    chosen = example.variant(variant)

    from refimpl.loading import registry
    from refimpl.parity import judged_steps, reproducer

    where = registry.load(plugins, only=[]).execution(execution or device, device)
    if chosen.numpy or not where.supports(chosen):
        raise RefimplError(f"variant {chosen.name!r} does not support execution {where.name!r}")
    if lacking := where.missing() or where.unfit(chosen):
        raise RefimplError(f"execution {where.name!r} cannot run here: {lacking}")
    if not judged_steps.computes_here(where):
        raise RefimplError(
            f"execution {where.name!r} computes in other processes, where no call can be seen; "
            "name one without them"
        )
    with located_errors(example):
        said, files = reproducer.reproduce(chosen, where, tier, output, kernel or "")
    say(said)
    for path in files:
        say(f"wrote {path}")
