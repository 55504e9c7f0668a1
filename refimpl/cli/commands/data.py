"""The documents' own data."""

from __future__ import annotations

import click

from refimpl.cli.commands.group import Group
from refimpl.cli.commands.options import debug_option
from refimpl.cli.messages import complain, say
from refimpl.errors import DataError, RefimplError


@click.group(cls=Group)
def data() -> None:
    """List, download and verify the documents' own data."""


@data.command("list")
@debug_option
def data_list() -> None:
    """List every real data set and whether it is here."""
    from refimpl.cli.rendering import print_data
    from refimpl.store import sources

    print_data(sources.entries(), sources.verify())


@data.command()
@click.argument("names", nargs=-1)
@debug_option
def fetch(names: tuple[str, ...]) -> int:
    """Download the named data sets (default: all).

    Continues interrupted downloads. If one fails, the others are still tried, and the exit status
    is 1.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from refimpl.data import data_root
    from refimpl.store import sources

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    data_root()  # one error for all sets if it names no folder
    fetched, failed = [], False
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for entry in sources.chosen(names or None):
            try:
                fetched += sources.fetch([entry.name], progress=progress)
            except DataError as error:
                complain(str(error))
                failed = True
    for file in fetched:
        say(f"{file.action} {file.path}")
    return 1 if failed else 0


@data.command()
@click.argument("names", nargs=-1)
@debug_option
def verify(names: tuple[str, ...]) -> int:
    """Compare every file that is here with its digest.

    Fails if a file is damaged, or if there is no file at all.
    """
    from refimpl.store import sources

    statuses = sources.verify(names or None)
    for status in statuses:
        say(str(status))
    if all(status.state == "missing" for status in statuses):
        raise RefimplError("there is no data file to check; refimpl data fetch downloads them")
    return 1 if any(status.state in ("damaged", "unknown") for status in statuses) else 0
