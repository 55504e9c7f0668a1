"""How a mistyped command is answered."""

from __future__ import annotations

import click

from refimpl.names import unknown


class Group(click.Group):
    """A group of commands that answers a mistyped one with the nearest there is."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of that name; raises :class:`UnknownNameError` for another."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            names = self.list_commands(ctx)
            raise unknown(f"there is no command {args[0]!r}", args[0], names)
        return super().resolve_command(ctx, args)
