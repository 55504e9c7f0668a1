"""No check goes missing without a word."""

from dataclasses import replace

import pytest
from fakes.sound import EXAMPLE

from refimpl.checking import manifest
from refimpl.checking.checks import cells
from refimpl.checking.manifest import ManifestError, lacking, made_of
from refimpl.checking.plan import in_tree_cells
from refimpl.composition import CPU
from refimpl.conformance import check_example
from refimpl.conformance.checks import ALL
from refimpl.executions.built_in import refimpl_executions
from refimpl.loading import registry

pytest_plugins = ["pytester"]

OTHERS = [e for e in refimpl_executions() if e.name in ("f64", "data-parallel")]
NAMES = [e.name for e in OTHERS]


def asked(example, others=OTHERS):
    return list(cells(example, ALL, CPU, "stand-in", others))


WHOLE = made_of(asked(EXAMPLE))


def without_facts():
    """The sound example after someone lost what its document states of the module."""
    return replace(
        EXAMPLE,
        variants=tuple(replace(v, facts=replace(v.facts, layers=())) for v in EXAMPLE.variants),
    )


def test_the_committed_manifest_is_what_is_asked_today():
    assert manifest.read(manifest.path()) == made_of(in_tree_cells(registry.load(), ALL)), (
        "refimpl manifest --update"
    )


def test_nothing_is_missed_where_everything_is_asked():
    assert lacking(WHOLE, EXAMPLE.name, asked(EXAMPLE), "stand-in", OTHERS) == []


def test_a_check_that_lost_its_fact_is_missed_by_name():
    missed = lacking(WHOLE, EXAMPLE.name, asked(without_facts()), "stand-in", OTHERS)
    assert missed == ["layer-table of fake-sound/module"]


def test_a_variant_that_is_gone_is_missed():
    alone = replace(EXAMPLE, variants=EXAMPLE.variants[:1])
    missed = lacking(WHOLE, EXAMPLE.name, asked(alone), "stand-in", OTHERS)
    assert "parameter-count of fake-sound/module" in missed
    assert all("fake-sound/module" in each for each in missed)


def test_executions_that_were_not_asked_for_are_not_missed():
    fewer = asked(EXAMPLE, OTHERS[:1])
    assert lacking(WHOLE, EXAMPLE.name, fewer, "stand-in", OTHERS[:1]) == []
    missed = lacking(WHOLE, EXAMPLE.name, fewer, "stand-in", OTHERS)
    assert f"same-on-every-execution:{NAMES[1]} of fake-sound/module" in missed
    assert all(each.endswith(f":{NAMES[1]} of fake-sound/module") for each in missed)


def test_checks_of_the_other_tier_are_not_missed():
    assert lacking(WHOLE, EXAMPLE.name, [], "real", OTHERS) == []


def test_what_is_new_is_not_missed():
    assert lacking(made_of([]), EXAMPLE.name, asked(EXAMPLE), "stand-in", OTHERS) == []


def test_a_manifest_is_written_and_read(tmp_path):
    manifest.write(WHOLE, tmp_path / "m.json")
    assert manifest.read(tmp_path / "m.json") == WHOLE


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"a": {"b": ["nowhere"]}}'])
def test_a_damaged_manifest_is_refused(tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(ManifestError, match=r"m\.json"):
        manifest.read(tmp_path / "m.json")


@pytest.fixture
def asks_more(tmp_path, monkeypatch):
    """A manifest that requires a check of autograd that it does not get."""
    committed = dict(manifest.read(manifest.path()))
    committed["autograd/-"] = {**committed["autograd/-"], "layer-table": ("stand-in",)}
    manifest.write(committed, tmp_path / "m.json")
    monkeypatch.setattr(manifest, "path", lambda: tmp_path / "m.json")
    return tmp_path / "m.json"


def test_a_run_with_fewer_checks_than_the_manifest_fails(pytester, asks_more):
    pytester.makeconftest(
        f"from pathlib import Path\nfrom refimpl.checking import manifest\n"
        f"manifest.path = lambda: Path({str(asks_more)!r})\n"
    )
    ran = pytester.runpytest_subprocess(
        "--pyargs", "refimpl.conformance", "--example", "autograd", "-n", "0", "-k", "manifest"
    )
    ran.assert_outcomes(failed=1, deselected=ran.parseoutcomes()["deselected"])
    ran.stdout.fnmatch_lines(["*1 checks of the manifest are missing: layer-table of autograd/-*"])


def test_check_example_fails_where_a_check_of_the_manifest_is_missing(asks_more):
    answers = {answer.check: answer for answer in check_example("autograd")}
    assert answers["checks-of-the-manifest"].outcome == "failed"
    assert "layer-table of autograd/-" in answers["checks-of-the-manifest"].reason


def test_check_example_passes_with_every_check_of_the_manifest():
    answers = {answer.check: answer for answer in check_example("autograd")}
    assert answers["checks-of-the-manifest"].outcome == "passed"
