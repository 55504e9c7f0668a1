"""The documented schema of the results file is the schema that the code writes."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from refimpl.checking.checks import Measurement, Result
from refimpl.checking.results import CHECK, FOOTER, HEADER, SCHEMA
from refimpl.training.curves import Curve

PAGE = Path(__file__).parent.parent / "docs" / "results-schema.md"

pytestmark = pytest.mark.xdist_group("results-schema")  # one run serves all


def documented(section):
    """The fields in the table of one section of the page, in their order."""
    text = re.split(r"^#+ ", PAGE.read_text("utf-8"), flags=re.M)
    (own,) = (part for part in text if part.partition("\n")[0] == section)
    return re.findall(r"^\| `(\w+)` \|", own, re.M)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The records of a real run, by their type."""
    folder = tmp_path_factory.mktemp("run")
    path = folder / "results.jsonl"
    arguments = ["--example", "titanic-dnn", "-k", "plugin or errata or figures", "-n", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--pyargs", "refimpl.conformance", *arguments,
         "-p", "no:cacheprovider", "--results", str(path)],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    kinds = (HEADER, CHECK, FOOTER)
    by_kind = {kind: [r for r in records if r["$report_type"] == kind] for kind in kinds}
    return {**by_kind, "text": path.read_text("utf-8")}


def keys(record):
    return [key for key in record if key != "$report_type"]


@pytest.mark.parametrize("kind", [HEADER, CHECK, FOOTER])
def test_every_field_of_a_record_is_documented_and_no_other(written, kind):
    assert written[kind]
    for record in written[kind]:
        optional = {"cells"} if kind == FOOTER else set()
        assert sorted(keys(record)) == sorted(set(documented(kind)) - optional)


def test_every_fact_of_the_environment_is_documented_and_no_other(written):
    assert list(written[HEADER][0]["environment"]) == documented("environment")


@pytest.mark.parametrize(
    ("kind", "section"), [(Result, "check"), (Measurement, "measurement"), (Curve, "curve")]
)
def test_the_documented_fields_are_those_of_the_code(kind, section):
    assert documented(section) == [field.name for field in fields(kind)]


def test_a_run_writes_measurements_curves_and_data_as_documented(written):
    trained = [r for r in written[CHECK] if r["check"] == "reaches-documented-figures"]
    assert trained
    for record in trained:
        assert record["curves"]
        assert all(sorted(c) == sorted(documented("curve")) for c in record["curves"])
        assert all(sorted(m) == sorted(documented("measurement")) for m in record["measurements"])
        assert re.fullmatch(r"titanic [0-9a-f]{16}", record["data"])


def test_errata_and_documents_of_the_header_are_as_documented(written):
    about = written[HEADER][0]["documents"]["titanic-dnn"]
    assert list(about) == ["title", "document", "section", "errata"]
    assert list(about["errata"][0]) == ["name", "says", "today", "since"]


def test_the_documented_version_is_the_codes():
    said = f"`schema` of the header is the version of the format, now **{SCHEMA}**"
    assert said in PAGE.read_text("utf-8")


def test_the_example_of_reading_works(written, tmp_path, capsys, monkeypatch):
    (tmp_path / "results.jsonl").write_text(written["text"], "utf-8")
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    exec(compile(program, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("False True {'passed': ")  # with -k
