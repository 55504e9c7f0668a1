"""refimpl beside other trainers: the same training, or neither its time nor its lines compare."""

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from click import ClickException
from click.testing import CliRunner
from fakes.sound import EXAMPLE

from refimpl.training.problem import pose

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
VARIANT = EXAMPLE.variant("module")
OTHERS = ("lightning", "transformers", "accelerate")


@pytest.fixture
def benchmark(monkeypatch):
    pytest.importorskip("torchvision", reason="documents read images with it")
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: import_module(f"benchmarks.{name}")


@pytest.fixture
def trainers(benchmark):
    for name in OTHERS:
        pytest.importorskip(name, reason=f"{name} is a trainer of the benchmark")
    return benchmark("trainers")


# --- with the other trainers ---------------------------------------------------------------------


@pytest.mark.parametrize("average", ["batches", "samples"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_all_trainers_end_alike(trainers, average, shuffle):
    own = replace(VARIANT.protocol, epochs=3, batch_size=7, shuffle=shuffle, average=average)
    problem = pose(VARIANT).but(protocol=own)
    with trainers.undisturbed():
        ends = {k: t.run(problem) for k, t in trainers.trainers_of("-", VARIANT).items()}
    assert len(ends) == 3
    assert {"loss", "val_loss"} <= ends["refimpl"].figures.keys()
    assert trainers.require_alike("-", VARIANT, ends, 1e-6) <= 1e-6


def test_the_trainers_are_timed_and_the_page_says_how_many_lines_each_takes(trainers, tmp_path):
    page = tmp_path / "page.md"
    asked = ["ring-dnn/high", "--repeats", "1", "--no-processes", "--table", str(page)]
    done = CliRunner().invoke(trainers.main, asked)
    assert done.exit_code == 0, done.output
    row = next(line for line in page.read_text().splitlines() if "ring-dnn/high" in line)
    lines = [int(cell) for cell in row.split("|")[-4:-1]]
    assert all(10 < count < 100 for count in lines)
    assert "apart" in done.output


# --- without them --------------------------------------------------------------------------------


def test_a_trainer_that_is_lacking_is_named_with_what_to_run(benchmark, monkeypatch):
    trainers = benchmark("trainers")
    monkeypatch.setattr(trainers, "find_spec", lambda name: None if name == "lightning" else name)
    done = CliRunner().invoke(trainers.main, [])
    assert done.exit_code == 1
    assert done.output == (
        "Error: lightning not installed; run: python -m pip install -e '.[trainers]'\n"
    )


def test_the_extra_has_all_that_is_needed(benchmark):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extra = project["optional-dependencies"]["trainers"]
    assert [line.partition(">")[0] for line in extra] == list(benchmark("trainers").NEEDED)


@pytest.mark.parametrize(
    ("weights", "figures", "said"),
    [
        (2.0, {"loss": 1.0}, "parameters|apart"),
        (1.0, {"loss": 1.1}, "ends with loss = 1.1 where refimpl has 1.0"),
        (1.0, {"loss": float("nan")}, "ends with loss = nan"),
        (1.0, {}, "refimpl has others"),
    ],
)
def test_a_trainer_that_ends_elsewhere_is_not_timed(benchmark, weights, figures, said):
    trainers, loops = benchmark("trainers"), benchmark("loops")

    def end(factor, own):
        values = VARIANT.build().named_parameters()
        parameters = {name: torch.full_like(value, factor) for name, value in values}
        return loops.End(parameters, own, None)

    same = end(1.0, {"loss": 1.0})
    assert trainers.require_alike("-", VARIANT, {"refimpl": same, "other": same}, 0.0) == 0
    ends = {"refimpl": same, "other": end(weights, figures)}
    with pytest.raises(ClickException, match=said):
        trainers.require_alike("-", VARIANT, ends, 1e-9)


def test_a_row_has_the_seconds_how_often_they_fit_and_the_lines(benchmark):
    seconds, lines = {"refimpl": 2.0, "a": 3.0, "b": 1.0}, {"refimpl": 10, "a": 20, "b": 30}
    row = benchmark("trainers").Compared("name", seconds, lines, 0.0).row
    assert row == ("name", "2.000", "3.000", "1.000", "1.50", "0.50", "10", "20", "30")


def test_an_alarm_of_torch_that_slows_updates_is_off_while_trainers_run(benchmark, monkeypatch):
    trainers = benchmark("trainers")
    monkeypatch.setenv(trainers.SLOW, "1")
    with trainers.undisturbed():
        assert trainers.SLOW not in trainers.os.environ
    assert trainers.os.environ[trainers.SLOW] == "1"


def test_examples_are_checked_together_and_in_a_process_each(benchmark, monkeypatch):
    processes = benchmark("processes")
    asked = []

    def ten_seconds(*names):
        asked.append(names)
        return 10.0

    monkeypatch.setattr(processes, "check", ten_seconds)
    found = processes.seconds_of(("a", "b", "c"))
    assert asked == [("a", "b", "c"), ("a",), ("b",), ("c",)]
    assert "3 examples takes 10 s in one command and 30 s with" in str(found)
    assert "3.00 times" in str(found)


# --- lines ---------------------------------------------------------------------------------------

PROGRAM = '''\
"""A module."""
import os

EPOCHS, ROWS = 1, 2
PROTOCOL = Protocol(
    epochs=3,
)


class Net:
    """Not counted."""

    size = 3

    def step(self):
        """Nor this."""
        # nor this

        def inner():
            return (
                1
            )

        return inner()

    def other(self):
        return 2


def made(name, **changes):
    """Makes one."""
    return Variant(
        name,
        names={},
        build=Net,
        **changes,
    )


EXAMPLE = Example(
    title="...",
    loss=mse,
    protocol=None,
    variants=(
        Variant(
            "first",
            optimizer=SGD,
            facts=Facts(
                1,
            ),
            protocol=PROTOCOL,
        ),
        made("second", optimizer=SGD),
    ),
)
'''


def shown(lines):
    text = PROGRAM.splitlines()
    return [text[number - 1].strip() for number in sorted(lines)]


def test_a_function_that_ran_counts_whole_with_its_class_and_without_its_docstring(benchmark):
    source = benchmark("lines").Source(PROGRAM)
    first = PROGRAM.splitlines().index("    def step(self):") + 1
    whole = [
        "class Net:", "def step(self):", "def inner():", "return (", "1", ")", "return inner()",
    ]  # fmt: skip
    assert shown(source.ran([first])) == whole
    assert shown(source.ran([first + 4])) == whole  # a function within it
    assert source.ran([2]) == frozenset()


def test_what_a_plugin_declares_of_a_training_counts_and_nothing_else(benchmark):
    source = benchmark("lines").Source(PROGRAM)
    assert shown(source.declared("first")) == [
        "PROTOCOL = Protocol(", "epochs=3,", ")",
        "loss=mse,", "Variant(", '"first",', "optimizer=SGD,", "protocol=PROTOCOL,", "),",
    ]  # fmt: skip
    assert shown(source.declared("second")) == [
        "def made(name, **changes):", "return Variant(", "name,", "build=Net,", "**changes,", ")",
        "loss=mse,", "protocol=None,", 'made("second", optimizer=SGD),',
    ]  # fmt: skip


def test_functions_that_ran_are_seen_and_their_lines_counted(benchmark, tmp_path, monkeypatch):
    lines, file = benchmark("lines"), tmp_path / "program_that_runs.py"
    file.write_text("def one():\n    # no line\n    return 1\n\n\ndef two():\n    return 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    program, before = import_module("program_that_runs"), sys.getprofile()
    given, ran = lines.watched(program.one)
    assert given == 1
    assert sys.getprofile() is before
    assert lines.written(ran, [file]) == 2
    assert lines.written(ran, []) == 0
