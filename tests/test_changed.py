"""``check --changed``: answers that nothing can have changed are kept, the others are made anew."""

import os
import subprocess
import sys

import pytest

from refimpl.checking.contents import contents
from refimpl.checking.results import read
from refimpl.loading import registry
from refimpl.store import digests

ONE = """
from refimpl import Exact, Example, hookimpl

@hookimpl
def refimpl_examples():
    right = Exact("right", lambda: 1, 1)
    return [Example("one", "t", "d", "s", values=(right,))]
"""


@pytest.fixture
def check(tmp_path):
    """Runs ``refimpl check`` on two small examples, each of a plugin of its own."""
    (tmp_path / "one.py").write_text(ONE)
    (tmp_path / "two.py").write_text(ONE.replace('"one"', '"two"'))

    def run(*words, **more):
        return subprocess.run(
            [sys.executable, "-m", "refimpl", "check", "one", "two", "-n", "0",
             "--plugin", "one.py", "--plugin", "two.py", "--results", "r.jsonl", *words],
            cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTEST_ADDOPTS": "", **more},
        )  # fmt: skip

    return run


def kept(folder):
    return {r.example for r in read(folder / "r.jsonl").checks if r.earlier}


def test_after_a_change_of_one_plugin_only_its_checks_are_run(check, tmp_path):
    first = check()
    assert first.returncode == 0, first.stdout + first.stderr
    (tmp_path / "two.py").write_text(ONE.replace('"one"', '"two"').replace("1, 1", "1, 2"))
    again = check("--changed")
    assert again.returncode == 1
    assert "right is 1, expected 2" in again.stdout
    assert "2 answers are of an earlier run" in again.stdout
    assert kept(tmp_path) == {"one"}
    whole = read(tmp_path / "r.jsonl")
    assert {r.id for r in whole.checks} == set(whole.header["cells"])


def workers(folder):
    return read(folder / "r.jsonl").header["workers"]["count"]


def test_what_is_done_in_seconds_starts_no_workers(check, tmp_path):
    first = check("-n", "auto")
    assert first.returncode == 0, first.stdout + first.stderr
    assert workers(tmp_path) >= 1
    (tmp_path / "two.py").write_text(ONE.replace('"one"', '"two"') + "# a change")
    again = check("--changed", "-n", "auto")
    assert again.returncode == 0, again.stdout + again.stderr
    assert workers(tmp_path) == 0
    assert kept(tmp_path) == {"one"}


def test_what_was_never_run_may_take_long_and_has_workers(check, tmp_path):
    assert check().returncode == 0
    two = ONE.replace('"one"', '"two"').replace("import Exact", "import Failure, Exact")
    fails = 'failures=(Failure("none", lambda: [][0], IndexError),)'
    (tmp_path / "two.py").write_text(two.replace("(right,)", f"(right,), {fails}"))
    again = check("--changed", "-n", "auto")
    assert again.returncode == 0, again.stdout + again.stderr
    assert workers(tmp_path) >= 1


def test_what_failed_is_run_again_although_nothing_has_changed(check, tmp_path):
    (tmp_path / "two.py").write_text(ONE.replace('"one"', '"two"').replace("1, 1", "1, 2"))
    assert check().returncode == 1
    assert check("--changed").returncode == 1
    assert "exact-values" not in {
        r.check for r in read(tmp_path / "r.jsonl").checks if r.earlier and r.example == "two"
    }


def test_nothing_is_run_again_where_nothing_has_changed(check, tmp_path):
    first = check()
    run = read(tmp_path / "r.jsonl").header["run"]
    again = check("--changed")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (
        again.stdout.count("does what the documents say")
        == 1
        == first.stdout.count("does what the documents say")
    )
    assert kept(tmp_path) == {"one", "two"}
    third = check("--changed")  # kept from what was kept: they are still of the first run
    assert third.returncode == 0
    assert {r.earlier for r in read(tmp_path / "r.jsonl").checks} - {""} == {run}


def test_in_another_environment_everything_is_run_again(check, tmp_path):
    check()
    assert check("--changed", "--reseed", "100").returncode == 0
    assert kept(tmp_path) == set()


def test_an_expected_failure_is_run_again_where_nobody_expects_it_any_longer(check, tmp_path):
    (tmp_path / "two.py").write_text(ONE.replace('"one"', '"two"').replace("1, 1", "1, 2"))
    (tmp_path / "known.toml").write_text(
        '[[expected-failure]]\nexample = "two"\ncheck = "exact-values"\nreason = "known"\n'
    )
    first = check("--expected-failures", "known.toml")
    assert first.returncode == 0, first.stdout + first.stderr
    assert check("--changed").returncode == 1


def test_without_earlier_results_the_command_says_what_it_needs(check):
    ended = check("--changed")
    assert ended.returncode == 2
    assert "--changed needs --results FILE, with the answers of an earlier run" in ended.stderr


def test_an_examples_answers_depend_on_its_data_and_baselines_and_not_on_anothers(monkeypatch):
    of_all = contents(registry.load())
    of_one = contents(registry.load(only=["titanic-dnn"]))
    assert of_one == {"titanic-dnn": of_all["titanic-dnn"]}

    def read_for(name):
        seen = []
        of_file = digests.of_file
        with monkeypatch.context() as patched:
            patched.setattr(digests, "of_file", lambda path: seen.append(path) or of_file(path))
            contents(registry.load(only=[name]))
        return {path.name for path in seen}

    own, other = read_for("titanic-dnn"), read_for("ring-dnn")
    assert {"titanic.py", "tables.py", "titanic-dnn.safetensors", "loop.py"} <= own
    assert not {"ring.py", "ring-dnn.safetensors", "ring_dnn.py"} & own
    assert {"ring.py", "ring_dnn.py", "ring-dnn.safetensors"} <= other
    assert not {"titanic.py", "titanic_dnn.py", "tables.py"} & other
