"""A table for the terminal, and for a page."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from refimpl.markdown import table


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Names to the left, figures to the right."""
    shown = Table(box=None, header_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


def as_page(head: str, columns: Sequence[str], rows: Sequence[Sequence[str]], how: str) -> str:
    """A page in Markdown: what it shows, the same table, and how it was made."""
    made = table([columns, *rows], figures_from=1)
    return f"{head}\n{made}\n{how}; torch {torch.__version__}.\n"
