"""The README's pictures and the summary of the matrix show what refimpl says today."""

import html
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
RENEW = "run: python docs/make_pictures.py"


@pytest.fixture(scope="module")
def pictures():
    return SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "make_pictures.py")))


def text_of(svg: str) -> str:
    """What a picture of a terminal says, whatever version of rich drew it."""
    lines = re.findall(r"<text[^>]*>(.*?)</text>", svg, re.DOTALL)
    return " ".join(html.unescape(" ".join(lines)).split())


def test_the_picture_of_the_terminal_says_what_a_terminal_would(pictures):
    kept = pictures.TERMINAL.read_text("utf-8")
    assert text_of(kept) == text_of(pictures.terminal()), RENEW


def test_the_picture_of_the_page_was_taken_of_a_page_that_says_the_same(pictures):
    image = pytest.importorskip("PIL.Image")
    _, page = pictures.made()
    with image.open(pictures.PAGE) as kept:
        assert kept.info[pictures.MADE_OF] == pictures.shown(page), RENEW
        assert kept.size == pictures.SCREEN
    assert pictures.PAGE.stat().st_size < 200_000


def test_the_summary_of_the_matrix_is_that_of_the_stored_results(pictures):
    assert pictures.SUMMARY.read_text("utf-8") == pictures.matrix(), RENEW


def test_the_readme_shows_both(pictures):
    readme = (ROOT / "README.md").read_text("utf-8")
    shown = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", readme)
    assert [(ROOT / path).resolve() for _, path in shown] == [
        pictures.TERMINAL.resolve(), pictures.PAGE.resolve()
    ]  # fmt: skip
    assert all(len(words) > 20 for words, _ in shown)  # for whoever does not see them


def test_the_upgrade_is_told_in_the_first_screen_of_terminal_page_and_markdown(pictures):
    """Torch 2.13.0 to 2.14.1: ``torch.qr`` is gone, and a warning became a FutureWarning."""
    report, page = pictures.made()
    end = pictures.screen().splitlines()[-12:]
    markdown = pictures.matrix().splitlines()[:12]
    header = page.partition("<header")[2].partition("</header>")[0]
    for first in (" ".join(end), " ".join(markdown).replace("\\", ""), html.unescape(header)):
        first = " ".join(first.split())
        assert "torch.qr: holds with torch 2.13.0, gone with 2.14.1" in first
        assert "FutureWarning: torch.jit.trace" in first.replace("`", "")
    assert "no longer holds" in report.since[0].sentence
