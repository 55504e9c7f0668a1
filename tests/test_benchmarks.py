"""What is timed side by side is the same training, or its ratio would mean nothing."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from fakes.graphs import StandIn
from fakes.sound import EXAMPLE

from refimpl.checking.checks import SEEDS_TRIED, Result, at_most, within_budget
from refimpl.checking.results import Results
from refimpl.loading import registry
from refimpl.training import replaying
from refimpl.training.ladder import to_ladder
from refimpl.training.loop import train
from refimpl.training.problem import TensorRows, pose

VARIANT = EXAMPLE.variant("module")


@pytest.fixture
def loops(monkeypatch):
    pytest.importorskip("torchvision", reason="documents read images with it")
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    return import_module("benchmarks.loops")


@pytest.mark.parametrize("report", ["epoch", "last-batch"])
@pytest.mark.parametrize(("workers", "shuffle"), [(None, True), (0, True), (1, True), (0, False)])
def test_the_documents_loop_and_the_bare_one_end_where_refimpl_ends(
    loops, workers, shuffle, report
):
    own = replace(VARIANT.protocol, report=report, shuffle=shuffle)
    problem = pose(VARIANT, dropout=False).but(protocol=own)
    history = train(VARIANT, problem)
    expected = to_ladder(VARIANT, history.last.parameters)
    with loops.documented_samples(problem) as samples:
        documented = loops.as_documented(VARIANT, problem, samples, workers)
    for end in (documented, loops.bare(VARIANT, problem)):
        found = to_ladder(VARIANT, end.parameters)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value.detach())
        own = {name: history.final[name] for name in end.figures}
        assert end.figures == pytest.approx(own, rel=1e-5)
        assert {"loss", "val_loss"} <= own.keys()


def test_a_loss_that_depends_on_the_net_is_the_same_in_all_three_loops(loops):
    variant = registry.load(only=["ring-focal"]).example("ring-focal").variant()
    problem, own = pose(variant, precision="float64"), loops.OWN["ring-focal/focal"]
    problem = problem.but(protocol=replace(problem.protocol, epochs=2))
    history = train(variant, problem)
    with loops.documented_samples(problem) as samples:
        documented = loops.as_documented(variant, problem, samples, 0, own)
    for end in (documented, loops.bare(variant, problem, own)):
        assert end.figures == pytest.approx(history.final, rel=1e-6)
        for name, value in history.last.parameters.items():
            torch.testing.assert_close(end.parameters[name], value.detach())


def test_the_batches_of_the_documents_loader_are_those_of_the_problem(loops):
    problem = pose(VARIANT)
    batches = loops.InOrder(problem)
    for batches.epoch in range(2):
        rows = [row for batch in batches for row in batch]
        assert rows == problem.order(batches.epoch)
    assert len(batches) == problem.steps_per_epoch


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("benchmarks.__main__", ["linear-regression-2d/high", "--repeats", "1"], "a/b"),
        ("benchmarks.seeds", ["ring-dnn/high", "--seeds", "4", "--repeats", "1"], "together/one"),
        ("benchmarks.suite", ["cifar10-two-layer", "--part", "0.5"], "the suite / the loops"),
    ],
)
def test_a_benchmark_prints_its_ratios_and_writes_its_page(
    loops, tmp_path, module, arguments, said
):
    page = tmp_path / "page.md"
    done = CliRunner().invoke(import_module(module).main, [*arguments, "--table", str(page)])
    assert done.exit_code == 0, done.output
    assert said in done.output
    assert f"| {arguments[0]}" in page.read_text()


def test_whole_runs_in_other_settings_are_counted_and_kept(loops, tmp_path, monkeypatch):
    alarms = import_module("benchmarks.alarms")
    page, folder = tmp_path / "page.md", tmp_path / "runs"
    settings = ["--setting", "seeds + 100", "--setting", "without oneDNN"]
    asked = [str(folder), "autograd", *settings]
    done = CliRunner().invoke(alarms.main, [*asked, "--table", str(page)])
    assert done.exit_code == 0, done.output
    assert "2 of 2 runs without a failure" in page.read_text()

    monkeypatch.setattr(alarms, "subprocess", None)  # whole files are not made again
    again = CliRunner().invoke(alarms.main, asked)
    assert again.output == done.output
    footer = '"exit_status": 0'
    path = folder / "without-oneDNN.jsonl"
    path.write_text(path.read_text().replace(footer, footer.replace("0", "1")))
    failed = CliRunner().invoke(alarms.main, asked)
    assert failed.exit_code == 1
    assert "1 of 2 runs without a failure" in failed.output


def test_a_whole_run_counts_the_checks_that_held_only_from_another_draw(loops, tmp_path):
    alarms = import_module("benchmarks.alarms")
    asked = (within_budget("error", 0.5),), (at_most(SEEDS_TRIED, 2, 3),), ()
    checks = tuple(
        Result("example", "-", f"check-{number}", "cpu", "stand-in", outcome, measurements=measured)
        for number, (outcome, measured) in enumerate(
            zip(("passed", "passed", "skipped"), asked, strict=True)
        )
    )
    run = Results(tmp_path, {}, checks, {"seconds": 7})
    assert alarms.row("seeds + 100", run) == ("seeds + 100", "2", "1", "0", "1", "2", "0.50", "7")


def test_a_graph_of_the_whole_step_is_timed_beside_the_other_loops(loops, tmp_path, monkeypatch):
    """On the CPU, by a stand-in, which says nothing about seconds."""
    for module in (loops, replaying):
        monkeypatch.setattr(module, "graphs_on", lambda device: StandIn())
    page, rows = tmp_path / "page.md", ("| linear", "| mnist")
    names = ["linear-regression-1d/module", "mnist-logistic/fit"]
    asked = [*names, "--device", "cpu", "--repeats", "1", "--table", str(page)]
    done = CliRunner().invoke(import_module("benchmarks.graphs").main, asked)
    assert done.exit_code == 0, done.output
    module, script = (line for line in page.read_text().splitlines() if line.startswith(rows))
    assert module.endswith("|  |")
    assert script.endswith("| its plugin runs its own loop |")


@pytest.mark.parametrize(("part", "epochs"), [(1, 20), (0.25, 5), (0.0, 2)])
def test_a_part_of_the_epochs_is_timed_and_the_whole_reckoned(loops, monkeypatch, part, epochs):
    suite = import_module("benchmarks.suite")
    seen = []

    def one_second_an_epoch(variant, problem, samples, workers, own):
        seen.append(len(list(problem.epochs())))

    monkeypatch.setattr(suite, "as_documented", one_second_an_epoch)
    clock = iter([0.0, float(epochs)])
    monkeypatch.setattr(suite, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    long = replace(VARIANT, protocol=replace(VARIANT.protocol, epochs=20, stand_in_epochs=None))
    assert suite.seconds_of_loop(EXAMPLE, long, "stand-in", part) == 20
    assert seen == [epochs]


def test_every_loop_that_is_said_to_have_no_loader_is_one_of_an_example(loops):
    examples = registry.load(only=loops.OUT_OF_TENSORS).examples
    for name, variants in loops.OUT_OF_TENSORS.items():
        assert variants <= {variant.name for variant in examples[name].value.variants}
    assert loops.workers_of("linear-regression-2d", "large") is None
    assert loops.workers_of("linear-regression-2d", "high") == 0
    assert loops.workers_of("mnist-cnn", "script") == 2


def test_images_are_read_as_torchvision_reads_them_and_are_the_same(loops, tmp_path):
    pixels = torch.randint(256, (5, 3, 4, 4)).float() / 255
    for images in (pixels, pixels[:, :1]):
        samples = loops.Pictures(TensorRows(images, torch.arange(5)), tmp_path)
        assert len(samples) == 5
        for number, image in enumerate(images):
            read, target = samples[number]
            assert torch.equal(read, image)
            assert target == number
    assert len(list(tmp_path.iterdir())) == 5
