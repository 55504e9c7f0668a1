"""``check``: reruns of what failed, one line while it runs, the verdict at the end."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from refimpl.checking.requests import Request
from refimpl.checking.results import read
from refimpl.cli.suite_screen import SuiteScreen

PLUGIN = """
from refimpl import Exact, Example, Failure, hookimpl

def fails():
    raise ValueError("no")

@hookimpl
def refimpl_examples():
    right = Exact("right", lambda: 1, 1)
    wrong = Exact("the sum of one and one", lambda: 3, 2)
    mistake = Failure("a mistake", fails, ValueError)
    return [
        Example("one", "t", "d", "s", values=(right,), failures=(mistake,)),
        Example("two", "t", "d", "s", values=(right, wrong), failures=(mistake,)),
        Example("three", "t", "d", "s", values=(wrong,)),
    ]
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Runs ``refimpl check`` on three small examples, two of which fail."""
    folder = tmp_path_factory.mktemp("check")
    (folder / "small.py").write_text(PLUGIN)

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "refimpl", "check", "-n", "0", "--plugin", "small.py", *words],
            cwd=folder, capture_output=True, text=True,
            env={**os.environ, "PYTEST_ADDOPTS": ""},
        )  # fmt: skip

    first = run("one", "two", "three", "--results", "first.jsonl")
    return SimpleNamespace(run=run, first=first, folder=folder)


def checks(path):
    return {f"{r.example} {r.check}" for r in read(path).checks if r.check != "plugin-in-order"}


def test_the_run_ends_with_the_verdict_and_its_findings_in_a_line_each(checked):
    assert checked.first.returncode == 1
    end = " ".join(checked.first.stdout.rpartition("\n\n")[2].split())
    assert "does not do what the documents say of two, three: 2 findings in 8 checks." in end
    assert "1. the sum of one and one is 3, expected 2" in end


def test_no_dots_and_no_pytest_sections_are_shown(checked):
    assert "...." not in checked.first.stdout
    assert "FAILURES" not in checked.first.stdout
    assert "bringing up nodes" not in checked.first.stdout


def test_only_what_failed_is_run_again(checked):
    again = checked.run("--failed", "first.jsonl", "--results", "again.jsonl")
    assert again.returncode == 1
    assert checks(checked.folder / "again.jsonl") == {"two exact-values", "three exact-values"}
    only = read(checked.folder / "again.jsonl").header["only"]
    assert len(only["cells"]) == 2


def test_where_nothing_failed_nothing_is_run_again(checked):
    checked.run("one", "--results", "good.jsonl")
    again = checked.run("--failed", "good.jsonl")
    assert (again.returncode, again.stdout) == (0, "nothing failed in good.jsonl\n")


def test_the_line_that_repeats_a_finding_runs_just_its_checks(checked):
    (line, *_) = [li for li in checked.first.stdout.splitlines() if "rerun: " in li]
    words = line.partition("rerun: refimpl check ")[2].split()
    assert "--check" in words
    again = checked.run(*words, "--results", "line.jsonl")
    assert again.returncode == 1
    assert {each.split()[1] for each in checks(checked.folder / "line.jsonl")} == {"exact-values"}


def test_it_stops_at_the_first_failure_and_says_that_there_is_more(checked):
    run = checked.run("two", "three", "one", "--first", "--results", "cut.jsonl")
    assert run.returncode != 0
    assert "The run did not come to its end." in " ".join(run.stdout.split())
    assert len(checks(checked.folder / "cut.jsonl")) == 1


def test_a_check_that_there_is_not_is_an_error_with_the_nearest(checked):
    run = checked.run("one", "--check", "exakt-values")
    assert run.returncode != 0
    assert run.stdout.split("\n")[-2:] == [
        "refimpl: there is no check 'exakt-values'; did you mean 'exact-values'?", ""
    ]  # fmt: skip


def test_what_changed_is_told_even_where_the_same_file_is_written_anew(checked):
    checked.run("one", "two", "--results", "same.jsonl")
    run = checked.run("one", "--results", "same.jsonl", "--against", "same.jsonl")
    assert run.returncode == 0
    assert "Not run this time, on purpose: two: " in run.stdout
    assert run.stdout.rstrip().endswith("Nothing changed.")


def test_a_request_leaves_out_what_it_does_not_name():
    request = Request(variants=("a",), checks=("c",))
    assert request.wants("a", "c", "x")
    assert not request.wants("b", "c", "x")
    assert not request.wants("a", "d", "x")
    assert request.only == {"variants": ["a"], "checks": ["c"]}
    assert Request().wants("any", "thing", "x")


# --- while it runs -------------------------------------------------------------------------------


def report(name, outcome="passed"):
    return SimpleNamespace(
        when="call", outcome=outcome, failed=outcome == "failed", passed=outcome == "passed",
        skipped=False, nodeid=f"test_examples.py::test_example[{name}/v/c/cpu/stand-in]",
    )  # fmt: skip


def test_where_there_is_no_terminal_a_line_a_minute_says_how_far_it_is(monkeypatch):
    stream = io.StringIO()
    screen = SuiteScreen(stream)
    now = screen.began
    monkeypatch.setattr("refimpl.cli.suite_screen.time.monotonic", lambda: now)
    screen.pytest_xdist_node_collection_finished(["test"] * 10)
    screen.pytest_runtest_logreport(report("one"))
    assert stream.getvalue() == ""
    now += 61
    screen.pytest_runtest_logreport(report("two", "failed"))
    said = "2 of 10 checks · two · 1 failed · 1 min, at most 4 min left\n"
    assert stream.getvalue() == said
    screen.pytest_runtest_logreport(report("two"))
    assert stream.getvalue() == said
