"""Makes the README's pictures and the summary of the matrix from the stored results of whole runs.

python docs/make_pictures.py            (the picture of the page needs Chromium and chromedriver)
"""

from __future__ import annotations

import argparse
import hashlib
import io
import lzma
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from refimpl.checking.results import read
from refimpl.cli.verdict_text import conformance_table
from refimpl.report.changes import since
from refimpl.report.columns import Column, columns
from refimpl.report.model import Report, report
from refimpl.report.render import page, summary
from refimpl.report.rerun import RunOptions

DOCS = Path(__file__).parent
STORED = DOCS / "matrix" / "results"
SUMMARY = DOCS / "matrix" / "summary.md"
TERMINAL, PAGE = DOCS / "pictures" / "check.svg", DOCS / "pictures" / "report.png"

BEFORE, AFTER = "py311-torch213", "py311-torch214"
COMMAND = "refimpl check --results after.jsonl --against before.jsonl"
WIDTH, SCREEN = 100, (1280, 900)
MADE_OF = "made of"
"""The name of the text in the picture of the page that says what it shows."""


@contextmanager
def unpacked() -> Iterator[dict[str, Path]]:
    """All stored results, by name; those of the upgrade are called as in its command."""
    called = {BEFORE: "before", AFTER: "after"}
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for stored in sorted(STORED.glob("*.jsonl.xz")):
            name = stored.name.removesuffix(".jsonl.xz")
            found[name] = Path(folder) / f"{called.get(name, name)}.jsonl"
            found[name].write_bytes(lzma.decompress(stored.read_bytes()))
        yield found


@contextmanager
def results() -> Iterator[tuple[Path, Path]]:
    """The stored results before and after the upgrade."""
    with unpacked() as found:
        yield found[BEFORE], found[AFTER]


def screen() -> str:
    """What the run after the upgrade ends with in a terminal."""
    with results() as (before, after):
        run = read(after)
        changes = since(columns([after]), columns([before]))
    return conformance_table(
        run.checks, WIDTH, RunOptions(), run.header, run.complete, changes, compared=True
    )


def terminal() -> str:
    """The picture of that terminal, as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    console.print(Text(f"$ {COMMAND}\n", style="bold"))
    console.print(Text(screen().rstrip()))
    return console.export_svg(title="refimpl check", unique_id="refimpl")


def made() -> tuple[Report, str]:
    """The report of the run after the upgrade, compared with the one before; and its page."""
    with results() as (before, after):
        found = report(columns([after]), columns([before]))
        return found, page(found)


def matrix() -> str:
    """The summary of all stored results, with what the upgrade changed, in Markdown."""
    with unpacked() as found:
        cells: tuple[Column, ...] = columns(found.values())
        before, after = columns([found[BEFORE]]), columns([found[AFTER]])
    changed = since(after, before)
    return summary(replace(report(cells), against=before, since=changed))


def shown(html: str) -> str:
    """A digest of what the picture of the page can show: its text up to the matrix."""
    first = html.partition("<body>")[2].partition('id="matrix"')[0]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", first))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def picture() -> None:
    """Open the page in Chromium and keep what its window shows."""
    from PIL import Image, PngImagePlugin
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    _, html = made()
    options = webdriver.ChromeOptions()
    for option in ("--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"):
        options.add_argument(option)
    options.binary_location = shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        path.write_text(html, encoding="utf-8")
        browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            screen = {"width": SCREEN[0], "height": SCREEN[1], "deviceScaleFactor": 1}
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride", {**screen, "mobile": False}
            )
            browser.get(path.as_uri())
            taken = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
        finally:
            browser.quit()
    says = PngImagePlugin.PngInfo()
    says.add_text(MADE_OF, shown(html))
    taken.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(
        PAGE, pnginfo=says, optimize=True
    )


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    TERMINAL.parent.mkdir(exist_ok=True)
    TERMINAL.write_text(terminal(), encoding="utf-8")
    SUMMARY.write_text(matrix(), encoding="utf-8")
    picture()
    for made_file in (TERMINAL, SUMMARY, PAGE):
        print(f"wrote {made_file}", file=sys.stderr)
