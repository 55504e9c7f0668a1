"""The table of the documents' figures is made of results files, and of nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
from fakes.sound import EXAMPLE

from refimpl.checking.checks import Result, within
from refimpl.checking.results import Results
from refimpl.contract import Facts, Figure
from refimpl.report.figures import CHECK, lines, markdown

VARIANT = replace(EXAMPLE.variants[0], facts=Facts(figures=(Figure("loss", 0.25),)))
DOCUMENTED = {EXAMPLE.name: replace(EXAMPLE, variants=(VARIANT,))}


def run(measured, torch="2.14.1", tier="real", check=CHECK, outcome="passed", day=1):
    measurements = (within("loss", measured, 0.2, 0.3),) if measured is not None else ()
    result = Result(EXAMPLE.name, VARIANT.name, check, "cpu", tier, outcome, "", 3.2, measurements)
    started = f"2026-11-{day:02}T02:03:02+00:00"
    header = {"started": started, "environment": {"packages": {"torch": torch}}}
    return Results(Path("r.jsonl"), header, (result,), None)


def test_a_figure_stands_beside_what_the_document_prints():
    (line,) = lines([run(0.26)], DOCUMENTED)
    assert (line.documented, line.measured, line.limit, line.verdict) == (
        0.25, "0.26", "0.2 … 0.3", "holds",
    )  # fmt: skip
    row = markdown([line]).splitlines()[-1]
    assert row == "| fake-sound | scratch | loss | 0.25 | 0.26 | 0.2 … 0.3 | holds | 3 | 2.14.1 |"


def test_a_figure_outside_its_range_is_not_hidden():
    (line,) = lines([run(0.36, outcome="failed")], DOCUMENTED)
    assert "**does not hold**" in markdown([line])


def test_a_range_that_further_seeds_have_reached_says_so():
    first = within("loss", 0.36, 0.2, 0.3)
    reached = replace(run(0.26).checks[0], measurements=(replace(first, holds=True),))
    (line,) = lines([replace(run(0.26), checks=(reached,))], DOCUMENTED)
    assert line.verdict == "holds on a retry with further seeds"


def test_a_document_whose_own_figure_is_not_in_the_range_is_not_confirmed():
    facts = Facts(figures=(Figure("loss", 4.0, outside_because="it did not converge"),))
    told = replace(EXAMPLE, variants=(replace(VARIANT, facts=facts),))
    (line,) = lines([run(0.26)], {EXAMPLE.name: told})
    assert line.verdict == "holds; the document's own lies outside: it did not converge"


def test_of_several_results_those_of_the_run_that_began_last_count():
    older, newer = run(0.36, day=1), run(0.26, torch="2.15.0", day=2)
    for given in ([older, newer], [newer, older]):
        (line,) = lines(given, DOCUMENTED)
        assert (line.measured, line.torch) == ("0.26", "2.15.0")


def test_a_text_with_a_bar_stays_in_its_cell():
    (line,) = lines([run(0.26)], DOCUMENTED)
    row = markdown([replace(line, metric="|loss|")]).splitlines()[-1]
    assert row.startswith(r"| fake-sound | scratch | \|loss\| | 0.25 |")


@pytest.mark.parametrize("other", [{"tier": "stand-in"}, {"check": "layer-table"}])
def test_other_tiers_and_checks_are_not_in_the_table(other):
    assert list(lines([run(0.26, **other)], DOCUMENTED)) == []


def test_a_check_that_measured_nothing_has_no_line():
    assert list(lines([run(None, outcome="skipped")], DOCUMENTED)) == []


def test_results_of_an_example_that_is_not_here_have_no_documented_figure():
    (line,) = lines([run(0.26)], {})
    assert line.documented is None
