"""The suite as pytest runs it: what is broken is named, the rest goes on, all of it is on file."""

import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes.sound import EXAMPLE
from filelock import FileLock

from refimpl.checking.results import part_of, read, result_from
from refimpl.conformance.checks import ALL
from refimpl.report.rerun import RunOptions, rerun_command
from refimpl.runner import pytest_plugin
from refimpl.runner.pytest_plugin import RESULT, plan_of, results_in
from refimpl.runner.scheduling import CrashSafeScheduling

TESTS = Path(__file__).parent
SOUND = str(TESTS / "fakes" / "sound.py")
CELL = "test_examples.py::test_example[made/script/output-shape/cpu/stand-in]"

HEAD = """
import os
from dataclasses import replace
from fakes.failing import FAILING
from fakes.sound import EXAMPLE, SCRATCH
from refimpl import Exact, hookimpl

@hookimpl
def refimpl_examples():
    return [MADE]

"""


def making(example):
    """A plugin that gives this example, an expression or statements that end with ``MADE = …``."""
    return HEAD + (example if "MADE = " in example else f"MADE = {example}\n")


SYNTAX_ERROR = "def broken(:\n"
DUPLICATE = making("EXAMPLE")
WRONG_COUNT = making("replace(FAILING['parameter-count'], name='wrong-count')")
QUICK = making("replace(EXAMPLE, name='quick', variants=())")
KILLER = making("replace(EXAMPLE, name='killer', values=(Exact('kill', lambda: os._exit(3), 0),))")
DYING = making("""
def steps(problem):
    if problem.lr < 1e-9:  # only where a checkpoint is asked what it predicts
        os._exit(3)
    yield from SCRATCH.steps(problem)

MADE = replace(EXAMPLE, name="dying", variants=(replace(SCRATCH, steps=steps, ladder=None),))
""")

QUICKER = "-p no:hypothesispytest"
"""Hypothesis' own plugin takes seconds to import, and the suite has no use for it."""


class Run:
    """A run of the suite in processes of its own, and its results file."""

    def __init__(self, folder, program, arguments, **plugins):
        self.file = folder / "results.jsonl"
        for name, text in plugins.items():
            (folder / f"{name}.py").write_text(text)
        given = [SOUND, *(f"{name}.py" for name in plugins)]
        options = [part for plugin in given for part in ("--plugin", plugin)]
        ran = subprocess.run(
            [sys.executable, "-m", *program.split(), *arguments.split(), *options,
             "--results", str(self.file)],
            cwd=folder, capture_output=True, text=True, timeout=300,
            env={**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_ADDOPTS": QUICKER},
        )  # fmt: skip
        self.status, self.out = ran.returncode, ran.stdout

    @property
    def results(self):
        return read(self.file)

    def failed(self):
        return {(r.example, r.check): r for r in self.results.checks if r.outcome == "failed"}

    def outcomes(self, example):
        return [r.outcome for r in self.results.checks if r.example == example]


def once(tmp_path_factory, name, *arguments, **plugins):
    """A run that several tests look at, made by the first worker that wants it for them all."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    kept = folder / f"{name}.pickle"
    with FileLock(folder / f"{name}.lock"):
        if not kept.exists():
            (folder / name).mkdir()
            kept.write_bytes(pickle.dumps(Run(folder / name, *arguments, **plugins)))
        return pickle.loads(kept.read_bytes())


PYTEST = "pytest -p no:cacheprovider --pyargs refimpl.conformance -q"

# --- plugins that are broken ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def beside_broken(tmp_path_factory):
    """A sound example beside three plugins that are broken each in its own way."""
    return once(
        tmp_path_factory,
        "broken",
        "refimpl check",
        "fake-sound wrong-count -n 0 --execution cpu-f64",
        syntax_error=SYNTAX_ERROR,
        duplicate=DUPLICATE,
        wrong_count=WRONG_COUNT,
    )


def test_a_run_with_a_broken_plugin_exits_with_1(beside_broken):
    assert beside_broken.status == 1
    assert not beside_broken.results.passed
    assert beside_broken.results.complete


@pytest.mark.parametrize(
    ("example", "check", "reason"),
    [
        ("syntax_error#1", "plugin-in-order", r"plugin syntax_error .*:1: SyntaxError: invalid"),
        ("duplicate#2", "plugin-in-order", r"plugin duplicate .*'fake-sound'.*sound\.py"),
        ("wrong-count", "parameter-count", r"^parameters is 3, expected 4$"),
    ],
)
def test_every_broken_plugin_is_reported_by_name_and_reason(beside_broken, example, check, reason):
    assert re.search(reason, beside_broken.failed()[example, check].reason)
    assert re.search(rf"^\d\. .*1 check in {example}\)$", beside_broken.out, re.MULTILINE)


def test_nothing_else_fails_and_the_other_examples_are_all_checked(beside_broken):
    assert len(beside_broken.failed()) == 3
    asked = {r.check for r in beside_broken.results.checks if r.example == "fake-sound"}
    without = {"golden-trajectory", "stays-in-calibrated-band"}
    without |= {"dropout-at-its-rate", "dropout-keeps-its-mask"}
    without |= {"each-kernel-is-right", "each-layer-is-right"}  # cpu-f64 is what they compare with
    # nobody has recorded them
    without |= {"data-as-recorded", "values-computed-as-recorded"}
    without |= {"layers-as-recorded", "run-as-recorded"}
    without |= {"gradient-is-the-slope-in-float32", "spread-by-default"}  # of other devices
    assert asked == {c.name for c in ALL} - without | {"plugin-in-order"}
    assert set(beside_broken.outcomes("fake-sound")) == {"passed"}


def test_the_table_counts_the_checks_of_every_example(beside_broken):
    count = len(beside_broken.outcomes("fake-sound"))
    assert re.search(rf"^fake-sound +{count} +{count} +0 +0 ", beside_broken.out, re.MULTILINE)
    assert f"results: {beside_broken.file}" in beside_broken.out


def test_what_failed_is_followed_by_the_command_that_asks_again(beside_broken):
    (line,) = re.findall(r"rerun: (refimpl check wrong-count .*)", beside_broken.out)
    head = "refimpl check wrong-count --variant module --check parameter-count --plugin /"
    assert line.startswith(head)
    assert line.endswith("--plugin wrong_count.py")


def test_the_header_says_what_was_run_on_what(beside_broken):
    header = beside_broken.results.header
    assert (header["tier"], header["device"]) == ("stand-in", "cpu")
    assert header["examples"] == ["fake-sound", "wrong-count"]
    assert header["environment"]["packages"]["torch"]
    assert header["plugins"]["fake-sound"] == f"file {SOUND}"
    assert len(header["problems"]) == 2


# --- workers that die ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_a_death(tmp_path_factory):
    """An example that takes its worker down in one check and another, on two workers."""
    return once(
        tmp_path_factory,
        "death",
        PYTEST,
        "-n 2 --example quick --example dying --execution cpu-f64",
        dying=DYING,
        quick=QUICK,
    )


def test_a_worker_that_dies_costs_its_test_and_is_named(with_a_death):
    assert with_a_death.status == 1
    (key,) = with_a_death.failed()
    assert key == ("dying", "checkpoint-predicts-the-same")
    result = with_a_death.failed()[key]
    assert (result.variant, result.execution, result.tier) == ("scratch", "cpu", "stand-in")
    assert "crashed" in result.reason


def test_the_rest_goes_on_after_a_death(with_a_death):
    assert set(with_a_death.outcomes("quick")) == {"passed"}
    assert with_a_death.outcomes("dying").count("passed") == len(with_a_death.outcomes("dying")) - 1


def test_the_results_of_all_workers_are_in_one_complete_file(with_a_death, tmp_path):
    asked = config(tmp_path, "quick", "dying", quick=QUICK, dying=DYING)
    expected = {cell.id for cell in plan_of(asked, ALL).cells}
    expected |= {f"{name}/-/plugin-in-order/cpu/stand-in" for name in ("quick", "dying")}
    assert with_a_death.results.complete
    assert {result.id for result in with_a_death.results.checks} == expected


def test_a_run_that_dies_itself_leaves_what_it_had_measured_and_no_pass(tmp_path):
    run = Run(tmp_path, PYTEST, "-n 0 --example killer", killer=KILLER)
    assert run.status == 3
    assert not run.file.exists()
    kept = read(part_of(run.file))
    assert not kept.complete
    assert not kept.passed
    assert "passed" in [r.outcome for r in kept.checks if r.example == "killer"]


# --- which examples are asked --------------------------------------------------------------------


def config(tmp_path, *examples, device="cpu", execution=("cpu-f64",), reseed=0, **plugins):
    """The configuration of a run with these options."""
    for name, text in plugins.items():
        (tmp_path / f"{name}.py").write_text(text)
    files = [SOUND, *(str(tmp_path / f"{name}.py") for name in plugins)]
    option = SimpleNamespace(
        example=list(examples), plugin=files, data="stand-in", device=device, execution=execution,
        reseed=reseed, expected_failures=[], variant=[], check=[], failed=None,
    )  # fmt: skip
    return SimpleNamespace(option=option, stash=pytest.Stash())


def names(cells):
    return list(dict.fromkeys(cell.subject.example.name for cell in cells))


def test_the_examples_named_are_asked_once_in_the_order_in_which_they_are_named(tmp_path):
    asked = config(tmp_path, "wrong-count", "fake-sound", "wrong-count", wrong_count=WRONG_COUNT)
    assert names(plan_of(asked, ALL).cells) == ["wrong-count", "fake-sound"]


def test_reseeding_asks_the_same_checks_of_runs_with_other_seeds(tmp_path):
    as_stated, moved = (
        plan_of(config(tmp_path, EXAMPLE.name, reseed=by), ALL).cells for by in (0, 100)
    )
    assert [cell.id for cell in moved] == [cell.id for cell in as_stated]
    assert {cell.subject.variant.seed for cell in as_stated if cell.subject.variant} == {0}
    assert {cell.subject.variant.seed for cell in moved if cell.subject.variant} == {100}


def test_a_name_that_there_is_not_is_an_error_with_the_nearest(tmp_path):
    with pytest.raises(pytest.Collector.CollectError, match="did you mean 'fake-sound'"):
        plan_of(config(tmp_path, "fake-sond"), ALL)
    with pytest.raises(pytest.Collector.CollectError, match="no execution 'cpu-f46'; did you mean"):
        plan_of(config(tmp_path, "fake-sound", execution=("cpu-f46",)), ALL)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "cudda"}, "torch does not know a device 'cudda'"),
        ({"reseed": 1000}, "would run seeds of the baselines"),
        ({"reseed": -1}, "below 0"),
    ],
)
def test_a_device_or_a_seed_that_cannot_be_meant_is_an_error(tmp_path, changes, said):
    with pytest.raises(pytest.Collector.CollectError, match=said):
        plan_of(config(tmp_path, "fake-sound", **changes), ALL)


REFUSED = """
from refimpl import Example, hookimpl

MADE = Example("refused", "t", "d", "s")

@hookimpl
def refimpl_examples():
    return [MADE]
"""


def test_an_example_that_was_refused_is_left_to_its_plugins_verdict(tmp_path):
    asked = config(tmp_path, "refused", "fake-sound", refused=REFUSED)
    assert names(plan_of(asked, ALL).cells) == ["fake-sound"]
    verdicts = plan_of(asked, ALL).verdicts
    assert [(v.example, v.outcome) for v in verdicts] == [
        ("fake-sound", "passed"),
        ("refused#1", "failed"),
    ]


def test_an_example_whose_name_is_no_text_does_not_end_the_collection(tmp_path):
    asked = config(tmp_path, "fake-sound", refused=REFUSED.replace('"refused"', '["refused"]'))
    assert names(plan_of(asked, ALL).cells) == ["fake-sound"]
    *_, refused = plan_of(asked, ALL).verdicts
    assert "name must be str, found list" in refused.reason


def test_a_mistyped_name_does_not_hide_behind_a_refused_one(tmp_path):
    asked = config(tmp_path, "refused", "fake-sond", refused=REFUSED)
    with pytest.raises(pytest.Collector.CollectError, match="no example 'fake-sond'"):
        plan_of(asked, ALL)


def test_the_checks_of_one_variant_share_a_worker(tmp_path):
    for cell in plan_of(config(tmp_path, "fake-sound"), ALL).cells:
        parameter = pytest_plugin.parameter(cell)
        (mark,) = parameter.marks
        variant = cell.subject.variant.name if cell.subject.variant else "-"
        assert mark.args == (f"fake-sound/{variant}",)
        assert parameter.id == cell.id


@pytest.mark.parametrize("nodeid", [CELL, f"{CELL}@made/script"], ids=["plain", "grouped"])
def test_the_worker_is_chosen_by_the_example_and_variant_of_a_test(nodeid):
    assert CrashSafeScheduling._split_scope(SimpleNamespace(), nodeid) == "made/script"


# --- what a report carries -----------------------------------------------------------------------


def report(when, failed, nodeid=CELL, carried=(), longrepr="worker 'gw0' crashed"):
    properties = [(RESULT, record) for record in carried]
    return SimpleNamespace(
        when=when, failed=failed, nodeid=nodeid, user_properties=properties, longrepr=longrepr
    )


@pytest.mark.parametrize("nodeid", [CELL, f"{CELL}@made/script"], ids=["plain", "grouped"])
@pytest.mark.parametrize("when", ["???", "setup", "call"])
def test_a_test_that_gave_no_result_is_a_failure_of_its_cell(when, nodeid):
    (record,) = results_in(report(when, True, nodeid))
    result = result_from(record)
    assert result.id == "made/script/output-shape/cpu/stand-in"
    assert (result.outcome, result.reason) == ("failed", "worker 'gw0' crashed")


def test_a_result_is_taken_from_the_call_alone():
    record = {"outcome": "passed"}
    assert list(results_in(report("call", False, carried=[record]))) == [record]
    assert list(results_in(report("setup", False, carried=[record]))) == []
    assert list(results_in(report("teardown", False, carried=[record]))) == []


def test_other_tests_have_no_result():
    assert list(results_in(report("call", True, "test_a.py::test_b"))) == []
    assert list(results_in(report("call", True, "test_a.py::test_b[x/y]"))) == []


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "refimpl check made --variant v --check c --data real --device cuda:1"),
        (
            {"execution": "gloo"},
            "refimpl check made --variant v --check c --data real --device cuda:1 --execution gloo",
        ),
    ],
)
def test_the_command_that_asks_again_names_the_same_device_and_execution(changes, command):
    record = {
        "example": "made", "variant": "v", "check": "c", "execution": "cuda:1", "tier": "real",
        "outcome": "failed", "measurements": [], **changes,
    }  # fmt: skip
    result = result_from(record)
    assert rerun_command([result], RunOptions("cuda:1")) == command
    with_plugin = RunOptions("cuda:1", ["my plugin.py"])
    assert rerun_command([result], with_plugin) == f"{command} --plugin 'my plugin.py'"
    expecting = RunOptions("cuda:1", reseed=5, expected_failures=[Path("trial.toml")])
    more = "--reseed 5 --expected-failures trial.toml"
    assert rerun_command([result], expecting) == f"{command} {more}"
    refused = replace(result, example="broken#2")
    listing = rerun_command([refused], RunOptions("cuda:1", ["a.py"]))
    assert listing == "refimpl list --plugin a.py"


def test_an_interrupted_run_has_no_footer_and_says_that_there_is_more(tmp_path):
    (tmp_path / "stops.py").write_text(STOPS)
    file = tmp_path / "results.jsonl"
    words = [
        "check",
        "asked-before",
        "stops",
        "--plugin",
        "stops.py",
        "-n",
        "0",
        "--results",
        str(file),
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "refimpl", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert "interrupted: not every check was run" in ran.stdout
    assert not file.exists()
    found = read(part_of(file))
    assert not found.complete
    assert found.outcomes["passed"] == 3  # the verdicts on both plugins, and one check
    kept = f"refimpl: 3 of {len(found.expected)} checks are kept in {part_of(file)}; "
    assert kept + "repeat the command with --resume to go on" in ran.stderr


STOPS = """
import os, signal
from refimpl import Exact, Example, Failure, hookimpl

def stop():
    os.kill(os.getpid(), signal.SIGINT)
    return 2

@hookimpl
def refimpl_examples():
    return [
        Example("asked-before", "t", "d", "s", values=(Exact("sum", lambda: 2, 2),)),
        Example("stops", "t", "d", "s", values=(Exact("sum", stop, 2),)),
    ]
"""


# --- what it costs -------------------------------------------------------------------------------


def test_the_plugin_of_pytest_imports_no_torch():
    program = "import refimpl.runner.pytest_plugin, sys; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "refimpl.runner.pytest_plugin" in ran.stdout.split()
    assert "torch" not in ran.stdout.split()


def test_the_fake_is_called_what_these_tests_call_it():
    assert EXAMPLE.name == "fake-sound"
