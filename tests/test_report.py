"""The report says what the results files say, no more, and lets nothing in them act."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from fakes.runs import (
    ENVIRONMENT,
    erratum,
    failed,
    parted,
    passed,
    sealed,
    skipped,
    trained,
    write,
)

from refimpl.checking.checks import at_most, within, within_budget
from refimpl.checking.results import ResultsError
from refimpl.checking.warned import Warned
from refimpl.cli.main import cli
from refimpl.errors import RefimplError
from refimpl.report.changes import counterpart, since
from refimpl.report.columns import columns, names_meant
from refimpl.report.findings import REFERENCE
from refimpl.report.model import report
from refimpl.report.plots import HEIGHT, WIDTH, Drawn, Series, merged, plot, strips
from refimpl.report.render import duration, figure, headline, markdown, page, summary


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its text, and the links in it."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open, self.scripts = [], "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.text += f"{data} "

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def made(*paths, against=(), expected=()):
    return report(columns(paths, expected), columns(against) if against else ())


def shown(*paths, **options):
    return Page(page(made(*paths, **options)))


def words(text):
    return " ".join(text.split())


# --- verdicts ------------------------------------------------------------------------------------


def test_a_run_in_which_nothing_failed_is_a_pass(tmp_path):
    found = made(write(tmp_path, "a", passed(), skipped()))
    assert found.verdict.state == "passed"
    assert found.verdict.headline == "torch 2.14.1 on CPU does what the documents say"
    assert found.verdict.sentence == "1 check. Not checked: torchtext (1)."


def test_one_failed_check_fails_the_whole(tmp_path):
    good = write(tmp_path, "a", passed())
    bad = write(tmp_path, "b", failed(), passed("x"), packages={"torch": "2.13.0"})
    found = made(good, bad)
    assert found.verdict.state == "failed"
    assert found.verdict.headline == "torch does what the documents say in 1 of 2 environments"
    assert found.verdict.sentence == "1 finding; 1 failed, 2 passed."
    assert [c.state for c in found.columns] == ["failed", "passed"]


@pytest.mark.parametrize("results", [[passed()], []], ids=["some answers", "none"])
def test_a_run_without_its_end_is_incomplete_and_no_pass(tmp_path, results):
    found = made(write(tmp_path, "cut", *results, ends=False))
    assert found.columns[0].state == "incomplete"
    assert found.verdict.state == "incomplete"
    assert "cut.jsonl has no footer" in words(Page(page(found)).text)
    assert "cut.jsonl has no footer" in summary(found)
    for row in found.rows:
        assert [cell.state for cell in row.cells] == ["partial"]


def test_a_line_cut_short_is_an_incomplete_run(tmp_path):
    path = write(tmp_path, "cut", passed(), passed("ring-dnn"))
    path.write_text(path.read_text()[:-200])
    assert made(path).verdict.state == "incomplete"


def test_what_a_file_that_ends_early_lacks_is_not_checked_any_more(tmp_path):
    whole = write(tmp_path, "whole", passed(), passed("ring-dnn"), passed("autograd"))
    cut = write(tmp_path, "cut", passed(), ends=False)
    (found,) = since(columns([cut]), columns([whole]))
    (line,) = found.by_kind["not checked any more"]
    assert line.says == "cut.jsonl ends early: 2 checks of before are missing"
    (back,) = since(columns([whole]), columns([cut]))
    assert "cut.jsonl ends early" in back.causes


def test_a_run_that_pytest_ended_otherwise_is_no_pass(tmp_path):
    found = made(write(tmp_path, "a", passed(), status=3))
    assert found.verdict.state == "failed"
    assert "pytest ended with status 3" in words(Page(page(found)).text)


def test_a_run_in_which_everything_was_skipped_is_no_pass(tmp_path):
    found = made(write(tmp_path, "a", skipped()))
    assert found.verdict.state == "failed"
    assert "no check passed" in found.columns[0].why
    assert found.rows[0].cells[0].state == "skipped"


def test_a_cell_that_was_expected_and_is_not_there_is_shown_and_no_pass(tmp_path):
    found = made(write(tmp_path, "py311-torch214", passed()), expected=["py313-torch23"])
    assert found.verdict.state == "incomplete"
    assert [(c.label, c.state) for c in found.columns][1:] == [("py313-torch23", "absent")]
    assert found.rows[0].cells[1].why_absent == "not run"
    assert "1 not run" in found.verdict.sentence
    text = words(Page(page(found)).text)
    assert "not run py313-torch23 no results file" in text
    assert "- not run: py313-torch23" in summary(found)


def test_a_cell_that_was_expected_and_is_there_is_no_second_column(tmp_path):
    found = made(write(tmp_path, "py311-torch214", passed()), expected=["py311-torch214"])
    assert found.verdict.state == "passed"
    assert len(found.columns) == 1


def test_a_damaged_file_beside_a_good_one_is_shown_and_no_pass(tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{}\n{}\n")
    found = made(write(tmp_path, "a", passed()), broken)
    assert found.verdict.state == "failed"
    assert found.columns[1].state == "unreadable"
    assert "is not a results file of refimpl" in Page(page(found)).text


def test_a_damaged_file_alone_is_an_error_in_one_line(tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text("no json\n")
    with pytest.raises(ResultsError, match=r"broken\.jsonl, line 1: not JSON"):
        made(broken)


def test_an_expected_failure_is_told_with_its_reason_and_is_no_failure(tmp_path):
    known = replace(failed(reason="known since torch 2.6: it is wrong"), outcome="xfailed")
    found = made(write(tmp_path, "a", passed("ring-dnn"), known))
    assert found.verdict.state == "passed"
    assert found.rows[0].cells[0].state == "passed"
    assert "known since torch 2.6" in Page(page(found)).text
    assert [reason.reason for reason in found.expected_failures] == [known.reason]


# --- columns and rows ----------------------------------------------------------------------------


def test_runs_of_one_environment_that_asked_different_checks_are_one_column(tmp_path):
    first = write(tmp_path, "a", passed())
    second = write(tmp_path, "b", failed(), environment={"threads": 1})
    found = made(first, second)
    assert len(found.columns) == 1
    assert found.columns[0].seconds == 122.0
    assert [row.example for row in found.rows] == ["ring-dnn", "titanic-dnn"]


def test_runs_of_one_environment_that_asked_the_same_are_told_apart_by_when(tmp_path):
    first = write(tmp_path, "a", passed())
    again = write(tmp_path, "b", failed("titanic-dnn"), passed(), started="2026-11-22T05:00:00")
    labels = [column.label for column in made(first, again).columns]
    assert labels == [
        "Python 3.11 · torch 2.14.1 · cpu · 2026-11-21 02:03",
        "Python 3.11 · torch 2.14.1 · cpu · 2026-11-22 05:00",
    ]


def test_runs_of_the_same_minute_are_told_apart_by_their_files(tmp_path):
    labels = [c.label for c in made(*(write(tmp_path, n, passed()) for n in "ab")).columns]
    assert [label.rsplit(" · ", 1)[1] for label in labels] == ["a", "b"]


def test_runs_with_other_seeds_are_no_runs_of_one_environment(tmp_path):
    as_stated = write(tmp_path, "a", passed(), reseed=0)
    other = write(tmp_path, "b", failed(), reseed=100)
    labels = [column.label for column in made(as_stated, other).columns]
    assert labels == [
        "Python 3.11 · torch 2.14.1 · cpu",
        "Python 3.11 · torch 2.14.1 · cpu · reseed 100",
    ]
    assert "reseed 0 100" in words(shown(as_stated, other).text)


def test_a_run_from_before_reseeding_is_one_with_the_stated_seeds(tmp_path):
    before = write(tmp_path, "a", passed())
    assert len(columns([before, write(tmp_path, "b", failed(), reseed=0)])) == 1


def test_columns_stand_in_the_order_of_versions_not_of_letters(tmp_path):
    versions = [("3.9.1", "2.9.0"), ("3.10.2", "2.14.1"), ("3.10.2", "2.6.0")]
    paths = [
        write(tmp_path, str(n), passed(), environment={"python": p}, packages={"torch": t})
        for n, (p, t) in enumerate(versions)
    ]
    assert [c.label for c in columns(paths)] == [
        "Python 3.9 · torch 2.9.0 · cpu",
        "Python 3.10 · torch 2.6.0 · cpu",
        "Python 3.10 · torch 2.14.1 · cpu",
    ]


def test_a_folder_stands_for_its_results_files_each_of_them_once(tmp_path):
    path = write(tmp_path, "a", passed())
    (tmp_path / "a.xml").write_text("<testsuite/>")
    assert [c.names for c in columns([tmp_path, path])] == [("a",)]


def test_a_path_that_leads_nowhere_is_named(tmp_path):
    with pytest.raises(RefimplError, match=r"there is no results file .*nowhere"):
        columns([tmp_path / "nowhere"])


def test_an_example_that_an_environment_was_not_asked_is_not_shown_as_passed(tmp_path):
    found = made(
        write(tmp_path, "a", passed()),
        write(tmp_path, "b", passed("ring-dnn"), packages={"torch": "2.13.0"}),
    )
    cells = {(row.example, cell.column.names[0]): cell for row in found.rows for cell in row.cells}
    assert cells["ring-dnn", "a"].state == "absent"
    assert cells["ring-dnn", "a"].why_absent == "not selected"


def test_data_that_are_not_the_same_everywhere_are_told(tmp_path):
    ours = write(tmp_path, "a", passed(data="titanic 11dc9cb945c1d7f4"))
    other = passed(data="titanic ffffffffffffffff")
    theirs = write(tmp_path, "b", other, packages={"torch": "2.13.0"})
    text = words(shown(ours, theirs).text)
    assert "The data set titanic (stand-in) is not the same everywhere" in text
    assert not made(ours).data_differences


# --- what changed --------------------------------------------------------------------------------


def test_every_way_in_which_a_check_can_change_is_told(tmp_path):
    names = [f"check-{n}" for n in range(7)]
    before = [
        passed(check=names[0]),
        passed(check=names[1]),
        passed(check=names[2]),
        failed("titanic-dnn", names[3], variant="script"),
        passed(check=names[4]),
        passed(check=names[5]),
    ]
    after = [
        passed(check=names[0]),
        failed("titanic-dnn", names[1], variant="script"),
        skipped("titanic-dnn", names[2]),
        passed(check=names[3]),
        replace(failed("titanic-dnn", names[4], variant="script"), outcome="xfailed"),
        passed(check=names[6]),
    ]
    (found,) = made(write(tmp_path, "new", *after), against=[write(tmp_path, "old", *before)]).since
    kinds = {result.check: line.kind for line in found.lines for result in line.results}
    assert kinds == {
        names[1]: "no longer holds",
        names[2]: "not checked any more",
        names[3]: "holds again",
        names[4]: "no longer holds",
        names[5]: "not checked any more",
        names[6]: "checked now",
    }
    assert found.lines[0].kind == "no longer holds"


def test_what_a_run_that_died_did_not_reach_is_one_line(tmp_path):
    old = write(tmp_path, "old", passed(), failed(), passed("ring-dnn"))
    new = write(tmp_path, "new", passed(), ends=False)
    (line,) = made(new, against=[old]).since[0].lines
    assert line.says == "new.jsonl ends early: 2 checks of before are missing"


def test_what_was_left_out_on_purpose_is_no_loss(tmp_path):
    old = write(tmp_path, "old", passed(), passed("autograd"), passed(check="layer-table"))
    for asked in ({"examples": ["titanic-dnn"]}, {"only": {"cells": [passed().id]}}):
        new = write(tmp_path, "new", passed(), **asked)
        (found,) = made(new, against=[old]).since
        lost = [line for line in found.lines if line.says.startswith("autograd")]
        assert [line.kind for line in lost] == ["not run this time"]
    assert found.sentence == "Nothing changed."


def test_a_new_check_that_fails_is_among_the_new_failures(tmp_path):
    old, new = write(tmp_path, "old", passed()), write(tmp_path, "new", passed(), failed())
    (found,) = made(new, against=[old]).since
    assert found.counts == Counter({"new or other failure": 1})


def test_a_failure_that_is_another_one_now_is_told(tmp_path):
    old = write(tmp_path, "old", failed(reason="it is wrong"))
    same = write(tmp_path, "same", failed(reason="it is wrong"))
    other = write(tmp_path, "other", failed(reason="it is missing"))
    assert made(same, against=[old]).since[0].lines == ()
    assert made(other, against=[old]).since[0].lines[0].says.startswith("it is missing")


def test_a_statement_that_came_to_be_an_erratum_no_longer_holds(tmp_path):
    old = write(tmp_path, "old", erratum("right"), packages={"torch": "2.13.0+cpu"})
    new = write(tmp_path, "new", erratum("wrong"))
    (found,) = made(new, against=[old]).since
    says = "torch.qr: holds with torch 2.13.0, gone with 2.14.1"
    assert found.lines[0].says == f"{says} (tensors)"
    assert found.sentence == f"Changed: 1 no longer holds ({says})."
    (back,) = made(old, against=[new]).since
    assert [line.kind for line in back.lines] == ["holds again"]


def test_a_warning_that_became_stronger_is_told_and_one_that_stayed_is_not(tmp_path):
    def run(name, category, text="`f` is deprecated, since 2.1"):
        warned = (Warned(category, "torch/f.py", text), Warned("UserWarning", "torch/g.py", "slow"))
        return write(tmp_path, name, passed(warnings=warned))

    old = run("old", "DeprecationWarning")
    (same,) = made(
        run("same", "DeprecationWarning", "`f` is deprecated, since 2.2"), against=[old]
    ).since
    (weaker,) = made(run("weak", "PendingDeprecationWarning"), against=[old]).since
    (stronger,) = made(run("new", "FutureWarning"), against=[old]).since
    assert same.lines == weaker.lines == ()
    assert [line.says for line in stronger.lines] == [
        "DeprecationWarning → FutureWarning: `f` is deprecated, since 2.1"
    ]


def test_a_check_is_slower_only_beyond_what_all_of_them_vary(tmp_path):
    def run(name, factor, last):
        seconds = [factor * (1 + 0.05 * (n % 3)) for n in range(12)]
        results = [passed(check=f"c{n}", seconds=s) for n, s in enumerate(seconds)]
        return write(tmp_path, name, *results, passed(check="last", seconds=last))

    old = run("old", 1.0, 1.0)
    assert made(run("busy", 1.8, 1.9), against=[old]).since[0].lines == ()
    (found,) = made(run("slow", 1.0, 9.0), against=[old]).since
    assert [line.says for line in found.lines] == ["titanic-dnn · script · last: 1.0 s → 9.0 s"]


def test_a_figure_that_moved_is_told_with_both_values(tmp_path):
    old = write(tmp_path, "old", trained(values=(0.7, 0.41)))
    new = write(tmp_path, "new", trained(values=(0.7, 0.40)), packages={"torch": "2.15.0"})
    found = made(new, against=[old])
    (line,) = found.since[0].lines
    assert line.says == "titanic-dnn · script · reaches-documented-figures: val_loss 0.41 → 0.4"
    assert found.since[0].causes == ("torch 2.14.1 → 2.15.0",)
    text = words(Page(page(found)).text)
    assert "1 figure moved" in text
    assert "torch 2.14.1 → 2.15.0" in text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (within("a", 0.41, 0.3, 0.45), within("a", 0.413, 0.3, 0.45)),
        (within_budget("a", 0.1), within_budget("a", 0.9)),
        (at_most("a", 0.25, 1), at_most("a", 0.25 + 1e-9, 1)),
        (replace(at_most("a", 5.0, 9), resolution=2), replace(at_most("a", 6.0, 9), resolution=2)),
    ],
    ids=["part of a range", "within a budget", "the digits shown", "as it says itself"],
)
def test_a_figure_that_moved_by_less_than_its_resolution_did_not_move(tmp_path, before, after):
    old = write(tmp_path, "old", passed(measurements=(before,)))
    new = write(tmp_path, "new", passed(measurements=(after,)))
    assert made(new, against=[old]).since[0].lines == ()


def test_other_seeds_are_told_as_what_may_have_moved_a_figure(tmp_path):
    old = write(tmp_path, "old", trained(values=(0.7, 0.41)))
    new = write(tmp_path, "new", trained(values=(0.7, 0.40)), reseed=100)
    found = made(new, against=[old])
    assert found.since[0].counts == Counter({"figure moved": 1})
    assert found.since[0].causes == ("reseed 0 → 100",)
    assert "reseed 0 → 100" in words(Page(page(found)).text)
    assert "- reseed 0 → 100" in summary(found)


def test_nothing_changed_is_said(tmp_path):
    old, new = write(tmp_path, "old", passed()), write(tmp_path, "new", passed())
    assert "Every check has the same answer." in shown(new, against=[old]).text


def test_an_environment_is_held_against_the_one_most_like_it(tmp_path):
    def column(name, torch="2.14.1", python="3.11.7", device="cpu", reseed=0):
        path = write(
            tmp_path, name, passed(),
            packages={"torch": torch}, environment={"python": python}, device=device, reseed=reseed,
        )  # fmt: skip
        return columns([path])[0]

    new = column("new")
    same, torch, python = column("same"), column("t", torch="2.13"), column("p", python="3.12.1")
    cuda, seeds = column("cuda", device="cuda"), column("seeds", reseed=100)
    assert counterpart(new, [seeds, torch]) is torch
    assert counterpart(new, [seeds]) is seeds
    assert counterpart(new, [torch, same, python, cuda]) is same
    assert counterpart(new, [torch, python, cuda]) is python
    assert counterpart(new, [torch, cuda]) is torch
    assert counterpart(new, [cuda]) is None
    assert since([new], [cuda]) == ()


# --- findings ------------------------------------------------------------------------------------


def test_an_error_over_its_budget_stands_beyond_it_and_is_named(tmp_path):
    inside = passed("ring-dnn", measurements=(within_budget("worst error ratio", 0.5),))
    found = made(write(tmp_path, "a", parted(3.6), inside))
    ((_, rows),) = found.parity
    assert rows.strips[0].worst.name == "low · same-on-every-execution · cpu+bf16"
    assert [dot.within for dot in rows.strips[0].dots] == [True, False]
    assert rows.strips[0].dots[0].at < rows.budget < rows.strips[0].dots[1].at


def test_an_error_that_is_not_a_number_is_over_its_budget():
    rows = strips({"x": [("a", math.nan), ("b", 2.0)]})
    assert rows.strips[0].worst.name == "a"
    assert not rows.strips[0].worst.within


def test_a_figure_that_only_looks_like_an_error_is_not_among_them(tmp_path):
    other = passed(measurements=(at_most("slope error", 1e-9, 1e-6),))
    assert not made(write(tmp_path, "a", other)).parity


def test_a_first_divergence_is_told_with_the_growth_up_to_it(tmp_path):
    found = made(write(tmp_path, "a", parted()))
    (divergence,) = found.divergences
    assert divergence.where.startswith("step 6, gradient b3[0, 0]")
    assert divergence.growth.lines[0].last == 3.6
    assert divergence.growth.limit is not None
    assert "step 6, gradient b3[0, 0]: found -0.127" in words(Page(page(found)).text)


def test_an_erratum_is_shown_by_version(tmp_path):
    about = {"name": "torch.qr", "says": "it is there", "today": "it is not", "since": "torch>=2"}
    told = {"documents": {"tensors": {"title": "T", "errata": [about]}}}
    old = write(tmp_path, "old", erratum("right"), packages={"torch": "2.3.1"}, **told)
    new = write(tmp_path, "new", erratum("wrong"), **told)
    never = write(tmp_path, "never", passed(), packages={"torch": "2.15.0"}, **told)
    (row,) = made(old, new, never).errata
    assert "py313" not in [column.label for column in made(old, expected=["py313"]).ran]
    assert row.found == (("right", True), ("wrong", True), None)
    text = words(shown(old, new, never).text)
    assert "the document: it is there today: it is not (torch>=2)" in text
    assert "not tried" in text


def test_skips_are_told_once_for_each_reason(tmp_path):
    results = [skipped(), skipped("tensors"), skipped("autograd", reason="needs a CUDA device")]
    found = made(write(tmp_path, "a", passed(), *results))
    assert [(r.reason, len(r.results), r.examples) for r in found.skips] == [
        ("needs torchtext", 2, ["imdb-cnn", "tensors"]),
        ("needs a CUDA device", 1, ["autograd"]),
    ]


def test_the_figure_shown_of_a_check_is_the_one_that_does_not_hold():
    good, bad = within_budget("a", 0.1), within_budget("b", 7.0)
    assert headline(passed(measurements=(good, bad))).what == "b"
    assert headline(passed(measurements=(good, within_budget("c", 0.9)))).what == "c"
    assert headline(skipped()) is None


# --- drawings ------------------------------------------------------------------------------------


def a_plot(*series, **options):
    lines = [Series((f"s{n}",), *own, colour=n) for n, own in enumerate(series)]
    return plot(Drawn("loss", "epoch", lines, **options))


def test_a_line_begins_and_ends_where_its_numbers_are():
    drawing = a_plot(((1, 2, 3), (1.0, 3.0, 2.0)))
    points = [tuple(map(float, p.split())) for p in drawing.lines[0].path[1:].split("L")]
    (x1, y1), (x2, y2), (x3, y3) = points
    assert x1 < x2 < x3
    assert y1 > y3 > y2  # up is less
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert drawing.lines[0].end == (x3, y3)


def test_the_axis_begins_with_the_first_epoch_and_ends_with_the_last():
    drawing = a_plot((tuple(range(1, 38)), tuple(float(v) for v in range(37))))
    assert [tick.text for tick in drawing.across] == ["1", "10", "20", "30", "37"]


def test_a_figure_over_many_powers_of_ten_is_drawn_on_a_log_scale():
    drawing = a_plot(((1, 2, 3), (100.0, 1.0, 0.01)))
    assert drawing.logarithmic
    assert [tick.text for tick in drawing.up] == ["0.01", "0.1", "1", "10", "100"]
    assert not a_plot(((1, 2), (100.0, -0.01))).logarithmic


def test_numbers_that_are_none_leave_no_trace_and_all_of_them_no_drawing():
    drawing = a_plot(((1, 2, 3), (1.0, math.nan, 2.0)))
    assert drawing.lines[0].path.count("L") == 1
    assert a_plot(((1, 2), (math.nan, math.inf))) is None


def test_lines_that_are_the_same_are_drawn_once_with_all_their_names():
    first, same = Series(("a",), (1, 2), (0.5, 0.25), 0), Series(("b",), (1, 2), (0.5, 0.25), 1)
    other = Series(("c",), (1, 2), (0.5, 0.26), 1)
    (both, alone) = merged([first, same, other])
    assert (both.names, both.colour) == (("a", "b"), None)
    assert (alone.names, alone.colour) == (("c",), 1)


def test_the_band_and_the_range_to_end_in_are_within_the_drawing():
    at, low, high = (1, 2, 3), (0.6, 0.4, 0.3), (0.9, 0.6, 0.5)
    drawing = a_plot((at, (0.7, 0.5, 0.4)), band=(at, low, high), target=(0.2, 1.2))
    corners = [tuple(map(float, p.split())) for p in drawing.band[1:-1].split("L")]
    assert len(corners) == 6
    top, bottom = drawing.target
    assert 0 <= top < bottom <= HEIGHT
    assert all(top <= y <= bottom for _, y in corners)
    assert drawing.target_text == "0.2 … 1.2"


def test_a_band_comes_from_the_curve_that_brings_one(tmp_path):
    result = trained(low=(0.6, 0.4, 0.3), high=(0.8, 0.6, 0.5))
    (drawing,) = made(write(tmp_path, "a", result)).rows[0].plots
    assert drawing.band
    assert drawing.target_text == "0.3 … 0.45"


def test_a_drawing_is_told_in_words(tmp_path):
    spoken = [svg["aria-label"] for svg in shown(write(tmp_path, "a", trained())).of("svg")]
    assert spoken == ["val_loss over 3 epochs: script: from 0.7 to 0.4; should end in 0.3 … 0.45"]


# --- the page ------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & </style> {{ 7*7 }}"


def everything(tmp_path, text=""):
    """Results with something of every kind, where every string that a plugin can choose is text."""

    def named(name):
        return f"{name}{text}"

    def hostile(result):
        measurements = tuple(
            replace(m, what=named(m.what), message=named(m.message),
                    where=named(m.where) if m.where else "",
                    limit=named(m.limit),
                    measured=named(m.measured) if isinstance(m.measured, str) else m.measured)
            for m in result.measurements
        )  # fmt: skip
        return replace(
            result, example=named(result.example), variant=named(result.variant),
            check=result.check if result.check == "errata" else named(result.check),
            reason=named(result.reason), details=named("Traceback"), question=named("Is it?"),
            measurements=measurements,
            curves=tuple(replace(c, what=named(c.what)) for c in result.curves),
        )  # fmt: skip

    known = replace(failed("autograd", reason="known"), outcome="xfailed")
    all_of_them = [passed(), failed(), skipped(), trained(), parted(), erratum(), known]
    results = [hostile(result) for result in all_of_them]
    about = {key: named(key) for key in ("title", "document", "section")}
    about["errata"] = [
        {"name": named("torch.qr"), **{key: named(key) for key in ("says", "today", "since")}}
    ]
    header = {
        "documents": {result.example: about for result in results},
        "plugins": {result.example: named("origin") for result in results},
        "device": named("cpu"),
        "run": named("r1"),
        "started": named("2026"),
    }
    new = write(
        tmp_path, "new", *results, packages={named("torch"): named("1")},
        environment={"python": named("3.11"), "devices": [named("cpu")], "platform": named("L")},
        **header,
    )  # fmt: skip
    old = write(tmp_path, "old", *results[3:], **header)
    return {"paths": [new], "against": [old], "expected": [named("py313")]}


@pytest.fixture
def hostile_page(tmp_path):
    inputs = everything(tmp_path, HOSTILE)
    return Page(page(made(*inputs.pop("paths"), **inputs)))


def test_what_a_plugin_says_is_text_and_never_an_element(hostile_page):
    own_script = files("refimpl.report").joinpath("templates").joinpath("report.js").read_text()
    assert hostile_page.scripts == [own_script]
    assert not hostile_page.of("img")
    for tag, attributes in hostile_page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert "{{ 7*7 }}" in hostile_page.text


@pytest.mark.parametrize(
    "field",
    ["ring-dnn", "low", "it is wrong", "Traceback", "Is it?", "worst error ratio", "title",
     "origin", "expected -0.077", "needs torchtext", "torch.qr", "says", "py313"],
)  # fmt: skip
def test_hostile_text_is_shown_as_it_stands(hostile_page, field):
    assert f"{field}{HOSTILE}" in hostile_page.text


def test_no_other_script_than_the_pages_own_may_run(hostile_page):
    (policy,) = (m["content"] for m in hostile_page.of("meta") if "http-equiv" in m)
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", policy)


def test_the_page_fetches_nothing(hostile_page):
    for tag, attributes in hostile_page.elements:
        if tag == "a" and attributes["href"] == REFERENCE:  # which a reader may follow
            continue
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    style = files("refimpl.report").joinpath("templates").joinpath("report.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_every_link_leads_to_one_place_of_the_page(hostile_page):
    ids = hostile_page.ids()
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    links = {a["href"] for a in hostile_page.of("a")}
    assert {link[1:] for link in links - {REFERENCE}} <= set(ids)
    labels = {a["aria-labelledby"] for _, a in hostile_page.elements if "aria-labelledby" in a}
    assert labels <= set(ids)


def test_every_cell_of_the_matrix_leads_to_its_checks(tmp_path):
    found = shown(write(tmp_path, "a", passed(), failed(), skipped()))
    opened = {a["id"] for a in found.of("details") if "cell" in a.get("class", "")}
    linked = {a["href"][1:] for a in found.of("a") if "aria-label" in a}
    assert len(opened) == 3
    assert linked == opened


def test_a_screen_reader_finds_its_way(hostile_page):
    assert hostile_page.of("html")[0]["lang"] == "en"
    assert all("scope" in attributes for attributes in hostile_page.of("th"))
    assert all("aria-label" in svg and svg["role"] == "img" for svg in hostile_page.of("svg"))
    levels = [int(tag[1]) for tag, _ in hostile_page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert hostile_page.elements[[t for t, _ in hostile_page.elements].index("body") + 1] == (
        "a",
        {"class": "skip", "href": "#matrix"},
    )
    scrolled = [a for _, a in hostile_page.elements if a.get("class") == "scroll"]
    assert scrolled
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scrolled)


def _themes():
    style = files("refimpl.report").joinpath("templates").joinpath("report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.S)
    read = re.compile(r"--([\w-]+): #([0-9a-f]{3,6})")
    return {"light": dict(read.findall(light)), "dark": dict(read.findall(dark))}


def _luminance(colour):
    digits = colour if len(colour) == 6 else "".join(c * 2 for c in colour)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_has_the_contrast_that_wcag_asks_for(theme):
    colours = _themes()[theme]
    inks = ("ink", "soft", "link", "passed", "failed", "amber", "skipped")
    pairs = [(ink, ground) for ink in inks for ground in ("ground", "card", "faint")]
    pairs += [(kind, f"{kind}-ground") for kind in ("passed", "failed", "amber", "skipped")]
    pairs += [("ink", "failed-ground"), ("link", "failed-ground")]
    for ink, ground in pairs:
        light, dark = sorted((_luminance(colours[ink]), _luminance(colours[ground])), reverse=True)
        ratio = (light + 0.05) / (dark + 0.05)
        assert ratio >= 4.5, f"{ink} on {ground} has {ratio:.2f}"


def test_the_same_files_make_the_same_page(tmp_path):
    inputs = everything(tmp_path)
    paths = inputs.pop("paths")
    assert page(made(*paths, **inputs)) == page(made(*paths, **inputs))


# --- the summary ---------------------------------------------------------------------------------


def test_the_summary_has_the_verdict_the_matrix_and_the_failures(tmp_path):
    text = summary(made(write(tmp_path, "a", passed(), failed(), skipped())))
    head = "## ✗ refimpl: torch 2.14.1 on CPU does not do what the documents say\n"
    assert text.startswith(head)
    assert "| ring-dnn | ✗ 1 failed |" in text
    assert "| titanic-dnn | ✓ 1 passed |" in text
    extent = "1 check in ring-dnn"
    assert f"1. **it is wrong** ({extent})\n" in text
    assert "- needs torchtext: 1 check of imdb-cnn" in text


def test_no_text_breaks_out_of_the_summary(tmp_path):
    inputs = everything(tmp_path, f"{HOSTILE}|\n# x `code` [link](http://x)")
    text = summary(made(*inputs.pop("paths"), **inputs))
    own = {"details", "/details", "summary", "/summary", "!-- --"}
    assert "http://" not in text
    assert set(re.findall(r"<([^>]*)>", text)) <= own
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert not re.search(r"(?<!\\)`|(?<!\\)\[", text)


def test_markdown_of_a_text_is_the_text_in_one_line():
    assert markdown("a_b *c*\n<i> & | `d`") == r"a\_b \*c\* &lt;i&gt; &amp; \| \`d\`"


# --- small things --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "<0.1 s"), (0.05, "0.1 s"), (59.9, "59.9 s"), (61, "1 min 01 s"),
     (3599.9, "1 h 00 min"), (7260, "2 h 01 min")],
)  # fmt: skip
def test_seconds_are_said_as_a_reader_says_them(seconds, text):
    assert duration(seconds) == text


def test_a_long_figure_is_cut_and_a_float_is_rounded():
    assert figure(0.123456789) == "0.123457"
    assert figure("x" * 1000) == "x" * 240 + "…"
    assert figure(True) == "True"


# --- the command ---------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def test_the_command_writes_page_and_summary_and_says_the_verdict(tmp_path):
    path = write(tmp_path, "a", passed())
    result = run(path, "-o", tmp_path / "r.html", "--markdown", tmp_path / "r.md")
    assert result.exit_code == 0, result.output
    says = "torch 2.14.1 on CPU does what the documents say: 1 check.\n"
    assert result.output.startswith(says)
    assert "<!DOCTYPE html>" in (tmp_path / "r.html").read_text("utf-8")
    assert (tmp_path / "r.md").read_text("utf-8").startswith("## ✓ refimpl: torch 2.14.1 on CPU")


@pytest.mark.parametrize(
    ("results", "options", "code"),
    [([passed()], [], 0), ([failed()], [], 1), ([passed()], ["--expect", "b"], 1)],
    ids=["passed", "failed", "not run"],
)
def test_the_exit_code_is_the_verdict_only_where_it_is_asked_for(tmp_path, results, options, code):
    path = write(tmp_path, "a", *results)
    output = ["-o", tmp_path / "r.html"]
    given = cli.main(
        ["report", str(path), *map(str, output), *options, "--exit-code"], standalone_mode=False
    )
    assert given == code
    asked = ["report", str(path), *map(str, output), *options]
    assert cli.main(asked, standalone_mode=False) == 0


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["a"], ["a"]),
        (["a, b c", "a"], ["a", "b", "c"]),
        (["py3{10,11}-torch{23,26}"], [f"py3{p}-torch{t}" for p in (10, 11) for t in (23, 26)]),
        (["x{1,2}, y"], ["x1", "x2", "y"]),
        (["py311{,-cuda}"], ["py311", "py311-cuda"]),
        ([""], []),
    ],
)
def test_braces_in_an_expected_name_list_alternatives(patterns, names):
    assert names_meant(patterns) == names


def test_several_names_may_be_expected_at_once(tmp_path):
    run(write(tmp_path, "a", passed()), "-o", tmp_path / "r.html", "--expect", "a,b c")
    text = words(Page((tmp_path / "r.html").read_text("utf-8")).text)
    assert "not run b , c no results files" in text


def test_a_page_that_could_not_be_written_is_refused_with_its_path(tmp_path):
    path = write(tmp_path, "a", passed())
    with pytest.raises(RefimplError, match=r"cannot write .*/no/r\.html: its folder does not"):
        cli.main(["report", str(path), "-o", str(tmp_path / "no/r.html")], standalone_mode=False)


def test_a_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(RefimplError, match="there is no results file in"):
        cli.main(["report", str(tmp_path)], standalone_mode=False)


def test_making_a_report_imports_no_torch(tmp_path):
    path = write(tmp_path, "a", passed(), trained())
    program = (
        "import sys; from refimpl.cli.main import cli; "
        f"cli.main(['report', {str(path)!r}, '-o', {str(tmp_path / 'r.html')!r}],"
        " standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_every_file_of_the_page_is_installed():
    inside = {entry.name for entry in files("refimpl.report").joinpath("templates").iterdir()}
    wanted = {"report.html.j2", "plots.html.j2", "summary.md.j2", "report.css", "report.js"}
    assert wanted <= inside


def test_an_older_results_file_without_the_newer_fields_is_still_shown(tmp_path):
    path = write(tmp_path, "a", passed())
    header, check, footer = (json.loads(line) for line in path.read_text().splitlines())
    for key in ("documents", "plugins", "workers", "data", "problems"):
        header.pop(key, None)
    for key in ("question", "curves", "data"):
        check.pop(key, None)
    check["measurements"] = [
        {k: v for k, v in m.items() if k in ("what", "measured", "limit", "holds")}
        for m in check["measurements"]
    ]
    path.write_text(sealed([json.dumps(record) for record in (header, check, footer)]))
    assert made(path).verdict.state == "passed"
    assert "titanic-dnn" in shown(path).text


def test_a_workers_gpu_and_threads_are_told(tmp_path):
    workers = {"count": 2, "threads": 4, "gpus": ["0", "GPU-5d5b"]}
    text = shown(write(tmp_path, "a", passed(), workers=workers)).text
    assert "2, 4 threads each, pinned to GPU 0, GPU-5d5b" in text
    assert ENVIRONMENT["platform"] in text


def test_a_run_is_not_compared_with_itself_in_a_report_of_it_and_others(tmp_path):
    old = write(tmp_path, "old", erratum("right"), packages={"torch": "2.13.0"})
    new = write(tmp_path, "new", erratum("wrong"))
    found = report(columns([old, new]), columns([old]))
    assert [since.column for since in found.since] == ["Python 3.11 · torch 2.14.1 · cpu"]


def test_two_results_files_are_compared_on_the_terminal(tmp_path):
    old = write(tmp_path, "old", erratum("right"), packages={"torch": "2.13.0"})
    new = write(tmp_path, "new", erratum("wrong"))
    done = CliRunner().invoke(cli, ["diff", str(old), str(new)], standalone_mode=False)
    assert done.return_value == 1
    assert "(torch 2.13.0 → 2.14.1):" in done.output
    assert "  No longer holds\n    torch.qr: holds with torch 2.13.0, gone with" in done.output
    same = CliRunner().invoke(cli, ["diff", str(new), str(new)], standalone_mode=False)
    assert (same.return_value, same.output.splitlines()[-1]) == (0, "Nothing changed.")


def test_results_of_different_devices_are_not_compared(tmp_path):
    cpu, cuda = write(tmp_path, "a", passed()), write(tmp_path, "b", passed(), device="cuda")
    with pytest.raises(RefimplError, match="of different devices or data"):
        cli.main(["diff", str(cpu), str(cuda)], standalone_mode=False)


# --- history and badge ---------------------------------------------------------------------------


def test_earlier_runs_are_a_row_of_verdicts_and_a_trend_for_each_figure(tmp_path):
    past = [
        write(tmp_path, f"past{n}", trained(values=(0.7, end)), started=f"2026-11-2{n}T02:03:02")
        for n, end in enumerate((0.40, 0.41))
    ]
    latest = trained(values=(0.7, 0.44)), failed()
    now = write(tmp_path, "now", *latest, started="2026-11-22T02:03:02")
    found = report(columns([now]), history=columns(past))
    (history,) = found.histories
    whens = [run.when for run in history.runs]
    assert whens == ["2026-11-20 02:03", "2026-11-21 02:03", "2026-11-22 02:03"]
    assert [run.state for run in history.runs] == ["passed", "passed", "failed"]
    (trend,) = history.trends
    assert trend.what == "titanic-dnn · script · val_loss"
    assert "Python 3.11 · cpu" in Page(page(found)).text


def test_without_earlier_runs_there_is_no_history(tmp_path):
    assert made(write(tmp_path, "a", passed())).histories == ()


@pytest.mark.parametrize(
    ("results", "options", "says"),
    [
        ([passed()], {}, "hold on torch 2.14.1, CPU"),
        ([failed()], {}, "do not hold on torch 2.14.1, CPU"),
        ([passed()], {"ends": False}, "not all checked on torch 2.14.1, CPU"),
    ],
)
def test_a_badge_says_the_verdict_and_the_torch(tmp_path, results, options, says):
    write(tmp_path, "a", *results, **options)
    run_of = ["badge", str(tmp_path), "-o", str(tmp_path / "b.svg")]
    cli.main(run_of, standalone_mode=False)
    drawn = ElementTree.fromstring((tmp_path / "b.svg").read_text())
    assert drawn.get("aria-label") == f"documented examples: {says}"
