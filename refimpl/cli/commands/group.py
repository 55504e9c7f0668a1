"""Suggests the nearest command for a mistyped one."""

from __future__ import annotations

import click

from refimpl.names import unknown


class Group(click.Group):
    """A group of commands that suggests the nearest one if a name is mistyped."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command with that name; raises :class:`UnknownNameError` if there is none."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            names = self.list_commands(ctx)
            raise unknown(f"there is no command {args[0]!r}", args[0], names)
        return super().resolve_command(ctx, args)
