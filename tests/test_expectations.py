"""What is expected to fail is data; it must fail, and it must be about something."""

import platform
import textwrap
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from refimpl.checking import expectations
from refimpl.checking.checks import Check, Result, Subject, cells, run_check, true
from refimpl.checking.expectations import (
    ExpectationsError,
    ExpectedFailure,
    beside,
    gather,
    judged,
    read,
    unmatched,
)
from refimpl.contract import Example, Execution, Variant
from refimpl.loading.discovery import Source
from refimpl.loading.registry import Registered, Registry

CPU = Execution("cpu", "")
EXAMPLE = Example("made", "t", "d", "s", (Variant("script"), Variant("module")))
FAILS = Check(
    "breaks", "?", "variant", lambda s: iter([true("it", False, "it broke")]), lambda s: True
)
HOLDS = Check("holds", "?", "variant", lambda s: iter([true("it", True, "")]), lambda s: True)
ENTRY = ExpectedFailure("made", "breaks", "known since May", file=Path("expected.toml"))


def cell_of(check, variant="script", execution=CPU, tier="stand-in"):
    subject = Subject(EXAMPLE, EXAMPLE.variant(variant), execution, tier)
    return next(
        cell
        for cell in cells(EXAMPLE, [check], execution, tier)
        if cell.subject.variant is subject.variant
    )


def judge(check, *entries, **where) -> Result:
    cell = cell_of(check, **where)
    return judged(run_check(cell), cell, entries)


@pytest.fixture
def write(tmp_path):
    def write(text, name="expected-failures.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


# --- judging -------------------------------------------------------------------------------------


def test_a_failure_that_was_expected_is_no_failure_and_keeps_what_was_found():
    result = judge(FAILS, ENTRY)
    assert (result.outcome, result.reason) == ("xfailed", "known since May: it broke")
    assert result.measurements


def test_a_failure_that_was_not_expected_stays_one():
    assert judge(FAILS).outcome == "failed"


def test_a_pass_that_was_not_expected_is_a_failure_that_says_what_to_do():
    result = judge(HOLDS, replace(ENTRY, check="holds"))
    assert result.outcome == "failed"
    assert result.reason == (
        "passes, though expected.toml expects it to fail (known since May); "
        "remove the entry, or narrow its conditions"
    )


def test_a_skip_stays_a_skip():
    absent = Execution("cuda", "", "cuda", missing=lambda: "needs a CUDA device")
    assert judge(HOLDS, replace(ENTRY, check="holds"), execution=absent).outcome == "skipped"


CUDA = Execution("cuda:1", "", "cuda:1")


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        ({"variant": "module"}, {}),
        ({"example": "other"}, {}),
        ({"data": "real"}, {}),
        ({"device": "cuda"}, {}),
        ({"device": "cpu"}, {"execution": CUDA}),
        ({"torch": ">=99"}, {}),
        ({"python": "<3"}, {}),
    ],
)
def test_an_entry_whose_conditions_do_not_hold_expects_nothing(condition, where):
    assert judge(FAILS, replace(ENTRY, **condition), **where).outcome == "failed"


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        ({"variant": "module"}, {"variant": "module"}),
        ({"data": "real"}, {"tier": "real"}),
        ({"device": "cuda"}, {"execution": CUDA}),
        ({"device": "cuda:1"}, {"execution": CUDA}),
        ({"device": "compile"}, {"execution": Execution("compile", "")}),
        ({"torch": f">={version('torch')}"}, {}),
        ({"python": f"=={platform.python_version()}"}, {}),
    ],
)
def test_an_entry_whose_conditions_hold_expects_its_failure(condition, where):
    assert judge(FAILS, replace(ENTRY, **condition), **where).outcome == "xfailed"


def test_a_torch_before_its_release_is_judged_by_its_version(monkeypatch):
    monkeypatch.setattr(expectations, "version", lambda name: "2.15.0.dev20260101+cpu")
    assert replace(ENTRY, torch=">=2.14").in_force
    assert not replace(ENTRY, torch=">=2.15").in_force


# --- entries about nothing -----------------------------------------------------------------------

RUN = list(cells(EXAMPLE, [FAILS, HOLDS], CPU, "stand-in"))


def complaint(**condition) -> str:
    wrong = unmatched([replace(ENTRY, **condition)], RUN, ("compile",))
    return "; ".join(reason for _, reason in wrong)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({"check": "brakes"}, "matches no check of this run; did you mean the check 'breaks'?"),
        ({"check": "xyz"}, "the example's checks are: breaks, holds"),
        ({"variant": "nodule"}, "that check runs on script, module"),
        ({"device": "cudda"}, "device 'cudda', which is no device of torch nor compile"),
    ],
)
def test_an_entry_that_is_about_nothing_is_told_what_there_is(condition, said):
    assert said in complaint(**condition)


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"variant": "module"},
        {"check": "brakes", "torch": ">=99"},
        {"check": "brakes", "data": "real"},
        {"check": "brakes", "device": "cuda"},
        {"check": "brakes", "device": "compile"},
        {"example": "other"},
    ],
)
def test_an_entry_is_not_held_against_a_run_that_it_says_nothing_of(condition):
    assert complaint(**condition) == ""


def test_an_entry_for_a_device_is_not_held_against_a_run_whose_other_checks_are_on_it():
    on_both = [*RUN, replace(RUN[0], subject=replace(RUN[0].subject, execution=CUDA))]
    assert RUN[0].check is FAILS
    elsewhere = replace(ENTRY, check="holds", device="cuda")
    assert not list(unmatched([elsewhere], on_both, ()))
    ((_, reason),) = unmatched([replace(elsewhere, check="hods")], on_both, ())
    assert "did you mean the check 'holds'?" in reason


# --- reading -------------------------------------------------------------------------------------


def test_every_key_is_read(write):
    path = write("""
        [[expected-failure]]
        example = "made"
        check = "breaks"
        reason = "known since May"
        variant = "script"
        torch = ">=2.6"
        python = "<3.12"
        device = "cuda"
        data = "real"
    """)
    (entry,) = read(path)
    assert entry == ExpectedFailure(
        "made", "breaks", "known since May", "script", ">=2.6", "<3.12", "cuda", "real", path
    )


def test_a_file_without_entries_expects_nothing(write):
    assert read(write("# none yet\n")) == ()


REST = 'example = "made"\ncheck = "breaks"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[expected-failure]\n", "cannot be read as TOML"),
        ("[[expected-failures]]\n", "write each entry under [[expected-failure]]"),
        ("[expected-failure]\n", "write each entry under [[expected-failure]]"),
        (f"[[expected-failure]]\n{REST}", "entry 1: it has no reason"),
        (f'[[expected-failure]]\n{REST}reason = " "\n', "reason must be a non-empty text"),
        (f"[[expected-failure]]\n{REST}reason = 3\n", "reason must be a non-empty text"),
        (f'[[expected-failure]]\n{REST}resaon = "x"\n', "did you mean 'reason'?"),
        (f'[[expected-failure]]\n{REST}xyz = "x"\n', "unknown key 'xyz'; there are: example"),
        (
            f'[[expected-failure]]\n{REST}reason = "x"\ntorch = "2.6 and up"\n',
            "torch = '2.6 and up' is not a version condition; write it like '>=2.6'",
        ),
        (
            f'[[expected-failure]]\n{REST}reason = "x"\ndata = "reel"\n',
            "data = 'reel' is not a tier; there are: stand-in, real",
        ),
    ],
)
def test_a_file_that_cannot_be_taken_at_its_word_is_refused_by_name(write, text, said):
    path = write(text)
    with pytest.raises(ExpectationsError) as refused:
        read(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "expected-failures.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ExpectationsError, match="cannot be read as TOML"):
        read(path)


# --- where they stand ----------------------------------------------------------------------------


def source_at(path: Path) -> Source:
    return Source(path.stem, f"file {path}", path.stem, path)


def test_a_package_has_its_own_file_and_a_module_one_beside_it(write, tmp_path):
    package = source_at(tmp_path / "made" / "__init__.py")
    module = source_at(tmp_path / "made.py")
    assert beside(package) is None
    assert beside(module) is None
    assert beside(Source("made", "no source", "made")) is None
    inside = write("", "made/expected-failures.toml")
    outside = write("", "made.expected-failures.toml")
    assert beside(package) == inside
    assert beside(module) == outside


def registry_with(tmp_path) -> Registry:
    source = source_at(tmp_path / "made.py")
    return Registry(examples={"made": Registered(EXAMPLE, source)})


def test_a_plugins_entries_are_gathered_with_those_of_the_run(write, tmp_path):
    text = f'[[expected-failure]]\n{REST}reason = "{{}}"\n'
    write(text.format("the plugin's"), "made.expected-failures.toml")
    of_run = write(text.format("the run's"), "run.toml")
    gathered = gather(registry_with(tmp_path), [of_run])
    assert [entry.reason for entry in gathered.entries] == ["the run's", "the plugin's"]
    assert gathered.problems == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[[expected-failure]]\nexample = "other"\ncheck = "c"\nreason = "r"\n',
            "the entry for 'other' is not about an example of this plugin, which has made",
        ),
        ("[[", "cannot be read as TOML"),
    ],
)
def test_a_plugins_file_that_is_wrong_is_a_problem_of_its_examples(write, tmp_path, text, said):
    write(text, "made.expected-failures.toml")
    gathered = gather(registry_with(tmp_path))
    assert gathered.entries == ()
    assert said in gathered.problems["made"]


def test_a_file_of_the_run_that_is_wrong_is_an_error(tmp_path):
    with pytest.raises(ExpectationsError, match="cannot be read"):
        gather(Registry(), [tmp_path / "nothing.toml"])
