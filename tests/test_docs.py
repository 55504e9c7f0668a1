"""Every command and snippet of the README and of docs/ is run, or shown to be one that is."""

import filecmp
import os
import re
import site
import subprocess
import sys
from pathlib import Path

import pytest
from docpages import Reader, blocks, commands

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
TUTORIAL = DOCS / "tutorial.md"
EXAMPLE = DOCS / "tutorial-example"


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
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads the option's own name: 0 is "without"
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
    assert sources(made) == sources(EXAMPLE)
    same, different, odd = filecmp.cmpfiles(made, EXAMPLE, sources(EXAMPLE), shallow=False)
    assert (different, odd) == ([], []), "follow docs/tutorial.md and copy what it makes"
    assert len(same) == 5


def test_the_readme_of_the_example_says_nothing_that_the_tutorial_does_not():
    told = {
        line for block in blocks(TUTORIAL) if block.language == "sh" for line in commands(block)
    }
    (own,) = (block for block in blocks(EXAMPLE / "README.md") if block.language == "sh")
    plain = {re.sub(r" -n 0$", "", line) for line in told} | {"refimpl info legendre-sine"}
    assert set(commands(own)) <= plain
