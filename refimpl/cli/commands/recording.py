"""Records: what data, models and runs are today, kept so that a change is seen and named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from refimpl.cli.commands.options import data_option, debug_option, plugin_option
from refimpl.cli.messages import complain, say
from refimpl.errors import RefimplError

if TYPE_CHECKING:
    from refimpl.data import Tier
    from refimpl.records.files import Kind

KINDS: tuple[Kind, ...] = ("data", "models", "runs", "values")

BECAUSE = click.option("--because", default="", metavar="REASON",
                       help="Why what is kept may change; the file keeps the reason beside what "
                       "moved.")  # fmt: skip
"""For every command that writes over what checks compare with."""


@click.command()
@click.argument("names", nargs=-1)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS),
              help="Only records of this kind (repeatable).")  # fmt: skip
@data_option
@BECAUSE
@plugin_option
@debug_option
def record(
    names: tuple[str, ...],
    kinds: tuple[Kind, ...],
    tier: Tier,
    because: str,
    plugins: tuple[str, ...],
) -> int:
    """Keep facts about the data, and what exact values are computed by.

    Covers the named examples (default: all). What is not recorded yet is added. Where something
    recorded moves, it is shown, and only written with --because.
    """
    from refimpl.loading import registry
    from refimpl.records import files, making

    loaded = registry.load(plugins, only=names or None)
    refused = False
    for path, found in making.today(loaded.chosen(names), tier, kinds or KINDS):
        before = path.exists() and path.read_bytes()
        try:
            moved = files.update(path, found, because)
        except files.RecordError as error:
            complain(str(error))
            refused = True
            continue
        for move in moved:
            say(f"{path.stem}: {move}")
        if path.read_bytes() != before:
            say(f"wrote {path.parent.name}/{path.name}")
    if refused:
        raise RefimplError("what would move was not written; the others were")
    return 0
