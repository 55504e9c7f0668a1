"""What the command line says besides its answers."""

from __future__ import annotations

import click

from refimpl.errors import escaped, printable


def say(text: str) -> None:
    """Print an answer; what a terminal would obey in names from outside is printed as an escape."""
    click.echo(escaped(text))


def complain(message: str) -> None:
    """Print an error on one line of standard error."""
    click.echo(f"refimpl: {printable(message)}", err=True)
