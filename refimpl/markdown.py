"""Tables in Markdown, for the pages that commands write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from refimpl.errors import one_line

LONGEST = 160
"""The most characters in a cell."""


def table(rows: Iterable[Sequence[str]], figures_from: int | None = None) -> str:
    """A table. The first row is its heading; columns from ``figures_from`` on are right-aligned."""
    head, *body = rows
    right = len(head) if figures_from is None else figures_from
    rule = ["---" if number < right else "---:" for number in range(len(head))]
    lines = [[_cell(text) for text in head], rule, *([_cell(t) for t in line] for line in body)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    line = one_line(text)
    short = line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
    return short.replace("|", "\\|").replace("<", "&lt;")
