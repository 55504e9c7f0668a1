"""A table for the terminal, and for a page."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Names to the left, figures to the right."""
    table = Table(box=None, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def as_page(head: str, columns: Sequence[str], rows: Sequence[Sequence[str]], how: str) -> str:
    """A page in Markdown: what it shows, the same table, and how it was made."""
    lines = [columns, ("---", *("---:" for _ in columns[1:])), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{head}\n{table}\n\nMedians of {how}; torch {torch.__version__}.\n"
