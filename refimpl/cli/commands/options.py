"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from refimpl.checking import options as declared
from refimpl.cli.commands.arguments import require_plugins, require_writable

Command = TypeVar("Command", bound=Callable[..., Any])


def suite_option(
    option: declared.Option, name: str | None = None, **more: Any
) -> Callable[[Command], Command]:
    """An option of the suite, as a command takes it; ``name`` is the command's parameter."""
    kind: Any = click.Choice(option.choices) if option.choices else option.kind
    if option.many:
        more["multiple"] = True
    else:
        more.update(default=option.default, show_default=option.default is not None)
    settings = {"type": kind, "metavar": option.metavar, "help": option.help, **more}
    if option.choices:
        del settings["metavar"]
    return click.option(option.flag, name or option.name, **settings)


def plugin_option(command: Command) -> Command:
    """``--plugin``, for every command that reads examples."""
    return suite_option(declared.PLUGIN, "plugins", callback=require_plugins)(command)


def data_option(command: Command) -> Command:
    """``--data``, the tier to train on."""
    return suite_option(declared.DATA, "tier")(command)


def device_option(command: Command) -> Command:
    """``--device``, by torch's name for it."""
    return suite_option(declared.DEVICE)(command)


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
