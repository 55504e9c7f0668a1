"""What the command line says besides its answers."""

from __future__ import annotations

import click

from refimpl.errors import printable


def complain(message: str) -> None:
    """Print an error on one line of standard error."""
    click.echo(f"refimpl: {printable(message)}", err=True)
