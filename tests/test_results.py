"""A results file says what came of a run, and a damaged one never says that it passed."""

import json
import math

import pytest
from fakes.runs import sealed
from hypothesis import given
from hypothesis import strategies as st

from refimpl.checking.checks import Measurement, Result, at_most, equal, true, within
from refimpl.checking.results import ResultsError, read

PASSED = Result(
    "mnist-logistic",
    "scratch",
    "parameter-count",
    "cpu",
    "stand-in",
    "passed",
    seconds=0.25,
    measurements=(equal("parameters", 7850, 7850), within("loss", 0.08, 0.07, 0.09)),
)
FAILED = Result(
    "titanic-dnn",
    "-",
    "exact-values",
    "cuda:1",
    "real",
    "failed",
    "“sum” is 3, expected 2",
    measurements=(true("sum", False, "“sum” is 3, expected 2"),),
    details="Traceback …\n  line 1\x85line 2\u2028line 3",
)
SKIPPED = Result("imdb-cnn", "script", "output-shape", "cpu", "real", "skipped", "needs torchtext")
IN_ORDER_ONLY = Result(
    "imdb-cnn",
    "-",
    "plugin-in-order",
    "cpu",
    "real",
    "passed",
    measurements=(true("registered", True, ""),),
)
EXPECTED = Result("autograd", "-", "errata", "cpu", "stand-in", "xfailed", "known: it broke")
CHECKS = (PASSED, FAILED, SKIPPED, EXPECTED)
HEADER = {"$report_type": "header", "schema": 2, "run": "r1", "tier": "stand-in"}


def footer_of(checks, **changes):
    counts = {o: sum(c.outcome == o for c in checks) for o in ("passed", "failed", "skipped")}
    counts["xfailed"] = sum(c.outcome == "xfailed" for c in checks)
    status = 1 if counts["failed"] else 0
    return {"$report_type": "footer", "run": "r1", "exit_status": status, **counts, **changes}


def lines_of(checks, **changes):
    records = [{"$report_type": "check", **check.record()} for check in checks]
    header = {**HEADER, "cells": [check.id for check in checks]}
    return [json.dumps(r) for r in (header, *records, footer_of(checks, **changes))]


@pytest.fixture
def written(tmp_path):
    """Writes lines to a file and reads it as results."""

    def write_and_read(lines, end="\n"):
        path = tmp_path / "results.jsonl"
        path.write_text(sealed(lines).removesuffix("\n") + end, encoding="utf-8")
        return read(path)

    return write_and_read


# --- what goes in comes out ----------------------------------------------------------------------


def test_every_result_comes_back_as_it_was(written):
    results = written(lines_of(CHECKS))
    assert results.checks == CHECKS
    assert results.header["tier"] == "stand-in"
    assert results.outcomes == {"passed": 1, "failed": 1, "skipped": 1, "xfailed": 1}
    assert results.complete


def test_a_result_is_known_by_example_variant_check_execution_and_tier():
    assert FAILED.id == "titanic-dnn/-/exact-values/cuda:1/real"


@given(st.floats() | st.integers() | st.text() | st.none() | st.lists(st.floats()))
def test_whatever_was_measured_a_record_is_json_that_any_program_reads(measured):
    result = Result("e", "v", "c", "cpu", "real", "passed", measurements=(equal("x", measured, 1),))

    def refuse(token):
        raise AssertionError(f"{token} is no JSON")

    line = json.dumps(result.record())
    (found,) = json.loads(line, parse_constant=refuse)["measurements"]
    if isinstance(measured, float):
        assert float(found["measured"]) == measured or math.isnan(measured)


def test_what_json_does_not_have_stands_as_text():
    measurements = (at_most("error", math.nan, math.inf), equal("shape", {1, 2}, {1, 2}))
    record = Result("e", "v", "c", "cpu", "real", "failed", measurements=measurements).record()
    assert [m["measured"] for m in record["measurements"]] == ["nan", "{1, 2}"]
    assert record["measurements"][0]["high"] == "inf"


def test_what_a_later_version_adds_to_a_record_is_left_out(written):
    header, check, footer = lines_of([PASSED])
    check = json.loads(check)
    check["colour"] = "blue"
    check["measurements"][0]["colour"] = "blue"
    extra = json.dumps({"$report_type": "something else"})
    assert written([header, json.dumps(check), extra, footer]).checks == (PASSED,)


# --- passed or not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checks", "status", "passed"),
    [
        ((PASSED,), 0, True),
        ((PASSED, SKIPPED, EXPECTED), 0, True),
        ((PASSED, FAILED), 1, False),
        ((PASSED, FAILED), 0, False),
        ((PASSED,), 1, False),
        ((PASSED,), 2, False),
        ((SKIPPED,), 0, False),
        ((IN_ORDER_ONLY, SKIPPED), 0, False),
        ((), 0, False),
    ],
)
def test_a_run_passed_if_it_ended_well_answered_a_check_and_nothing_failed(
    written, checks, status, passed
):
    assert written(lines_of(checks, exit_status=status)).passed is passed


@given(st.data())
def test_a_truncated_file_is_never_a_pass(tmp_path_factory, data):
    whole = sealed(lines_of((PASSED, SKIPPED))).encode()
    kept = data.draw(st.integers(0, len(whole) - 2))
    path = tmp_path_factory.mktemp("cut") / "results.jsonl"
    path.write_bytes(whole[:kept])
    try:
        results = read(path)
    except ResultsError:
        return
    assert not results.complete
    assert not results.passed


def test_what_a_dying_run_had_measured_is_kept(written):
    lines = lines_of((PASSED, FAILED))
    results = written([*lines[:2], lines[2][:40]], end="")
    assert results.checks == (PASSED,)
    assert not results.complete


# --- files that are refused ----------------------------------------------------------------------


def changed(number, **changes):
    """The lines of a good file with one record changed; ``None`` takes a field away."""
    lines = lines_of((PASSED, FAILED))
    record = {**json.loads(lines[number]), **changes}
    lines[number] = json.dumps({k: v for k, v in record.items() if v is not None})
    return lines


def measured(number, **changes):
    """The lines of a good file with one measurement of its first check changed."""
    own = PASSED.record()["measurements"]
    own[number] = {**own[number], **changes}
    return changed(1, measurements=own)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "begins with no header"),
        (lines_of((PASSED,))[1:], "begins with no header"),
        (["{}"], "begins with no header"),
        (["no results", *lines_of((PASSED,))], "line 1: not JSON"),
        ([*lines_of((PASSED,))[:1], "{oh", *lines_of((PASSED,))[1:]], "line 2: not JSON"),
        (["3", *lines_of((PASSED,))], "line 1: not an object"),
        (changed(0, schema=1), "has results schema 1, this refimpl reads 2"),
        (changed(0, schema=None), "has results schema None"),
        (lines_of((PASSED, FAILED, PASSED)), f"{PASSED.id} more than once"),
        (changed(1, example=None), "damaged check record: .*example"),
        (changed(1, outcome=None), "damaged check record: .*outcome"),
        (
            changed(1, outcome="fine"),
            "line 2: .*outcome: 'fine' is not one of the values it may have",
        ),
        (changed(1, measurements="none"), "measurements: expected a list, found a text"),
        (changed(1, measurements=[]), "line 2: .* passed, and has no measurement"),
        (measured(0, holds=False), "line 2: .* passed, and 'parameters' does not hold"),
        (measured(0, holds=1), r"measurements\[0\].holds: expected true or false, found a whole"),
        (measured(1, measured=0.5), "'loss' holds, and is outside its limit"),
        (measured(1, measured="nan"), "'loss' holds, and is outside its limit"),
        (changed(1, tier="made-up"), "line 2: .*'made-up' is not one of"),
        (changed(0, tier="made-up"), "line 1: .*tier: 'made-up' is not one of the values"),
        (changed(0, schema=True), "has results schema True, this refimpl reads"),
        (changed(0, environment={"packages": {"torch": 2}}), r"environment\.packages\[...\]: exp"),
        (changed(1, seconds="x"), "line 2: .*seconds: expected a number, found a text"),
        (changed(1, seconds=-1), "-1.0 is no duration"),
        (changed(1, example=""), "line 2: .*/scratch/.* has an empty name"),
        (changed(1, outcome="skipped"), "line 2: .* is skipped without a reason"),
        (changed(3, exit_status="0"), "line 4: .*exit_status: expected a whole number"),
        ([*lines_of((PASSED,))[:1], "[" * 100_000], "line 2: lists or objects .* deep"),
        ([*lines_of((PASSED,))[:1], "1" * 5_000], "line 2: not JSON"),
        (changed(0, reseed=10**30), "line 1: .*64 bits"),
        (changed(1, measurements=[{"what": "x"}]), "damaged check record: .*measured"),
        (lines_of((PASSED,)) + lines_of((FAILED,)), "more than one run in it"),
        (lines_of((PASSED,))[:-1] + lines_of((FAILED,)), "more than one run in it"),
        ([*lines_of((PASSED,)), json.dumps(HEADER)], "more than one run in it"),
        (changed(3, run="r2"), "begins with one run and ends with another"),
        (changed(3, passed=2), "counts 2 passed but has 1: lines of it are lost"),
        (changed(3, failed=0), "counts 0 failed but has 1"),
    ],
)
def test_a_file_that_is_not_whole_and_one_is_refused_with_the_reason(written, lines, said):
    with pytest.raises(ResultsError, match=said) as raised:
        written(lines)
    assert "results.jsonl" in str(raised.value)


def test_a_file_that_lost_a_line_in_the_middle_is_refused(written):
    lines = lines_of((PASSED, SKIPPED))
    with pytest.raises(ResultsError, match="lines of it are lost"):
        written([lines[0], lines[1], lines[3]])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x89PNG\r\n"])
def test_a_file_that_is_no_text_is_refused(tmp_path, content):
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match="cannot be read as a results file"):
        read(path)


def test_a_file_that_is_not_there_is_an_error_of_results(tmp_path):
    with pytest.raises(ResultsError, match=r"nowhere\.jsonl cannot be read"):
        read(tmp_path / "nowhere.jsonl")


def test_measurements_without_a_message_are_measurements():
    assert Measurement("x", 1, "= 1", True).message == ""


# --- what was not checked ------------------------------------------------------------------------


def expecting(*checks, **header):
    """The lines of a run that passed one check and had to make these."""
    first, *rest = lines_of((PASSED,))
    return [json.dumps({**json.loads(first), "cells": [c.id for c in checks], **header}), *rest]


def test_a_check_without_a_record_is_no_pass(written):
    results = written(expecting(PASSED, SKIPPED, EXPECTED))
    assert results.complete
    assert results.not_checked == (SKIPPED.id, EXPECTED.id)
    assert not results.passed
    assert results.why_not_passed == f"2 of 3 checks were not run: {SKIPPED.id} and 1 more"


def test_a_file_that_does_not_say_what_was_to_be_checked_is_no_pass(written):
    results = written(expecting(PASSED, cells=None))
    assert not results.passed
    assert results.why_not_passed == "results.jsonl does not say which checks were to be made"


def test_where_tests_of_another_repository_ask_the_footer_says_what_was_to_be_checked(written):
    *lines, footer = expecting(PASSED, cells=None)
    told = json.dumps({**json.loads(footer), "cells": [PASSED.id]})
    assert written([*lines, told]).passed


def test_an_example_asked_for_by_name_of_which_nothing_could_run_is_no_pass(written):
    lines = lines_of((PASSED, SKIPPED))
    lines[0] = json.dumps({**json.loads(lines[0]), "examples": ["mnist-logistic", "imdb-cnn"]})
    results = written(lines)
    assert not results.passed
    assert results.why_not_passed == "no check of imdb-cnn was run: all of them were skipped"
