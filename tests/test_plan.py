"""Every check of one example: from Python, from another repository's tests, from the suite."""

import subprocess
import sys
from dataclasses import replace

import pytest
from fakes.sound import EXAMPLE as SOUND

from refimpl import Exact, Example
from refimpl.checking import results
from refimpl.checking.plan import plan_one
from refimpl.checking.requests import Request
from refimpl.conformance import check_example
from refimpl.conformance.checks import ALL
from refimpl.contract import Facts
from refimpl.errors import RefimplError, UnknownNameError
from refimpl.loading.registry import load_for

pytest_plugins = ["pytester"]
KEPT = ALL
"""pytester forgets what only its own runs import, and torch cannot be imported twice."""

QUICK = Example("quick", "t", "d", "s", values=(Exact("sum", lambda: 1 + 1, 2),))

PLUGIN = """
from refimpl import Exact, Example, Failure, hookimpl


def divide():
    return 1 / {divisor}


EXAMPLE = Example(
    name="made-elsewhere",
    title="t",
    document="d",
    section="s",
    values=(Exact("sum", lambda: 1 + 1, {expected}),),
    failures=(Failure("division by zero", divide, ZeroDivisionError),),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
"""

TEST = """
from refimpl.conformance import parametrize_with_checks
from made_elsewhere import EXAMPLE


@parametrize_with_checks(EXAMPLE)
def test_made_elsewhere(check):
    check()
"""

ENTRY = """
[[expected-failure]]
example = "made-elsewhere"
check = "{check}"
reason = "known since May"
"""


def outcomes(answers):
    return {answer.check: answer.outcome for answer in answers}


# --- from Python ---------------------------------------------------------------------------------


def test_an_object_that_no_plugin_registers_is_asked():
    assert outcomes(check_example(QUICK)) == {"plugin-in-order": "passed", "exact-values": "passed"}


def test_a_registered_example_is_asked_by_its_name():
    answers = check_example("autograd")
    assert outcomes(answers)["exact-values"] == "passed"
    assert "in-tree" in answers[0].measurements[0].what


def test_an_altered_copy_of_a_registered_example_is_what_is_asked():
    wrong = replace(QUICK, name="autograd", values=(Exact("sum", lambda: 3, 2),))
    answers = {answer.check: answer for answer in check_example(wrong)}
    assert answers["exact-values"].reason == "sum is 3, expected 2"


def test_an_example_that_breaks_the_contract_gets_one_answer_that_says_how():
    (answer,) = check_example(replace(QUICK, values=(), facts=Facts()))
    assert answer.outcome == "failed"
    assert "states no facts, so there is nothing to check" in answer.reason


def test_what_a_plugin_raises_is_an_answer():
    def leave():
        raise SystemExit(3)

    answers = check_example(replace(QUICK, values=(Exact("sum", leave, 2),)))
    assert outcomes(answers)["exact-values"] == "failed"


def test_names_that_there_are_not_are_errors():
    with pytest.raises(UnknownNameError, match="no example 'autogard'; did you mean 'autograd'"):
        check_example("autogard")
    with pytest.raises(UnknownNameError, match="no execution 'cpu-f63'; did you mean 'cpu-f64'"):
        check_example(QUICK, executions=["cpu-f63"])


def test_what_is_named_and_cannot_be_used_here_is_an_error_and_no_skip():
    absent = "mps" if sys.platform != "darwin" else "cuda"
    with pytest.raises(RefimplError, match=f"device '{absent}' cannot be used here: "):
        check_example(QUICK, device=absent)
    with pytest.raises(RefimplError, match="execution 'cuda\\+ddp' cannot run here: "):
        check_example(QUICK, executions=["cuda+ddp"])
    with pytest.raises(RefimplError, match="execution 'cpu' supports no variant"):
        check_example(QUICK, executions=["cpu"])


def test_asking_is_imported_without_torch():
    program = "import sys; from refimpl.conformance import check_example; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "refimpl.conformance" in run.stdout.split()
    assert "torch" not in run.stdout.split()


# --- from the tests of another repository --------------------------------------------------------


@pytest.fixture
def elsewhere(pytester):
    """A repository of its own: a plugin and, beside it, a test of one import."""

    def elsewhere(expected=2, divisor=0, expect=None):
        plugin = PLUGIN.format(expected=expected, divisor=divisor)
        pytester.makepyfile(made_elsewhere=plugin, test_made_elsewhere=TEST)
        if expect:
            file = pytester.path / "made_elsewhere.expected-failures.toml"
            file.write_text(ENTRY.format(check=expect))
        pytester.syspathinsert()
        return pytester

    return elsewhere


def test_another_repository_gets_a_test_of_every_check(elsewhere):
    run = elsewhere().runpytest("-n", "0", "--strict-markers", "-v")
    run.assert_outcomes(passed=3)
    run.stdout.fnmatch_lines(
        ["*[[]made-elsewhere/-/exact-values/cpu/stand-in[]] PASSED*", "made-elsewhere *3 *3 *"]
    )


def test_its_failure_is_its_reason_and_nothing_else(elsewhere):
    run = elsewhere(expected=3).runpytest("-n", "0")
    run.assert_outcomes(passed=2, failed=1)
    run.stdout.fnmatch_lines(["sum is 2, expected 3"])
    run.stdout.no_fnmatch_line("*Traceback*")


def test_its_results_are_written_as_those_of_the_suite(elsewhere, tmp_path):
    file = tmp_path / "results.jsonl"
    elsewhere(divisor=1).runpytest("-n", "0", "--results", str(file))
    found = results.read(file)
    assert found.complete
    assert found.outcomes == {"passed": 2, "failed": 1}


def test_a_mistyped_name_is_an_error_of_one_line(elsewhere):
    pytester = elsewhere()
    pytester.makepyfile(test_made_elsewhere=TEST.replace("(EXAMPLE)", "('made-elsewere')"))
    run = pytester.runpytest("-n", "0")
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["*ERROR collecting*", "there is no example 'made-elsewere'*", "*==*"])


# --- with failures that are expected -------------------------------------------------------------


def suite(pytester, *options):
    arguments = ("--pyargs", "refimpl.conformance", "--example", "made-elsewhere", "-n", "0")
    return pytester.runpytest(*arguments, "--plugin", "made_elsewhere.py", *options)


def test_a_plugin_brings_the_failures_to_expect(elsewhere):
    pytester = elsewhere(expected=3, expect="exact-values")
    run = suite(pytester)
    run.assert_outcomes(passed=3, xfailed=1)
    run.stdout.fnmatch_lines(["failed as expected: 1 check of *: known since May: sum is 2, *"])
    assert run.ret == 0


def test_an_unexpected_pass_fails_the_run(elsewhere):
    run = suite(elsewhere(divisor=0, expect="exact-values"))
    run.assert_outcomes(passed=3, failed=1)
    run.stdout.fnmatch_lines(["*passes, though *made_elsewhere.expected-failures.toml expects it*"])


def test_an_entry_about_nothing_fails_the_run(elsewhere):
    run = suite(elsewhere(expect="exakt-values"))
    run.assert_outcomes(passed=3, failed=1)
    run.stdout.fnmatch_lines(["*did you mean the check 'exact-values'?*"])


def test_a_run_may_bring_a_file_of_its_own(elsewhere):
    pytester = elsewhere(expected=3)
    pytester.makefile(".toml", trial=ENTRY.format(check="exact-values"))
    run = suite(pytester, "--expected-failures", "trial.toml")
    run.assert_outcomes(passed=3, xfailed=1)


def test_the_options_of_the_suite_hold_for_the_tests_of_another_repository(elsewhere):
    pytester = elsewhere(expected=3)
    pytester.makefile(".toml", trial=ENTRY.format(check="exact-values"))
    run = pytester.runpytest("-n", "0", "--expected-failures", "trial.toml")
    run.assert_outcomes(passed=3, xfailed=1)
    wrong = pytester.runpytest("-n", "0", "--expected-failures", "nothing.toml")
    wrong.assert_outcomes(errors=1)
    wrong.stdout.fnmatch_lines(["*nothing.toml*"])
    device = pytester.runpytest("-n", "0", "--device", "cudda")
    device.stdout.fnmatch_lines(["torch does not know a device 'cudda'*"])


def test_other_seeds_are_those_of_the_runs_of_another_repositorys_tests():
    moved = plan_one(load_for(SOUND), SOUND, Request(reseed=100), ALL)
    seeds = {cell.subject.variant.seed for cell in moved.cells if cell.subject.variant}
    assert seeds == {100}


def test_a_file_of_the_run_that_cannot_be_read_is_an_error(elsewhere):
    run = suite(elsewhere(), "--expected-failures", "nothing.toml")
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["nothing.toml cannot be read as TOML*"])
