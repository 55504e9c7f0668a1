"""Every command and snippet of the README and of docs/ is run, or shown to be one that is."""

import filecmp
import os
import re
import runpy
import shlex
import site
import subprocess
import sys
from pathlib import Path

import click
import pytest
from docpages import Reader, blocks, commands

from refimpl.authoring import pages
from refimpl.checking.requests import DEFAULT_PARTS
from refimpl.cli.main import cli
from refimpl.executions.built_in import refimpl_executions
from refimpl.loading.listing import listed
from refimpl.loading.registry import load

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
TUTORIAL = DOCS / "tutorial.md"
TUTORIAL_EXAMPLE = DOCS / "tutorial-example"
LEARNERS = DOCS / "examples"
REFERENCE = DOCS / "reference.md"
DOCUMENTS = DOCS / "documents.md"

FOLLOWED = sorted(page for page in DOCS.glob("*.md") if page != TUTORIAL)
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
LISTED = [entry for entry in listed() if entry.origin.startswith("in-tree")]
EXAMPLES = [entry.name for entry in LISTED]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh virtual environment, in which what is installed here can be imported too."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    here = [path for path in site.getsitepackages() if Path(path).is_dir()]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in here]
    (packages / "those-of-the-tests.pth").write_text("".join(lines))
    for module in ("refimpl", "pytest"):
        script = folder / "bin" / module
        script.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {module} "$@"\n')
        script.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(folder),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the option's value: 0 is "no isolation"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "COLUMNS": "100",
    }


# --- the tutorial --------------------------------------------------------------------------------


def sources(folder: Path) -> set[str]:
    """The files of a distribution, without what building and running it leaves behind."""
    left = re.compile(r"__pycache__|\.egg-info|\.pytest_cache|/build/")
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)) for p in files if not left.search(str(p))}


def test_the_tutorial_works_word_for_word_and_makes_the_example_beside_it(tmp_path, environment):
    Reader(tmp_path, environment).follow(TUTORIAL)
    made = tmp_path / "legendre"
    assert sources(made) == sources(TUTORIAL_EXAMPLE)
    same, different, odd = filecmp.cmpfiles(
        made, TUTORIAL_EXAMPLE, sources(TUTORIAL_EXAMPLE), shallow=False
    )
    assert (different, odd) == ([], []), "follow docs/tutorial.md and copy what it makes"
    assert len(same) == 5


def test_what_the_tutorial_shows_in_the_end_is_what_is_kept():
    """Without running anything: each of its last sections stands in the example."""
    kept = (TUTORIAL_EXAMPLE / "src" / "refimpl_legendre_sine" / "__init__.py").read_text()
    last = {}
    for block in blocks(TUTORIAL):
        if "section" in block.attributes:
            last[block.text.partition("\n")[0]] = block.text
    assert len(last) == 6
    for text in last.values():
        assert text in kept


# --- the other pages -----------------------------------------------------------------------------


@pytest.mark.parametrize("page", FOLLOWED, ids=page_id)
def test_what_a_page_says_works(tmp_path, environment, page):
    Reader(tmp_path, environment).follow(page)


def test_the_readmes_commands_are_those_that_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text()
    count = sum(block.language == "sh" for block in blocks(README))
    run = {int(number) for number in re.findall(r'eval ".*readme_block (\d+)\)"', ci)}
    assert count > 0
    assert run == set(range(1, count + 1))
    assert not [block for block in blocks(README) if block.language not in ("sh", "text")]


def options_of(command: list[str]) -> None:
    """Parse a command as the command line does, without running it; raises what is wrong."""
    group: click.Command = cli
    context = click.Context(cli)
    while isinstance(group, click.Group):
        name, found, command = group.resolve_command(context, command)
        context = click.Context(found, parent=context, info_name=name)
        group = found
    group.make_parser(context).parse_args(list(command))


def refimpl_commands(page: Path) -> list[str]:
    """Every ``refimpl …`` on a page: the lines of its blocks, and those amid its text."""
    text = page.read_text(encoding="utf-8")
    # What of the README needs two versions of torch, or a device, is text: CI cannot run it.
    languages = ("sh", "bash", "text") if page == README else ("sh", "bash")
    shells = [block for block in blocks(page) if block.language in languages]
    in_blocks = [line for block in shells for line in commands(block)]
    amid = re.findall(r"`(refimpl [a-z][^`\n]*)`", text)
    return [line for line in [*in_blocks, *amid] if line.startswith("refimpl ")]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_commands_on_a_page_are_ones_that_there_are(page):
    for line in refimpl_commands(page):
        words = [word for word in shlex.split(line)[1:] if word not in ("…", "...")]
        options_of(words)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_links_of_a_page_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_can_be_found_from_the_first():
    waiting, seen = [DOCS / "README.md"], set()
    while waiting:
        page = waiting.pop().resolve()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        waiting += [page.parent / target for target in targets if "://" not in target]
    own = {page for page in DOCS.rglob("*.md") if TUTORIAL_EXAMPLE not in page.parents}
    assert own <= seen


# --- pages that list what there is ---------------------------------------------------------------


def first_cells(page: Path) -> list[str]:
    """What stands as code in the first cell of each row of a page's tables."""
    return re.findall(r"^\| `([^`]+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_document_is_identified_with_the_examples_made_from_it():
    rows = [line for line in DOCUMENTS.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    linked = [set(re.findall(r"\]\(examples/([\w-]+)\.md\)", row)) for row in rows[2:]]
    made = {key: names for key, names in zip(first_cells(DOCUMENTS), linked, strict=True) if names}
    assert made == {
        key: {entry.name for entry in LISTED if entry.document == key}
        for key in {entry.document for entry in LISTED}
    }


# --- what is made from docstrings and plugins ----------------------------------------------------


def test_the_reference_is_up_to_date():
    made = runpy.run_path(str(DOCS / "make_reference.py"))["reference"]()
    assert REFERENCE.read_text() == made, "run: python docs/make_reference.py"


def test_the_reference_lists_every_execution_of_refimpl_and_which_are_default():
    table = REFERENCE.read_text(encoding="utf-8").partition("\n## Executions\n")[2]
    rows = re.findall(r"^\| `([^`]+)` \| .* \| (yes)? \|$", table, re.MULTILINE)
    assert [name for name, _ in rows] == [own.name for own in refimpl_executions()]
    assert {name for name, default in rows if default} == set(filter(None, DEFAULT_PARTS))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_of_an_example_is_up_to_date(name):
    registered = load(only=[name]).examples[name]
    picture = LEARNERS / f"{name}.svg"
    kept = LEARNERS / f"{name}.md"
    agreements = pages.agreements_in(kept)
    made = pages.page(registered, LEARNERS, picture if picture.is_file() else None, agreements)
    assert kept.is_file(), f"run: refimpl docs {name}"
    assert kept.read_text() == made, f"run: refimpl docs {name}"
    assert "not measured" not in made, f"run: refimpl docs {name}"


def test_the_list_of_examples_is_up_to_date():
    loaded = load()
    made = pages.index_page([loaded.example(name) for name in EXAMPLES])
    assert (LEARNERS / pages.INDEX).read_text() == made, "run: refimpl docs"


def test_every_example_that_trains_has_its_picture():
    loaded = load()
    trained = {name for name in EXAMPLES if loaded.example(name).variants}
    assert {path.stem for path in LEARNERS.glob("*.svg")} == trained
