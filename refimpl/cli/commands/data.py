"""The documents' own data."""

from __future__ import annotations

import click

from refimpl.cli.commands.arguments import complain
from refimpl.cli.commands.group import Group
from refimpl.cli.commands.options import debug_option
from refimpl.errors import DataError, RefimplError


@click.group(cls=Group)
def data() -> None:
    """The documents' own data: what is here and whether it is sound."""


@data.command("list")
@debug_option
def data_list() -> None:
    """Every real data set and whether it is here."""
    from refimpl.cli.rendering import print_data
    from refimpl.store import sources

    print_data(sources.entries(), sources.verify())


@data.command()
@click.argument("names", nargs=-1)
@debug_option
def fetch(names: tuple[str, ...]) -> int:
    """Download data sets, all of them where none is named.

    Goes on with what was cut short. Fails where one of them could not be fetched, after it has
    tried the others.
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
        click.echo(f"{file.action} {file.path}")
    return 1 if failed else 0


@data.command()
@click.argument("names", nargs=-1)
@debug_option
def verify(names: tuple[str, ...]) -> int:
    """Compare every file that is here with its digest.

    Fails where one is damaged, or where none is here.
    """
    from refimpl.store import sources

    statuses = sources.verify(names or None)
    for status in statuses:
        click.echo(str(status))
    if all(status.state == "missing" for status in statuses):
        raise RefimplError("no file is here to be compared; refimpl data fetch downloads them")
    return 1 if any(status.state in ("damaged", "unknown") for status in statuses) else 0
