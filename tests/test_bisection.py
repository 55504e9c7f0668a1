"""Bisecting: the first version that answers otherwise is found, whatever ends the search."""

import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from fakes.runs import erratum, passed, skipped

from refimpl.checking.bisection import (
    Answer,
    BisectionError,
    Memory,
    answer_of,
    between,
    bisect,
)
from refimpl.checking.checks import at_most
from refimpl.checking.version_environments import Environments, InstallError

VERSIONS = ["2.8.0", "2.9.0", "2.10.0", "2.11.0", "2.12.0", "2.13.0", "2.14.0"]


def right_up_to(last, troubles=()):
    """What an erratum answers that came after a version; and the versions that were asked."""
    asked = []

    def ask(version):
        asked.append(version)
        if version in troubles:
            return Answer(trouble="it cannot be installed")
        found = "right" if VERSIONS.index(version) <= VERSIONS.index(last) else "wrong"
        return Answer("passed", {"torch.qr": found, "take": "wrong"})

    return ask, asked


@pytest.fixture
def memory(tmp_path):
    return Memory(tmp_path / "answers.jsonl")


@pytest.mark.parametrize("last", VERSIONS[:-1])
def test_the_first_version_that_answers_otherwise_is_found_by_halving(memory, last):
    ask, asked = right_up_to(last)
    change = bisect(VERSIONS, ask, memory)
    after = VERSIONS[VERSIONS.index(last) + 1]
    assert list(change.lines("c")) == [f"torch.qr: holds up to {last}, gone since {after}"]
    assert len(asked) <= 5


def test_a_version_without_an_answer_is_passed_over_and_named_if_it_matters(memory):
    ask, _ = right_up_to("2.10.0", troubles=["2.11.0"])
    lines = list(bisect(VERSIONS, ask, memory).lines("c"))
    assert lines == [
        "torch.qr: holds up to 2.10.0, gone since 2.12.0",
        "  2.11.0 between them gave no answer: it cannot be installed",
    ]
    ask, _ = right_up_to("2.12.0", troubles=["2.11.0"])
    again = bisect(VERSIONS, ask, Memory(memory.path.with_name("other")))
    assert [*again.lines("c")] == ["torch.qr: holds up to 2.12.0, gone since 2.13.0"]


def test_a_check_whose_outcome_changes_is_named_by_itself(memory):
    change = bisect(["1", "2"], lambda v: Answer("passed" if v == "1" else "failed"), memory)
    assert list(change.lines("x · golden")) == ["x · golden: holds up to 1, fails since 2"]


def test_without_a_change_between_the_ends_there_is_nothing_to_find(memory):
    with pytest.raises(BisectionError, match="answer the same"):
        bisect(VERSIONS, lambda version: Answer("passed"), memory)


def test_an_end_without_an_answer_is_an_error_that_says_why(memory):
    ask, _ = right_up_to("2.9.0", troubles=["2.14.0"])
    with pytest.raises(BisectionError, match=r"2\.14\.0 gives no answer: it cannot be installed"):
        bisect(VERSIONS, ask, memory)


def test_what_was_answered_is_not_asked_again_even_after_a_line_was_cut_short(memory):
    ask, asked = right_up_to("2.9.0")
    bisect(VERSIONS, ask, memory)
    text = memory.path.read_text()
    memory.path.write_text(text[: text.rindex('"found"')])
    asked.clear()
    change = bisect(VERSIONS, ask, Memory(memory.path))
    assert (change.before, change.after, len(asked)) == ("2.9.0", "2.10.0", 1)


def test_releases_between_two_are_chosen_and_no_others():
    there = ["2.15.0", "2.9.0", "2.10.0", "2.10.0rc1", "1.0"]
    assert between(there, "2.14.1", "2.8.0") == ["2.8.0", "2.9.0", "2.10.0", "2.14.1"]


def test_an_answer_is_what_a_check_found_and_no_measured_number():
    measured = passed(measurements=(at_most("error", 0.25, 1.0), *passed().measurements))
    assert answer_of(measured) == Answer("passed", {"parameters": "651"})
    assert answer_of(measured, "error") == Answer("passed", {"error": "0.25"})
    assert answer_of(erratum("right")) == Answer("passed", {"torch.qr": "right"})
    assert answer_of(skipped()).trouble == "needs torchtext"
    assert answer_of(replace(measured), "x").trouble == "the check measures no 'x' there"


# --- environments --------------------------------------------------------------------------------


def wheels(folder, **versions):
    """Wheels of a tiny package, each with another answer."""
    folder.mkdir()
    for version, answer in versions.items():
        number = version.removeprefix("v").replace("_", ".")
        info = f"tinylib-{number}.dist-info"
        with zipfile.ZipFile(folder / f"tinylib-{number}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tinylib.py", f"ANSWER = {answer!r}\n")
            head = f"Metadata-Version: 2.1\nName: tinylib\nVersion: {number}\n"
            wheel.writestr(f"{info}/METADATA", head)
            kind = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            wheel.writestr(f"{info}/WHEEL", kind)
            wheel.writestr(f"{info}/RECORD", "")
    return folder


def environments(tmp_path, **versions):
    found = wheels(tmp_path / "wheels", **versions)
    options = ("--no-index", "--find-links", str(found))
    return Environments("tinylib", options, folder=tmp_path / "kept")


def says(python):
    program = "import tinylib, refimpl; print(tinylib.ANSWER)"
    return subprocess.run([python, "-c", program], capture_output=True, text=True).stdout.strip()


def test_an_environment_has_its_version_and_the_rest_as_here_and_is_made_once(tmp_path):
    made = environments(tmp_path, v1_0="one")
    python = made.python("1.0")
    assert says(python) == "one"
    (python.parent / "mark").touch()
    assert (made.python("1.0").parent / "mark").exists()


def test_an_environment_whose_making_was_killed_is_made_again(tmp_path):
    made = environments(tmp_path, v1_0="one")
    half = made.root / "1.0" / "bin"
    half.mkdir(parents=True)
    (half / "python").touch()
    assert says(made.python("1.0")) == "one"


def test_a_version_that_there_is_not_is_an_error_in_the_installers_words(tmp_path):
    with pytest.raises(InstallError, match=r"No matching distribution found for tinylib==9"):
        environments(tmp_path, v1_0="one").python("9")


PLUGIN = """
import tinylib
from refimpl import Exact, Example, hookimpl

@hookimpl
def refimpl_examples():
    return [Example("tiny", "t", "d", "s", values=(Exact("answer", lambda: tinylib.ANSWER, "a"),))]
"""


def test_a_bisection_that_was_killed_goes_on_where_it_ended(tmp_path):
    versions = {f"v1_{n}": "a" if n < 3 else "b" for n in range(6)}
    found = wheels(tmp_path / "wheels", **versions)
    (tmp_path / "tiny.py").write_text(PLUGIN)
    command = [
        sys.executable, "-m", "refimpl", "bisect", "tiny", "--check", "exact-values",
        "--package", "tinylib", "--from", "1.0", "--to", "1.5", "--find-links", str(found),
        "--versions", "1.0 1.1 1.2 1.3 1.4 1.5", "--plugin", str(tmp_path / "tiny.py"),
    ]  # fmt: skip
    surroundings = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_NO_INDEX": "1"}
    first = subprocess.Popen(
        command, env=surroundings, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    answered = [first.stdout.readline(), first.stdout.readline()]
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert [line[:11] for line in answered] == ["tinylib 1.0", "tinylib 1.5"]
    second = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    asked = [line[8:11] for line in second.stderr.splitlines() if "installing" in line]
    assert asked == ["1.2", "1.3"]
    last = second.stdout.splitlines()[-1]
    assert last == "answer: holds up to 1.2, fails since 1.3 (a → b)"
