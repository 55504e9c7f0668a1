"""``.ci/imports`` lets this tree pass, and stops imports that point upwards or close a circle."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("refimpl", "conformance", "plugins", "fixtures")


def checkout(folder: Path) -> Path:
    """A copy of what the linter reads."""
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.jsonl")
        )
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "imports", folder / ".ci")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def linted(folder: Path) -> tuple[int, str]:
    beside_python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", folder / ".ci" / "imports"], env={**os.environ, "PATH": beside_python},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ran.returncode, " ".join((ran.stdout + ran.stderr).split())


def plant(path: Path, text: str) -> None:
    assert path.is_file()
    path.write_text(path.read_text("utf-8") + text, encoding="utf-8")


def test_every_import_of_this_tree_runs_downwards():
    status, said = linted(ROOT)
    assert status == 0, said
    assert ", 0 broken" in said


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("refimpl/errors.py", "from refimpl.cli import main", "imports run downwards"),
        ("refimpl/training/curves.py", "import refimpl.checking.checks", "imports run downwards"),
        ("plugins/autograd.py", "from refimpl.plugins import tensors", "no plugin imports another"),
        (
            "conformance/checks/facts.py", "from refimpl.fixtures import mnist",
            "the suite and the framework know no example",
        ),
    ],
    ids=["top-to-cli", "training-to-checking", "plugin-to-plugin", "suite-to-fixtures"],
)  # fmt: skip
def test_an_import_in_the_wrong_direction_fails(tmp_path, module, line, broken):
    folder = checkout(tmp_path)
    plant(folder / module, f"\n{line}\n")
    status, said = linted(folder)
    assert status == 1, said
    assert f"{broken}" in said.partition("Broken contracts")[2]
    assert Path(module).stem in said.partition("Broken contracts")[2]


def test_an_import_within_a_function_that_closes_a_circle_fails(tmp_path):
    folder = checkout(tmp_path)
    plant(
        folder / "refimpl/store/digests.py", "\n\ndef _late():\n    import refimpl.store.sources\n"
    )
    status, said = linted(folder)
    assert status == 1, said
    broken = said.partition("Broken contracts")[2]
    assert "no import closes a circle" in broken
    assert "imports run downwards" not in broken  # within one layer
