"""A badge: the verdict on some environments, as a small picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from refimpl.report.columns import Column
from refimpl.report.verdict import DEVICES

COLOURS = {"passed": "#17703a", "failed": "#b3261e", "incomplete": "#8a5300"}

LABEL = "documented examples"

WIDTH_OF_A_LETTER = 6.6


def badge(columns: Sequence[Column]) -> str:
    """An SVG that says what the verdict is, and of which torch: the worst of the environments."""
    states = {"unreadable": "failed", "absent": "incomplete"}
    found = {states.get(column.state, column.state) for column in columns}
    state = next(s for s in ("failed", "incomplete", "passed") if s in found)
    return _drawn(LABEL, _says(columns, state), COLOURS[state])


def _says(columns: Sequence[Column], state: str) -> str:
    ran = [column for column in columns if column.runs]
    good = sum(column.state == "passed" for column in columns)
    if len(columns) == 1 and ran:
        torch = str(ran[0].environment.get("packages", {}).get("torch") or "?").partition("+")[0]
        device = str(ran[0].header.get("device", "cpu")).partition(":")[0]
        what = {"passed": "hold", "failed": "do not hold", "incomplete": "not all checked"}[state]
        return f"{what} on torch {torch}, {DEVICES.get(device, device)}"
    return f"hold in {good} of {len(columns)} environments"


def _drawn(label: str, says: str, colour: str) -> str:
    left, right = (round(len(text) * WIDTH_OF_A_LETTER + 12) for text in (label, says))
    font = "font-family='Verdana,DejaVu Sans,sans-serif' font-size='11' fill='#fff'"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{left + right}' height='20' role='img' "
        f"aria-label='{escape(f'{label}: {says}')}'>"
        f"<title>{escape(f'{label}: {says}')}</title>"
        f"<rect width='{left}' height='20' fill='#444b52'/>"
        f"<rect x='{left}' width='{right}' height='20' fill='{colour}'/>"
        f"<text x='{left / 2:g}' y='14' text-anchor='middle' {font}>{escape(label)}</text>"
        f"<text x='{left + right / 2:g}' y='14' text-anchor='middle' {font}>{escape(says)}</text>"
        "</svg>\n"
    )
