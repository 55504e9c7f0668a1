"""Tables in Markdown, for the pages that commands write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from refimpl.errors import printable

LONGEST = 160
"""The most characters in a cell."""


def table(rows: Iterable[Sequence[str]], figures_from: int | None = None) -> str:
    """A table. The first row is its heading; columns from ``figures_from`` on are right-aligned."""
    head, *body = rows
    right = len(head) if figures_from is None else figures_from
    rule = ["---" if number < right else "---:" for number in range(len(head))]
    lines = [[_cell(text) for text in head], rule, *([_cell(t) for t in line] for line in body)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def inert(text: str) -> str:
    """A text in which Markdown finds no address to link to and nobody to notify."""
    return _LINKED.sub(lambda found: f"{found[0]}<!-- -->", text)


_LINKED = re.compile(r"(@)(?=\w)|(:)(?=//)|(\bwww)(?=\.)", re.IGNORECASE)
"""``@name``, ``://`` and ``www.``, each of which a comment takes apart."""


def _cell(text: str) -> str:
    line = printable(text)
    short = line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
    return inert(short.replace("|", "\\|").replace("<", "&lt;"))
