"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from refimpl.cli.commands.arguments import require_plugins, require_writable

Command = TypeVar("Command", bound=Callable[..., Any])


def plugin_option(command: Command) -> Command:
    """``--plugin``, for every command that reads examples."""
    return click.option(
        "--plugin", "plugins", multiple=True, metavar="FILE|MODULE", callback=require_plugins,
        help="Also load the examples of this plugin (repeatable).",
    )(command)  # fmt: skip


def data_option(command: Command) -> Command:
    """``--data``, the tier of data to train on."""
    return click.option(
        "--data", "tier", type=click.Choice(["stand-in", "real"]), default="stand-in",
        show_default=True,
        help="Data to train on: generated stand-ins, or the documents' own (REFIMPL_DATA).",
    )(command)  # fmt: skip


def device_option(command: Command) -> Command:
    """``--device``, by torch's name for it."""
    return click.option(
        "--device", default="cpu", show_default=True, metavar="DEVICE",
        help="Device to run on, by torch's name for it: cpu, cuda, cuda:1, mps …",
    )(command)  # fmt: skip


def output_option(*names: str, folder: bool = False, **more: Any) -> Callable[[Command], Command]:
    """An option that names a file, or a folder, to write to."""
    kind = click.Path(file_okay=not folder, dir_okay=folder, writable=True, path_type=Path)
    return click.option(
        *names, type=kind, metavar="FOLDER" if folder else "FILE", callback=require_writable,
        **more,
    )  # fmt: skip


def debug_option(command: Command) -> Command:
    """``--debug`` after the command's name, where people type it."""
    return click.option("--debug", is_flag=True, expose_value=False, hidden=True)(command)
