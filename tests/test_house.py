"""The house rules: little text, no large file outside the fixtures, and a guide that is right."""

import re
from itertools import chain
from pathlib import Path

import refimpl

ROOT = Path(__file__).parent.parent
FOLDERS = (
    ".ci", ".github", "benchmarks", "conformance", "constraints", "docs", "plugins", "refimpl",
    "tests",
)  # fmt: skip
MADE = {"__pycache__", "build"}
GUIDE = ROOT / "CONTRIBUTING.md"

WORDS = 50_000
LARGEST = 500_000


def files_of(*folders: str) -> list[Path]:
    """The files of this checkout in these folders, without what Python and builds leave there."""
    found = chain.from_iterable((ROOT / folder).rglob("*") for folder in folders)
    return [
        path for path in found if path.is_file() and not MADE & set(path.relative_to(ROOT).parts)
    ]


def test_the_documentation_is_short_enough_to_be_read():
    """The text of the pages, without sources that are copied from the plugins."""
    # The ledgers are tables to look a statement up in, made from data.
    ledgers = ROOT / "docs" / "claims"
    pages = [path for path in files_of("docs") if path.suffix == ".md"]
    texts = [path for path in pages if ledgers not in path.parents]
    sources = re.compile(r"```(?:python|diff)\n.*?```", re.DOTALL)
    counts = {path: len(sources.sub("", path.read_text("utf-8")).split()) for path in texts}
    assert 10_000 < sum(counts.values()) <= WORDS, sorted(counts.items(), key=lambda own: own[1])


def test_no_file_outside_the_fixtures_is_large():
    own = [*files_of(*FOLDERS), *(path for path in ROOT.iterdir() if path.suffix == ".md")]
    assert len(own) > 300
    assert not [path for path in own if path.stat().st_size > LARGEST]


def test_a_plugin_of_one_script_is_short():
    """With its facts and figures; the net and its loop are a fifth of it."""
    assert len((ROOT / "plugins" / "titanic_dnn.py").read_text("utf-8").splitlines()) <= 180


def rows(question: str) -> list[str]:
    """The answers in the guide's table that is headed so."""
    table = GUIDE.read_text("utf-8").partition(f"| {question} |")[2].partition("\n\n")[0]
    return [line.split("|")[2] for line in table.splitlines()[2:]]


def test_the_guide_answers_ten_questions_by_a_folder_each():
    answers = [re.fullmatch(r" `([^`]+/)` ", answer) for answer in rows("question")]
    folders = [answer[1] for answer in answers if answer]
    assert len(folders) == len(answers) == 10
    assert len(set(folders)) == 10
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_every_path_that_the_guide_names_is_there():
    named = re.findall(r"`([\w./-]+)`", GUIDE.read_text("utf-8"))
    paths = [name for name in named if "/" in name or Path(name).suffix]
    assert len(paths) > 20
    left_out = {".venv"}  # .ci/run makes it
    assert [path for path in paths if path not in left_out and not (ROOT / path).exists()] == []


def test_the_changelog_has_the_installed_version_and_a_place_for_the_next():
    headings = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert headings[0] == "Unreleased"
    assert headings[1:] == sorted(headings[1:], reverse=True)
    assert refimpl.__version__ in headings
