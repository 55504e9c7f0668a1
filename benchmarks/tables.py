"""A table for the terminal, and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from refimpl.markdown import table


def show(
    head: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    how: str,
    page: Path | None,
) -> None:
    """Print a table; a ``page`` also says what it shows (``head``) and how it is made (``how``)."""
    shown = Table(box=None, header_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)
    if page is not None:
        made = table([columns, *rows], figures_from=1)
        page.write_text(f"{head}\n{made}\n{how}; torch {torch.__version__}.\n", encoding="utf-8")
