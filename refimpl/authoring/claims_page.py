"""A page for each document: what it states, section by section, and what became of it.

Pages are made from the ledgers and the plugins alone, so that they are the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from refimpl.checking.claims import SIGNS, Judged, counts
from refimpl.errors import one_line
from refimpl.writing import write_text

EXPLAINED = {
    "✓": "is asserted and holds",
    "~": "a figure of a run: asserted to lie in a band around it",
    "✗": "no longer holds, since the version stated; asserted as an erratum",
    "≠": "a figure of a run that today's runs do not reach, for the reason stated",
    "○": "could be asserted, and is not yet",
    "–": "not checkable, for the reason stated",
}
HEADINGS = {
    "exact-values": "what-it-prints-exactly",
    "documented-failures": "what-must-fail",
    "errata": "what-no-longer-holds",
    "reaches-documented-figures": "where-training-ends",
}
"""The heading on an example's page under which the assertions of a check are listed."""


def write(lines: Sequence[Judged], folder: Path) -> Iterator[Path]:
    """Write the page of each document into ``folder`` and yield every path that is written."""
    folder.mkdir(parents=True, exist_ok=True)
    for document in sorted({line.document for line in lines}):
        path = folder / f"{document}.md"
        write_text(path, page(document, [line for line in lines if line.document == document]))
        yield path


def page(document: str, lines: Sequence[Judged]) -> str:
    """The page of one document as Markdown."""
    ordered = sorted(lines, key=lambda line: _in_order(line.claim.section))
    found = counts(lines)
    signs = (f"{found[verdict]} {sign}" for verdict, sign in SIGNS.items() if found[verdict])
    made = f"Made by `refimpl claims --pages docs/claims`; `refimpl claims {document}` shows what"
    counted = f"{found['statements']} statements; {found['asserted']} of the {found['checkable']}"
    head = [
        f"# What *{document}* states",
        "",
        f"{made} holds on your machine.",
        "",
        f"{counted} that can be checked are asserted: {', '.join(signs)}.",
        "",
        "| sign | a statement with it |",
        "| --- | --- |",
        *(f"| {sign} | {text} |" for sign, text in EXPLAINED.items()),
        "",
        *_gone([line for line in ordered if line.verdict == "no longer holds"]),
    ]
    for section, own in groupby(ordered, key=lambda line: line.claim.section):
        head += [
            f"## {section}",
            "",
            "| | statement | figure | asserted by |",
            "| --- | --- | --- | --- |",
        ]
        head += [_row(line) for line in own]
        head.append("")
    return "\n".join(head)


def _gone(lines: Sequence[Judged]) -> Iterator[str]:
    """What no longer holds, before everything else: since when, and what holds instead."""
    if not lines:
        return
    yield from (
        f"## No longer holds: {len(lines)}",
        "",
        "| section | statement | since | today | asserted by |",
        "| --- | --- | --- | --- | --- |",
    )
    for line in lines:
        since, _, today = line.because.removeprefix("since ").partition(": ")
        cells = (line.claim.section, line.claim.says, f"`{since}`", today)
        yield f"| ✗ {' | '.join(map(_cell, cells))} | {_link(line)} |"
    yield ""


def _in_order(section: str) -> list[tuple[int, int | str]]:
    """Sections in the order of their numbers."""
    parts = re.findall(r"\d+|\D+", section)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _row(line: Judged) -> str:
    claim = line.claim
    said = _cell(claim.says) + (f"<br>*{_cell(line.because)}*" if line.because else "")
    figure = "" if claim.figure is None else _cell(_short(claim.figure))
    return f"| {line.sign} | {said} | {figure} | {_link(line)} |"


def _short(figure: object) -> str:
    text = str(figure)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _link(line: Judged) -> str:
    claim = line.claim
    if not claim.check:
        return ""
    heading = HEADINGS.get(claim.check, "its-variants")
    named = " · ".join(part for part in (claim.variant, claim.check) if part)
    what = f": {_cell(claim.what)}" if claim.what else ""
    return f"[{line.example}](../examples/{line.example}.md#{heading}) {named}{what}"


def _cell(text: object) -> str:
    return one_line(text).replace("|", "\\|")
