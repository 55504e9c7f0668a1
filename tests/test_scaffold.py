"""What ``refimpl new`` makes passes as made, and says what is wrong once it is filled in so."""

import errno
import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from refimpl.authoring.linting import lint
from refimpl.authoring.scaffold import ScaffoldError, is_in_tree, new_distribution, new_file
from refimpl.checking.expectations import beside, read
from refimpl.cli.main import cli
from refimpl.compatibility import NEWEST
from refimpl.conformance import check_example
from refimpl.data import TIERS
from refimpl.loading import catalogue, discovery
from refimpl.loading.registry import load

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "made-new"


def outcomes(answers) -> set[str]:
    return {answer.outcome for answer in answers}


# --- as made -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("full", [False, True], ids=["small", "full"])
def test_a_plugin_passes_every_check_as_made_on_both_tiers(tmp_path, full, tier):
    (path,) = new_file(NAME, tmp_path, full)
    assert path == tmp_path / "made_new.py"
    registry = load([str(path)], only=[NAME])
    assert registry.problems == ()
    found = outcomes(check_example(registry.example(NAME), tier=tier))
    assert "passed" in found
    assert found <= {"passed", "skipped"}


def test_without_full_it_is_short(tmp_path):
    (path,) = new_file(NAME, tmp_path)
    assert len(path.read_text().splitlines()) < 60


def test_a_user_in_an_empty_folder_makes_one_and_checks_and_runs_it(tmp_path):
    def refimpl(command):
        words = [sys.executable, "-m", "refimpl", *command.split()]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    made = refimpl(f"new {NAME}")
    assert made.stdout.splitlines() == [
        "made made_new.py",
        f"then: refimpl check {NAME} --plugin made_new.py",
    ]
    then = made.stdout.splitlines()[-1].removeprefix("then: refimpl ")
    checked = refimpl(f"{then} -n 0 --execution cpu")
    assert checked.returncode == 0, checked.stdout
    ran = refimpl(f"run {NAME} --data real --plugin made_new.py")
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"made_new.py"}


def test_a_distribution_has_all_that_it_needs(tmp_path):
    made = new_distribution(NAME, tmp_path / "made")
    assert sorted(str(path.relative_to(tmp_path / "made")) for path in made) == [
        "README.md",
        "pyproject.toml",
        "src/refimpl_made_new/__init__.py",
        "src/refimpl_made_new/expected-failures.toml",
        "tests/test_made_new.py",
    ]
    project = tomllib.loads((tmp_path / "made" / "pyproject.toml").read_text())
    assert project["project"]["name"] == "refimpl-made-new"
    assert project["project"]["entry-points"] == {"refimpl.plugins": {NAME: "refimpl_made_new"}}


def test_the_plugin_of_a_distribution_is_in_order_and_expects_no_failure(tmp_path):
    new_distribution(NAME, tmp_path)
    registry = load([str(tmp_path / "src" / "refimpl_made_new")], only=[NAME])
    assert registry.problems == ()
    path = beside(registry.examples[NAME].source)
    assert path is not None
    assert read(path) == ()


def test_the_entry_that_is_shown_in_a_comment_is_a_valid_one(tmp_path):
    new_distribution(NAME, tmp_path)
    path = tmp_path / "src" / "refimpl_made_new" / "expected-failures.toml"
    shown = path.read_text().partition("For example:")[2]
    path.write_text("\n".join(line.removeprefix("#").strip() for line in shown.splitlines()))
    (entry,) = read(path)
    assert (entry.example, entry.torch) == (NAME, ">=2.6")


def test_its_name_can_be_listed_without_running_it(tmp_path):
    (path,) = new_file(NAME, tmp_path, full=True)
    entry = next(e for e in catalogue.entries([str(path)]) if e.name == NAME)
    assert entry.complete
    assert entry.variants == ("by-hand", "module")


def test_it_states_the_contract_that_it_was_made_for(tmp_path):
    (path,) = new_file(NAME, tmp_path, full=True)
    (entry,) = catalogue.read(discovery.named(str(path))).entries
    assert entry.contract == NEWEST
    assert f"    contract={NEWEST},\n" in path.read_text()


def test_lint_finds_nothing_but_what_is_left_to_do(tmp_path):
    (path,) = new_file(NAME, tmp_path, full=True)
    (advice,) = lint(load([str(path)], only=[NAME]).example(NAME), source=path).advice
    todo = [n for n, line in enumerate(path.read_text().splitlines(), 1) if "TODO" in line]
    assert f"lines {', '.join(map(str, todo))} of" in advice.text
    assert len(todo) > 5


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is not installed")
@pytest.mark.parametrize("name", ["a", "a-name-as-long-as-an-example-of-a-document-may-well-have"])
@pytest.mark.parametrize("full", [False, True], ids=["small", "full"])
def test_what_is_made_is_formatted_and_lints(tmp_path, name, full):
    new_distribution(name, tmp_path, full)
    settings = Path(__file__).parent.parent / "pyproject.toml"
    for command in (["format", "--check"], ["check"]):
        subprocess.run(["ruff", *command, "--config", settings, tmp_path], check=True)


# --- filled in wrongly ---------------------------------------------------------------------------

WRONG = {
    "a target that is flat": (
        "Rows(x.astype(np.float32), y.astype(np.float32))",
        "Rows(x.astype(np.float32), y.astype(np.float32)[:, 0])",
        "by-hand output-shape: target shape is (20,), expected (20, 1)",
    ),
    "a model of another size": (
        "nn.Linear(1, 1)",
        "nn.Linear(1, 1, bias=False)",
        "module parameter-count: parameters is 1, expected 2",
    ),
    "a layer of another name": (
        "self.linear",
        "self.dense",
        "module layer-table: layers is ['dense'], expected ['linear']",
    ),
    "a loop that never yields": (
        "yield Step(",
        "_ = Step(",
        "variant 'by-hand' is trained by by_hand(), which yields nothing; yield Step(loss, ...)",
    ),
    "a loop that turns the wrong way": (
        "bias -= problem.lr * bias.grad",
        "bias += problem.lr * bias.grad",
        "module against by-hand in float64 diverges at step 1, parameter bias",
    ),
    "gradients that pile up": (
        "        weight.grad = bias.grad = None\n",
        "",
        "module against by-hand in float64 diverges at step 2, gradient ",
    ),
    "a start from torch's generator": (
        '"bias": rng.standard_normal(1)}',
        '"bias": torch.randn(1).numpy()}',
        'what else the start is drawn from is ["torch\'s global generator"], expected []',
    ),
    "an order of torch's own": (
        "for x, y in problem.batches():\n",
        "for x, y in problem.batches():\n        x, y = x[(i := torch.randperm(9))], y[i]\n",
        'what else the steps draw from is ["torch\'s global generator"], expected []',
    ),
    "a parameter that is left out": (
        '{"weight": weight, "bias": bias}, output',
        '{"weight": weight}, output',
        "by-hand parameter-count: parameters is 1, expected 2",
    ),
    "a figure that is not reached": (
        "real=(0.007, 0.013)",
        "real=(0.0, 0.001)",
        "reaches-documented-figures: loss is 0.009",
    ),
    "a value that is not so": (
        "len(points().train), 200)",
        "len(points().train), 100)",
        "- exact-values: rows to train on is 200, expected 100",
    ),
    "a fact that is not so": (
        'state_dict=("linear.weight", "linear.bias")',
        'state_dict=("linear.bias", "linear.weight")',
        "module state-dict-keys: state_dict keys is ('linear.weight', 'linear.bias'), expected",
    ),
    "a loop that yields something else": (
        'yield Step(loss, {"weight": weight, "bias": bias}, output, y, model=model)',
        "yield loss",
        "variant 'by-hand' yields Tensor, not a Step; yield Step(loss, ...) after each update",
    ),
    "a loss that is cut off": (
        "((output - y) ** 2).mean()",
        "((output - y) ** 2).mean().detach()",
        "does not have a grad_fn (made_new.py:77)",
    ),
    "a parameter that the start does not have": (
        'problem.start["weight"]',
        'problem.start["wieght"]',
        "KeyError: 'wieght' (made_new.py:69)",
    ),
    "a start of tensors": (
        "rng.standard_normal((1, 1))",
        "torch.zeros(1, 1)",
        "variant 'by-hand' starts weight as a Tensor; give a NumPy array, drawn from",
    ),
    "rows that are not split": (
        "return Splits(Rows(x.astype(np.float32), y.astype(np.float32)))",
        "return Splits((x, y))",
        "points() gives tuple to train on; give Rows(x, y)",
    ),
    "a data set of arrays": (
        "return Splits(Rows(x.astype(np.float32), y.astype(np.float32)))",
        "return x, y",
        "points() gives tuple, not Splits; give Splits(train=Rows(x, y))",
    ),
    "rows of lists": (
        "Rows(x.astype(np.float32), y.astype(np.float32))",
        "Rows(x.astype(np.float32), y.tolist())",
        "points() gives y as list; give a NumPy array",
    ),
    "no rows": ("(200, 1)", "(0, 1)", "points() gives no rows to train on"),
    "a value of another type": (
        "len(points().train), 200)",
        "len(points().train), '200')",
        "rows to train on is 200, expected '200': the types differ",
    ),
    "a learning rate that is far too large": (
        "learning_rate=0.1",
        "learning_rate=1e9",
        "by-hand every-parameter-learns: the gradient of bias is not finite at step",
    ),
    "a document that is not named": (
        'document="TODO"',
        'document=""',
        "document is empty; say what the document calls it",
    ),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("filling", WRONG)
def test_what_is_filled_in_wrongly_is_said(tmp_path, filling):
    old, new, said = WRONG[filling]
    (path,) = new_file(NAME, tmp_path, full=True)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    registry = load([str(path)], only=[NAME])
    if NAME in registry.examples:
        answers = check_example(registry.example(NAME), executions=["cpu"])
        failed = [f"{a.variant} {a.check}: {a.reason}" for a in answers if a.outcome == "failed"]
    else:
        failed = [f"plugin-in-order: {problem}" for problem in registry.problems]
    assert any(said in reason for reason in failed), failed


# --- where it cannot be made ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MadeNew", "'MadeNew' is not in kebab-case; write it 'made-new'"),
        ("", "the example's name is empty"),
        ("3d-points", "would be a module '3d_points', which Python cannot import"),
        ("lambda", "would be a module 'lambda', which Python cannot import"),
        (
            "titanic-dnn",
            "an example 'titanic-dnn' already, from in-tree refimpl.plugins.titanic_dnn",
        ),
    ],
)
def test_a_name_that_will_not_do_is_refused(tmp_path, name, said):
    with pytest.raises(ScaffoldError) as refused:
        new_file(name, tmp_path)
    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_distribution_may_have_a_name_that_a_module_could_not(tmp_path):
    new_distribution("3d-points", tmp_path)
    assert (tmp_path / "src" / "refimpl_3d_points" / "__init__.py").is_file()


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path):
    there = tmp_path / "README.md"
    there.write_text("mine")
    with pytest.raises(ScaffoldError, match="exists already; nothing was written"):
        new_distribution(NAME, tmp_path)
    assert there.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [there]


def test_if_a_later_file_cannot_be_written_the_earlier_ones_are_removed(tmp_path):
    (tmp_path / "tests").write_text("a file where a folder is needed")
    with pytest.raises(ScaffoldError, match=r"cannot write .*tests.*; nothing was written"):
        new_distribution(NAME, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tests"]


def test_the_folders_that_were_made_are_removed_too(tmp_path, monkeypatch):
    opened = Path.open

    def full(path, *args, **options):
        if path.name == "expected-failures.toml":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ScaffoldError, match=r"cannot write .*made: No space left on device"):
        new_distribution(NAME, tmp_path / "deep" / "made")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ScaffoldError, match=r"cannot write .*file"):
        new_distribution(NAME, tmp_path / "file" / "made")


def test_a_folder_that_cannot_even_be_looked_into_is_an_error(tmp_path):
    with pytest.raises(ScaffoldError, match=r"cannot write .*: File name too long"):
        new_distribution(NAME, tmp_path / ("x" * 300))


@pytest.fixture
def installed(tmp_path):
    """A new distribution as it is when installed; gives a function that calls refimpl beside it."""
    new_distribution(NAME, tmp_path)
    about = tmp_path / "src" / "refimpl_made_new-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: refimpl-made-new\nVersion: 0.1.0\n"
    )
    (about / "entry_points.txt").write_text(f"[refimpl.plugins]\n{NAME} = refimpl_made_new\n")

    def refimpl(command):
        words = [sys.executable, "-m", "refimpl", *command.split()]
        where = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
        ran = subprocess.run(
            words, cwd=tmp_path, env=where, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return refimpl


def test_baselines_and_goldens_of_a_distribution_are_written_into_it_and_used(installed, tmp_path):
    own = Path(str(files("refimpl.fixtures")))
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*") if path.is_file()}
    folder = tmp_path / "src" / "refimpl_made_new" / "baselines"
    said = installed(f"calibrate {NAME} --seeds 5 -n 1")
    assert said.strip().endswith(str(folder / "stand-in"))
    installed(f"golden {NAME} --update")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        f"golden/{NAME}.safetensors",
        f"stand-in/{NAME}.module.jsonl",
    ]
    after = {path: path.stat().st_mtime_ns for path in own.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert after == before
    installed(f"check {NAME} -n 0 --execution cpu --results results.jsonl")
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    passed = {each["check"] for each in results if each.get("outcome") == "passed"}
    assert {"stays-in-calibrated-band", "golden-trajectory"} <= passed


def test_in_the_folder_of_refimpls_own_plugins_it_is_found_without_being_named(tmp_path):
    from refimpl import plugins

    (folder,) = plugins.__path__
    assert is_in_tree(Path(folder) / "made_new.py")
    assert not is_in_tree(tmp_path / "made_new.py")


def test_the_command_says_what_it_made_and_what_to_do_next(tmp_path):
    folder = tmp_path / "made"
    arguments = ["new", NAME, "--distribution", str(folder)]
    run = CliRunner().invoke(cli, arguments, standalone_mode=False)
    lines = run.stdout.splitlines()
    assert lines[0] == f"made {folder / 'pyproject.toml'}"
    assert lines[-2:] == [
        f"then: python -m pip install --editable {folder}",
        f"then: refimpl check {NAME}",
    ]
