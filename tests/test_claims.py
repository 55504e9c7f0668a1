"""The ledger of claims: every statement points at its assertion, every assertion at a statement."""

import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.authoring import claims_page
from refimpl.checking import claims, claims_run
from refimpl.checking.checks import Measurement, Result
from refimpl.checking.claims import Claim, ClaimsError, Ledger, Own, faults, judged, stated
from refimpl.cli import main
from refimpl.conformance.checks import ALL
from refimpl.contract import Erratum, Exact, Example, Facts, Failure, Figure, Variant
from refimpl.loading import registry

PAGES = Path(__file__).parent.parent / "docs" / "claims"

EXAMPLE = Example(
    "made", "t", "a document", "1",
    variants=(Variant("script", facts=Facts(
        parameters=651,
        figures=(Figure("loss", 0.5, real=(0.4, 0.6)), Figure("loss", 0.9, real=(0, 1), epoch=1)),
    )),),
    values=(Exact("sum", lambda: 2, (1, 2)),),
    failures=(Failure("breaks", int, ValueError),),
    errata=(Erratum("gone", "it is there", "it is gone", "torch>=1.5", lambda: False),),
)  # fmt: skip


def claim(check="exact-values", what="sum", **more) -> Claim:
    return Claim("1", "it says so", "exact", check=check, what=what, **more)


COMPLETE = (
    claim(),
    claim("documented-failures", "breaks"),
    claim("errata", "gone"),
    claim("parameter-count", ""),
    claim("reaches-documented-figures", "loss"),
    claim("reaches-documented-figures", "loss after epoch 1"),
)


def found(*entries: Claim, own: tuple[Own, ...] = (), checks=()) -> list[str]:
    return list(faults(EXAMPLE, Ledger(entries, own), checks))


# --- the ledgers that are here -------------------------------------------------------------------


@pytest.fixture(scope="module")
def ledgers():
    return claims_run.chosen(registry.load(), ())


def test_every_claim_points_at_an_assertion_and_every_assertion_has_a_claim(ledgers):
    assert claims_run.faults(ledgers, ALL) == []


def test_every_example_has_a_ledger(ledgers):
    in_tree = {
        name
        for name, registered in registry.load().examples.items()
        if registered.source.origin.startswith("in-tree")
    }
    assert {each.example.name for each in ledgers if each.ledger.claims} >= in_tree


def test_most_of_what_can_be_checked_is_asserted(ledgers):
    counts = claims.counts(claims_run.stated(ledgers))
    assert counts["asserted"] >= 0.95 * counts["checkable"]


def test_the_pages_are_up_to_date(ledgers, tmp_path):
    made = {path.name: path.read_text("utf-8") for path in claims_page.write(
        claims_run.stated(ledgers), tmp_path
    )}  # fmt: skip
    there = {path.name: path.read_text("utf-8") for path in PAGES.glob("*.md")}
    assert made == there, "write them: refimpl claims --pages docs/claims"


# --- what is wrong with a ledger -----------------------------------------------------------------


def test_a_complete_ledger_has_no_fault():
    assert found(*COMPLETE) == []


@pytest.mark.parametrize("missing", range(len(COMPLETE)))
def test_an_assertion_without_a_claim_is_a_fault(missing):
    (fault,) = found(*(each for n, each in enumerate(COMPLETE) if n != missing))
    assert "has no claim" in fault
    assert COMPLETE[missing].check in fault


def test_an_assertion_of_our_own_needs_no_claim():
    assert found(*COMPLETE[1:], own=(Own("exact-values", "a second witness", "sum"),)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        claim(what="product"),
        claim("parameter-count", "", variant="other"),
        claim("layer-table", ""),
        claim("no-such-check", ""),
    ],
    ids=["name", "variant", "fact", "check"],
)
def test_a_claim_that_points_at_no_assertion_is_a_fault(wrong):
    (fault,) = found(*COMPLETE, wrong)
    assert "which the plugin does not assert" in fault


def test_a_claim_may_point_at_a_check_that_the_example_gets():
    ladder = claim("ladder-agrees-in-float64", "", variant="script")
    assert found(*COMPLETE, ladder, checks={("ladder-agrees-in-float64", "script")}) == []
    assert len(found(*COMPLETE, ladder, checks={("ladder-agrees-in-float64", "other")})) == 1


def test_a_check_of_many_assertions_must_be_named_with_one_of_them():
    (fault,) = found(*COMPLETE, claim(what=""), checks={("exact-values", "")})
    assert "does not say what" in fault


def test_the_figure_in_the_ledger_must_be_the_one_that_is_asserted():
    assert found(replace(COMPLETE[0], figure=[1, 2]), *COMPLETE[1:]) == []
    (fault,) = found(replace(COMPLETE[0], figure=[1, 3]), *COMPLETE[1:])
    assert fault.endswith("is [1, 3] in the ledger, and (1, 2) in the plugin")


def test_a_figure_of_another_run_must_lie_in_the_range_of_the_real_data():
    other = replace(COMPLETE[4], figure=0.6)
    assert found(*COMPLETE, other) == []
    (fault,) = found(*COMPLETE, replace(other, figure=0.61))
    assert fault.endswith("is 0.61 in the ledger, and 0.5 in the plugin")


# --- verdicts ------------------------------------------------------------------------------------


def verdict(entry: Claim, *results: Result) -> tuple[str, str]:
    (line,) = judged(EXAMPLE, Ledger((entry,)), results)
    return line.verdict, line.because


def result(check, outcome, *measurements, variant="-", reason="") -> Result:
    return Result(
        "made", variant, check, "cpu", "stand-in", outcome, reason, measurements=measurements
    )


def measured(what, holds=True, is_: object = 2) -> Measurement:
    return Measurement(what, is_, "= 2", holds, f"{what} is wrong")


def test_a_value_that_holds_and_one_that_does_not():
    assert verdict(claim(), result("exact-values", "passed", measured("sum")))[0] == "holds"
    two = measured("sum", holds=False), measured("other", holds=False)
    assert verdict(claim(), result("exact-values", "failed", *two)) == ("FAILS", "sum is wrong")


def test_another_value_that_fails_does_not_matter():
    both = measured("sum"), measured("other", holds=False)
    assert verdict(claim(), result("exact-values", "failed", *both))[0] == "holds"


def test_a_check_that_broke_before_it_measured_fails():
    assert verdict(claim(), result("exact-values", "failed", reason="boom")) == ("FAILS", "boom")


def test_an_erratum_says_since_when():
    run = result("errata", "passed", measured("gone", is_="wrong"))
    assert verdict(claim("errata", "gone"), run) == (
        "no longer holds",
        "since torch>=1.5: it is gone",
    )


def test_a_statement_that_still_holds_on_an_older_version_holds():
    run = result("errata", "passed", measured("gone", is_="right"))
    assert verdict(claim("errata", "gone"), run)[0] == "holds"


def test_a_figure_of_a_run_lies_in_a_band_or_was_not_run():
    figure = claim("reaches-documented-figures", "loss")
    run = result("reaches-documented-figures", "passed", measured("loss"), variant="script")
    assert verdict(figure, run)[0] == "within its band"
    assert verdict(figure)[0] == "not run"
    assert verdict(figure, replace(run, outcome="skipped", reason="no data")) == (
        "not run",
        "no data",
    )


def test_what_only_real_data_shows_is_not_run_on_the_stand_in():
    rows = claim("data-as-recorded", "", tier="real")
    run = result("data-as-recorded", "passed")
    assert verdict(rows, run) == ("not run", "no result of data-as-recorded on real data")
    assert verdict(rows, run, replace(run, tier="real"))[0] == "holds"


def test_what_is_not_asserted_says_why():
    lost = Claim("1", "it took 5 s", "timing", unchecked="the time of another machine")
    assert verdict(lost) == ("not checkable", "the time of another machine")
    assert verdict(replace(lost, unchecked="not yet: hard"))[0] == "not asserted"


# --- files and pages -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[claim", "cannot be read as TOML"),
        ("[[claims]]\nsection = '1'", "write [[claim]], [[own]] or [[recipe]]"),
        ("[[claim]]\nsection = '1'\nsays = 'x'", "it has no kind"),
        ("[[claim]]\nsection = '1'\nsays = 'x'\nkind = 'exact'", "give either the check"),
        ("[[claim]]\nsection = '1'\nsays = 'x'\nkind = 'wish'\ncheck = 'c'", "is no kind"),
        ("[[claim]]\nsektion = '1'", "did you mean 'section'"),
        (
            "[[claim]]\nsection = '1'\nsays = 'x'\nkind = 'exact'\ncheck = 'c'\ntier = 'raw'",
            "tier = 'raw' is none; there are: stand-in, real",
        ),
        ("[[own]]\ncheck = 'c'", "it has no why"),
        ("claim = 3", "write each entry under [[claim]]"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(tmp_path, text, says):
    path = tmp_path / "claims.toml"
    path.write_text(text)
    with pytest.raises(ClaimsError) as raised:
        claims.read(path)
    assert says in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_plugin_of_others_brings_its_own(capsys, tmp_path):
    plugin = tmp_path / "theirs.py"
    plugin.write_text(
        textwrap.dedent("""
        from refimpl import Exact, Example, hookimpl

        EXAMPLE = Example("theirs", "t", "their document", "1",
                          values=(Exact("sum", lambda: 1 + 1, 2), Exact("more", lambda: 3, 3)))

        @hookimpl
        def refimpl_examples():
            return [EXAMPLE]
    """)
    )
    plugin.with_name("theirs.claims.toml").write_text(
        textwrap.dedent("""
        [[claim]]
        section = "1"
        says = "one and one"
        kind = "exact"
        figure = 2
        check = "exact-values"
        what = "sum"
    """)
    )
    with pytest.raises(SystemExit) as ended:
        main.main(["claims", "theirs", "--plugin", str(plugin)])
    out, err = capsys.readouterr()
    assert "✓ one and one: 2" in out
    assert ended.value.code == 1
    assert "exact-values · more has no claim" in err


def test_warnings_that_assertions_provoke_are_not_shown(capfd, recwarn):
    with pytest.raises(SystemExit) as ended:
        main.main(["claims", "layers", "--summary"])  # reads a number off a tensor with a graph
    assert ended.value.code == 0
    assert not recwarn.list
    assert "Warning" not in "".join(capfd.readouterr())


def test_a_page_begins_with_what_no_longer_holds():
    text = claims_page.page("a document", list(stated(EXAMPLE, Ledger(COMPLETE))))
    first = text.partition("## ")[2]
    assert first.startswith("No longer holds: 1\n")
    assert "| ✗ 1 | it says so | `torch>=1.5` | it is gone | [made](../examples/made.md#" in first
    none = claims_page.page("a document", list(stated(EXAMPLE, Ledger(COMPLETE[:1]))))
    assert "No longer holds:" not in none


def test_a_page_links_each_statement_to_its_assertion():
    text = claims_page.page("a document", list(stated(EXAMPLE, Ledger(COMPLETE))))
    assert "| ✗ | it says so<br>*since torch>=1.5: it is gone* |" in text
    assert "(../examples/made.md#what-no-longer-holds)" in text
