"""The matrix of tox, its constraints, and the workflows that run it fit together."""

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from refimpl.cli.main import cli
from refimpl.report.columns import names_meant

ROOT = Path(__file__).parent.parent
SUPPORTED = ("310", "311", "312", "313")


@pytest.fixture(scope="module")
def tox():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def cells(tox):
    return names_meant([tox["matrix"]["cells"]])


@pytest.fixture(scope="module")
def constraints(tox):
    """The constraints file of each torch factor."""
    lines = tox["testenv"]["set_env"].splitlines()
    found = (re.match(r"(torch\w+): PIP_CONSTRAINT = .*\{/\}(\S+)$", line) for line in lines)
    return {match[1]: ROOT / "constraints" / match[2] for match in found if match}


def pins(path):
    text = (line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return {r.name: r for r in (Requirement(line) for line in text if line)}


def test_every_cell_has_constraints_and_every_constraints_file_a_cell(cells, constraints):
    factors = {cell.split("-")[1] for cell in cells}
    assert factors == set(constraints)
    assert set(constraints.values()) == set((ROOT / "constraints").glob("*.txt"))


def test_every_supported_python_is_in_the_matrix(cells):
    assert {cell.split("-")[0][2:] for cell in cells} == set(SUPPORTED)
    assert len(cells) == len(set(cells)) == 26


def test_a_cells_name_is_the_torch_that_it_gets(constraints):
    for factor, path in constraints.items():
        version = next(iter(pins(path)["torch"].specifier)).version
        if factor != "torchnewest":
            assert factor == "torch" + "".join(version.split(".")[:2])


def test_the_newest_torch_is_newer_than_any_other(constraints):
    newest = pins(constraints.pop("torchnewest"))["torch"].specifier
    for path in constraints.values():
        (pinned,) = pins(path)["torch"].specifier
        assert not newest.contains(pinned.version)


def test_torchtext_comes_with_the_one_torch_that_it_was_built_for(constraints):
    with_text = {factor for factor, path in constraints.items() if "torchtext" in pins(path)}
    assert with_text == {"torch23"}
    assert str(pins(constraints["torch23"])["numpy"].specifier) == "<2"


def test_every_cell_has_its_counterpart_on_gpus(tox, cells):
    label = tox["tox"]["labels"].split("=", 1)[1]
    assert names_meant([label]) == [f"{cell}-cuda" for cell in cells]


def test_the_page_of_all_cells_expects_each_of_them(tox):
    report = tox["testenv:report"]
    assert '--expect "{[matrix]cells}"' in report["commands"]
    assert report["depends"] == "{[matrix]cells}"


# --- what is documented of runners ---------------------------------------------------------------


def documented_commands():
    """The commands of the page on GPU machines, as words."""
    page = (ROOT / "docs" / "gpu-runners.md").read_text("utf-8")
    for block in re.findall(r"```bash\n(.*?)```", page, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line)


def test_every_documented_option_of_pytest_is_one():
    usage = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, cwd=ROOT
    ).stdout
    commands = [words for words in documented_commands() if words[0] == "pytest"]
    options = {word for words in commands for word in words if word.startswith("--")}
    assert {"--device", "--gpus-per-worker", "--results"} <= options
    assert {option for option in options if f"{option}" not in usage} == set()


def test_every_documented_command_of_refimpl_is_one():
    commands = [words for words in documented_commands() if "refimpl" in words]
    assert len(commands) == 3
    for words in commands:
        name, *rest = words[words.index("refimpl") + 1 :]
        cli.commands[name].make_context(name, rest)  # parses, and runs nothing


# --- workflows -----------------------------------------------------------------------------------


def workflow(name):
    yaml = pytest.importorskip("yaml", reason="needs PyYAML: refimpl[test]")
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))


def test_every_action_is_pinned_by_its_commit():
    files = sorted((ROOT / ".github").rglob("*.yml"))
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    used = [line.split("uses:")[1] for line in lines if re.match(r"\s+(- )?uses:", line)]
    assert len(used) > 10
    pinned = re.compile(r" [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [own for own in used if not pinned.fullmatch(own) and not own.startswith(" ./")] == []


def test_what_ci_installs_first_has_digests_and_the_tools_have_versions():
    text = (ROOT / ".ci" / "tox.txt").read_text("utf-8").replace("\\\n", " ")
    needed = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line in needed:
        assert re.fullmatch(
            r"\S+==\S+ (; python_version \S+ \S+ )? *--hash=sha256:[0-9a-f]{64}", line
        )
    assert {"tox", "virtualenv", "tomli"} <= {line.partition("==")[0] for line in needed}
    for line in (ROOT / ".ci" / "tools.txt").read_text("utf-8").splitlines()[1:]:
        (specifier,) = Requirement(line).specifier
        assert specifier.operator == "=="


def test_no_workflow_installs_a_tool_of_any_version():
    for file in sorted((ROOT / ".github").rglob("*.yml")):
        for line in file.read_text("utf-8").splitlines():
            if re.search(r"-m pip install\b", line) and not line.lstrip().startswith("#"):
                assert "--require-hashes" in line or "-e " in line or '"${what[@]}"' in line, line


def environments(text):
    """The tox environments that a text asks for."""
    return [
        name for given in re.findall(r"tox(?: run)? -e (\S+)", text) for name in given.split(",")
    ]


def steps(jobs):
    return [step for job in jobs.values() for step in job["steps"]]


def test_the_workflow_runs_every_cell_of_the_matrix_and_no_other(cells):
    matrix = workflow("ci.yml")["jobs"]["cell"]["strategy"]["matrix"]
    left_out = {(entry["python"], entry["torch"]) for entry in matrix["exclude"]}
    run = [
        f"py{python.replace('.', '')}-torch{torch.replace('.', '')}"
        for python in matrix["python"]
        for torch in matrix["torch"]
        if (python, torch) not in left_out
    ]
    assert sorted(run) == sorted(cells)


@pytest.mark.parametrize("name", ["ci.yml", "gpu.yml"])
def test_what_a_workflow_asks_of_tox_is_there(tox, cells, name):
    known = {*cells, *(f"{cell}-cuda" for cell in cells), "lint", "types", "report"}
    asked = [e for step in steps(workflow(name)["jobs"]) for e in environments(step.get("run", ""))]
    assert asked
    assert {name for name in asked if "$" not in name} <= known


@pytest.mark.parametrize("name", ["ci.yml", "gpu.yml"])
def test_a_workflow_may_read_the_repository_and_nothing_more(name):
    assert workflow(name)["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("name", ["ci.yml", "gpu.yml"])
def test_results_are_kept_where_the_checks_failed_too(name):
    kept = [s for s in steps(workflow(name)["jobs"]) if "upload-artifact" in s.get("uses", "")]
    assert kept
    assert all(step["if"] in ("always()", "${{ !cancelled() }}") for step in kept)


def test_the_verdict_of_the_whole_is_that_of_the_page():
    report = workflow("ci.yml")["jobs"]["report"]
    assert report["needs"] == ["cell"]
    assert report["if"] == "${{ !cancelled() }}"
    assert any("--exit-code" in step.get("run", "") for step in report["steps"])
    assert any("GITHUB_STEP_SUMMARY" in step.get("run", "") for step in report["steps"])
