"""A check passes when it measured something and all of it holds; nothing it does ends the run."""

import math
import os
import random
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.sound import EXAMPLE, like

from refimpl import DataSet, Execution, process_state, requirements
from refimpl.checking.checks import (
    CannotRunError,
    Cell,
    Subject,
    at_most,
    cells,
    check,
    equal,
    obstacle,
    run_check,
    true,
    within,
    within_budget,
)
from refimpl.cli.verdict_text import conformance_table
from refimpl.conformance import check_example
from refimpl.conformance.checks import ALL
from refimpl.errors import (
    ContractError,
    DataError,
    DataMissingError,
    MissingExtraError,
    RefimplError,
)
from refimpl.report.rerun import RunOptions
from refimpl.requirements import NEEDS_CUDA, NEEDS_REAL_DATA, NUMPY_ON_CPU, REASONS, missing

CPU = Execution("cpu", "the CPU")
HERE = Subject(EXAMPLE, EXAMPLE.variant("module"), CPU, "stand-in")


def answer(*measurements, raises=None, subject=HERE, to_the_end=True):
    """What comes of a check that measures these and then raises this."""

    @check("made")
    def made(subject):
        """Does it hold?"""
        yield from measurements
        if raises is not None:
            raise raises

    return run_check(Cell(made, subject), to_the_end)


HOLDS, WRONG = true("it", True, ""), true("it", False, "it does not")

# --- measurements --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measurement", "holds", "message"),
    [
        (equal("n", 3, 3), True, ""),
        (equal("n", 3, 4), False, "n is 3, expected 4"),
        (equal("names", ["a"], []), False, "names is ['a'], expected []"),
        (at_most("e", 1.0, 1.0), True, ""),
        (at_most("e", 1.5, 1.0), False, "e is 1.5, at most 1"),
        (at_most("e", math.nan, 1.0), False, "e is nan, at most 1"),
        (at_most("e", math.inf, 1.0), False, "e is inf, at most 1"),
        (within_budget("e", 0.5), True, ""),
        (
            within_budget("e", math.nan),
            False,
            "e is nan: so many times the error that rounding explains",
        ),
        (within("x", 2.0, 2.0, 3.0), True, ""),
        (within("x", 3.5, 2.0, 3.0), False, "x is 3.5, expected between 2 and 3"),
        (within("x", math.nan, 2.0, 3.0), False, "x is nan, expected between 2 and 3"),
        (true("it", True, "why"), True, ""),
        (true("it", False, "why"), False, "why"),
    ],
)
def test_a_measurement_holds_or_says_what_was_expected(measurement, holds, message):
    assert measurement.holds is holds
    assert measurement.message == message


def of_seeds(holding, ill_posed=None, raises=None):
    """The result of a check that holds with these seeds only, and the seeds that were tried."""
    asked = []

    @check("made", ill_posed=ill_posed)
    def made(subject):
        """Does it hold?"""
        asked.append(subject.trained.seed)
        if raises is not None:
            raise raises
        yield true("it", subject.trained.seed in holding, f"not from seed {subject.trained.seed}")

    return run_check(Cell(made, HERE)), asked


def on_a_kink(subject):
    """As if a unit lay on the kink of its ReLU."""
    return "unit [3] of relu 0.5 roundings from its kink"


def test_a_failure_is_repeated_with_the_same_seed_and_with_no_other():
    found, asked = of_seeds({1})
    assert (found.outcome, found.reason, asked) == ("failed", "not from seed 0", [0, 0])


def test_a_failure_that_comes_and_goes_is_a_failure_that_says_so():
    answers = iter([false_at("step 3, gradient w[0]: x"), HOLDS])
    result = comes_and_goes(answers)
    assert result.outcome == "failed"
    assert result.reason == (
        "not reproducible: it failed, and passed when repeated with the same seed. "
        "The failure: it does not"
    )
    elsewhere = comes_and_goes(iter([false_at("step 3, loss: x"), false_at("step 5, loss: y")]))
    assert "not reproducible: repeated with the same seed, it fails elsewhere" in elsewhere.reason


def false_at(where):
    """A comparison that diverged there."""
    return true("it", False, "it does not", where=where)


def comes_and_goes(answers):
    """The result of a check that gives one of these each time."""

    @check("made")
    def made(subject):
        """Does it hold?"""
        yield next(answers)

    return run_check(Cell(made, HERE))


def test_a_check_of_an_ill_posed_start_holds_if_another_seed_does_and_says_why():
    found, asked = of_seeds({1}, on_a_kink)
    assert (found.outcome, asked) == ("passed", [0, 0, 1])
    assert found.measurements[-1].what == "seeds tried until one passed"
    assert found.measurements[-1].where == f"ill-posed: {on_a_kink(None)}"
    why = found.measurements[-1].where
    assert found.details == f"the first seed failed: not from seed 0; it is {why}"


def test_a_run_tells_how_many_checks_held_only_from_another_seed():
    own, other, neither = (of_seeds(holding, on_a_kink)[0] for holding in ({0}, {1}, {3}))
    assert [result.held_later for result in (own, other, neither)] == [False, True, False]
    said = "passed: 1 check of fake-sound: on a retry with another seed"
    assert said in conformance_table([own, other], 120, RunOptions(), {})
    assert "another seed" not in conformance_table([own, neither], 120, RunOptions(), {})


def test_an_ill_posed_start_is_no_excuse_if_all_seeds_fail():
    found, asked = of_seeds({3}, on_a_kink)
    assert (found.outcome, found.reason, asked) == ("failed", "not from seed 0", [0, 0, 1, 2])


def test_a_check_that_holds_is_asked_once_and_so_is_one_that_raises():
    found, asked = of_seeds({0, 1}, on_a_kink)
    assert (found.outcome, len(found.measurements), asked) == ("passed", 1, [0])
    assert of_seeds({1}, raises=RuntimeError("broken"))[1] == [0]


# --- what a check leaves behind ------------------------------------------------------------------


def leaving(change):
    """The result of a check whose code does this, and holds."""

    @check("made")
    def made(subject):
        """Does it hold?"""
        change()
        yield HOLDS

    return run_check(Cell(made, HERE))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: torch.set_default_dtype(torch.float64), "torch's default dtype"),
        (lambda: torch.set_grad_enabled(False), "torch's grad mode (True → False)"),
        (lambda: torch.set_num_threads(3), "torch's number of threads"),
        (lambda: torch.use_deterministic_algorithms(True), "deterministic mode (off → on)"),
        (lambda: torch.set_printoptions(precision=2), "torch's print options"),
        (lambda: torch.set_flush_denormal(True), "how subnormal numbers are rounded"),
        (lambda: torch.set_default_device("meta"), "torch's default device (cpu → meta)"),
        (lambda: os.chdir(".."), "the working folder"),
        (lambda: os.environ.update(OMP_NUM_THREADS="7"), "the environment's variables"),
        (lambda: warnings.simplefilter("ignore"), "the filters of warnings"),
    ],
)
def test_what_a_plugin_changes_is_put_back_and_it_is_named(change, named):
    leaving(lambda: None)  # whatever is imported only once is imported
    result = leaving(change)
    assert result.outcome == "failed"
    assert result.reason.startswith("fakes.sound changed ")
    assert named in result.reason
    assert leaving(lambda: None).outcome == "passed"


def test_generators_are_put_back_without_a_word():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    result = leaving(lambda: (torch.manual_seed(5), np.random.seed(5), random.seed(5)))
    assert result.outcome == "passed"
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_a_run_that_begins_with_a_strange_default_says_which_in_one_sentence():
    process_state.require_ordinary()
    with process_state.kept():
        torch.set_default_dtype(torch.float64)
        with pytest.raises(RefimplError, match=r"^torch's default dtype is torch\.float64, bef"):
            check_example(EXAMPLE)


def test_a_run_that_begins_with_subnormals_flushed_to_zero_says_so():
    with process_state.kept():
        torch.set_flush_denormal(True)
        with pytest.raises(RefimplError, match=r"^subnormal numbers are flushed to zero"):
            process_state.require_ordinary()
    process_state.require_ordinary()


def test_who_only_asks_whether_it_holds_is_told_at_the_first_that_does_not():
    failed = answer(HOLDS, WRONG, HOLDS, raises=RuntimeError("later"), to_the_end=False)
    assert (failed.outcome, failed.measurements) == ("failed", (HOLDS, WRONG))
    assert answer(HOLDS, HOLDS, to_the_end=False).outcome == "passed"


# --- outcomes ------------------------------------------------------------------------------------


def test_a_check_whose_measurements_hold_passes_with_all_of_them():
    result = answer(HOLDS, HOLDS)
    assert (result.outcome, result.reason) == ("passed", "")
    assert result.measurements == (HOLDS, HOLDS)
    assert result.question == "Does it hold?"
    assert result.seconds > 0
    assert result.id == "fake-sound/module/made/cpu/stand-in"


def test_a_check_that_measured_nothing_fails():
    result = answer()
    assert result.outcome == "failed"
    assert result.reason == "the check measured nothing, so it proves nothing"


def test_one_measurement_that_does_not_hold_fails_the_check_with_its_message():
    result = answer(HOLDS, WRONG, HOLDS)
    assert (result.outcome, result.reason) == ("failed", "it does not")
    assert len(result.measurements) == 3


def test_of_many_that_do_not_hold_three_are_told_and_the_rest_counted():
    result = answer(*(true("it", False, f"no {n}") for n in range(5)))
    assert result.reason == "no 0; no 1; no 2 (and 2 more)"


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (ValueError("one\n  two"), "ValueError: one two"),
        (KeyError("name"), "KeyError: 'name'"),
        (SystemExit(0), "SystemExit: 0"),
        (GeneratorExit(), "GeneratorExit: "),
        (pytest.fail.Exception("too long"), "Failed: too long"),
        (pytest.skip.Exception("a plugin may not"), "Skipped: a plugin may not"),
    ],
)
def test_whatever_a_check_raises_is_a_failure_with_its_reason_and_place(raised, reason):
    result = answer(HOLDS, raises=raised)
    assert (result.outcome, result.reason) == ("failed", reason)
    assert "test_checking.py" in result.details
    assert result.measurements == (HOLDS,)


def test_an_error_of_ours_says_enough_without_a_traceback():
    result = answer(raises=ContractError("the variant\nyields nothing"))
    assert (result.outcome, result.reason) == ("failed", "the variant yields nothing")
    assert result.details == ""


def test_whoever_interrupts_the_run_interrupts_it():
    with pytest.raises(KeyboardInterrupt):
        answer(raises=KeyboardInterrupt())


def test_a_failure_does_not_hide_behind_a_skip():
    result = answer(WRONG, raises=CannotRunError("needs torchtext"))
    assert (result.outcome, result.reason) == ("failed", "it does not")


# --- skips ---------------------------------------------------------------------------------------


def subject(execution=CPU, tier="stand-in", **changes):
    return Subject(EXAMPLE, like("module", **changes), execution, tier)


def raising(error):
    def load(root=None):
        raise error

    return load


ELSEWHERE = Execution("cuda:7", "", device="cuda", missing=lambda: NEEDS_CUDA)
LOOKS = Execution("looks", "", unfit=lambda variant: variant.data.load("stand-in") and None)


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        (subject(execution=ELSEWHERE), NEEDS_CUDA),
        (replace(subject(execution=ELSEWHERE), variant=None), NEEDS_CUDA),
        (subject(execution=replace(CPU, device="cuda"), numpy=True), NUMPY_ON_CPU),
        (
            subject(data=DataSet("a", raising(0), raising(DataMissingError("?"))), tier="real"),
            NEEDS_REAL_DATA,
        ),
        (subject(data=DataSet("b", raising(MissingExtraError("no ray")))), "needs ray"),
        (
            subject(execution=LOOKS, data=DataSet("b", raising(MissingExtraError("no ray")))),
            "needs ray",
        ),
    ],
)
def test_what_a_check_lacks_is_a_skip_with_a_reason_from_the_list(lacking, reason):
    result = answer(HOLDS, subject=lacking)
    assert (result.outcome, result.reason) == ("skipped", reason)
    assert result.measurements == ()
    assert reason in REASONS


def test_an_extra_that_is_not_installed_is_a_skip(monkeypatch):

    monkeypatch.setattr(requirements, "import_error", lambda package: "ImportError: no")
    assert obstacle(subject(needs="torchtext")) == "needs torchtext"


def test_an_optional_package_that_warns_while_it_is_imported_is_there(
    tmp_path, monkeypatch, recwarn
):
    (tmp_path / "made_old.py").write_text("import warnings; warnings.warn('the last release')")
    monkeypatch.syspath_prepend(tmp_path)
    assert requirements.import_error("made_old") is None
    assert not recwarn.list


def test_a_check_may_find_itself_that_it_cannot_run():
    result = answer(raises=CannotRunError("needs torchtext"))
    assert (result.outcome, result.reason) == ("skipped", "needs torchtext")


def test_a_skip_for_no_reason_of_the_list_is_a_failure():
    result = answer(raises=CannotRunError("did not feel like it"))
    assert result.outcome == "failed"
    assert result.reason == "skipped for a reason that is not on the list: 'did not feel like it'"


@pytest.mark.parametrize(
    ("lacking", "outcome"),
    [("needs a quantum computer", "skipped"), ("not today", "failed")],
)
def test_an_execution_may_need_what_nobody_else_knows_of(lacking, outcome):
    absent = Execution("elsewhere", "", missing=lambda: lacking)
    result = answer(HOLDS, subject=replace(HERE, execution=absent))
    assert (result.outcome, lacking in result.reason) == (outcome, True)


def test_data_that_is_there_and_damaged_is_a_failure_not_a_skip():
    broken = subject(data=DataSet("c", raising(0), raising(DataError("c.csv is cut"))), tier="real")
    result = answer(HOLDS, subject=broken)
    assert (result.outcome, result.reason) == ("failed", "c.csv is cut")


def test_a_need_that_nobody_knows_is_a_failure():
    result = answer(HOLDS, subject=subject(needs="torchaudio"))
    assert result.outcome == "failed"
    assert "unknown need 'torchaudio'; there are: cuda, torchvision" in result.reason
    with pytest.raises(ValueError, match="unknown need"):
        missing("torchaudio")


def test_numpy_runs_on_the_cpu_and_what_needs_nothing_runs():
    assert obstacle(subject(numpy=True)) is None
    assert obstacle(HERE) is None


# --- cells ---------------------------------------------------------------------------------------


def question(name, about="variant", applies=lambda subject: True):
    @check(name, about, applies)
    def asked(subject):
        """Is it?"""
        yield HOLDS

    return asked


def test_a_check_is_asked_of_the_example_of_each_variant_or_of_each_execution():
    asked = [question(about, about) for about in ("example", "variant", "execution")]
    others = [
        Execution("other", ""),
        Execution("wrapped", "", supports=lambda variant: not variant.bare),
    ]
    assert [cell.id for cell in cells(EXAMPLE, asked, CPU, "real", others)] == [
        "fake-sound/-/example/cpu/real",
        "fake-sound/scratch/variant/cpu/real",
        "fake-sound/module/variant/cpu/real",
        "fake-sound/scratch/execution/other/real",
        "fake-sound/module/execution/other/real",
        "fake-sound/module/execution/wrapped/real",
    ]


def test_a_check_is_asked_where_it_applies():
    of_modules = question("of-modules", applies=lambda subject: not subject.trained.bare)
    found = list(cells(EXAMPLE, [of_modules], CPU, "real"))
    assert [cell.subject.variant.name for cell in found] == ["module"]


def test_where_an_example_cannot_even_tell_what_applies_it_is_asked_and_fails():
    def broken(*asked):
        raise RuntimeError("no such layer")

    @check("touchy", applies=broken)
    def touchy(subject):
        """Does it hold?"""
        yield broken()

    @check("same", about="execution")
    def same(subject):
        """Is it the same?"""
        yield HOLDS

    picky = Execution("picky", "cannot tell what it supports", supports=broken)
    asked = list(cells(EXAMPLE, [touchy, same], CPU, "stand-in", [picky]))
    assert [cell.check.name for cell in asked] == ["touchy", "touchy", "same", "same"]
    assert run_check(asked[0]).outcome == "failed"


def test_a_question_about_the_whole_example_has_no_variant():
    with pytest.raises(TypeError, match="about an example as a whole"):
        _ = replace(HERE, variant=None).trained


def test_a_check_without_a_question_is_refused():
    with pytest.raises(TypeError, match="check 'mute' needs a docstring"):
        check("mute")(lambda subject: iter(()))


def test_the_traceback_of_a_failure_has_the_line_that_raised():
    result = answer(raises=ZeroDivisionError("by zero"))
    assert "raise raises" in result.details
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.name)
def test_every_check_says_how_to_read_its_failure(check):
    assert len(check.reading.split()) > 5
