"""Calibrating: what is done is kept, whatever ends it, and is not done again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.calibrated import baselines_of
from fakes.sound import EXAMPLE

from refimpl import Rows, Splits, seeds
from refimpl.baselines import calibration, committed
from refimpl.baselines.committed import BaselineError
from refimpl.baselines.sweep import Engine, Task, jobs, train_seeds

SLOW = """
import os, time
from pathlib import Path
import numpy as np
from refimpl import DataSet, Example, Facts, Protocol, Rows, Splits, Step, Variant, hookimpl

HERE = Path(__file__).parent

def steps(problem):
    w = problem.start["w"]
    with (HERE / "begun").open("a") as log:
        log.write(f"{problem.seed}\\n")
    for x, y in problem.batches():
        time.sleep(SECONDS)
        if (HERE / "fail").exists() and problem.seed == 1002:
            raise RuntimeError("out of luck")
        loss = ((x * w - y) ** 2).mean()
        loss.backward()
        w.data -= 0.1 * w.grad
        yield Step(loss, {"w": w}, x * w, y, lambda x: x * w)
        w.grad = None

EXAMPLE = Example(
    name="slow", title="t", document="d", section="s",
    data=DataSet("ones", lambda: Splits(Rows(np.ones((4, 1)), np.ones((4, 1))))),
    protocol=Protocol(epochs=2, learning_rate=0.1),
    start=lambda rng: {"w": rng.standard_normal(1)},
    variants=(Variant("only", steps, bare=True),),
    facts=Facts(parameters=1),
    baselines=HERE / "baselines",
)

@hookimpl
def refimpl_examples():
    return [EXAMPLE]
"""


@pytest.fixture
def slow(tmp_path):
    """A plugin whose runs take a moment, and the command that calibrates it."""
    (tmp_path / "slow.py").write_text(SLOW.replace("SECONDS", "0.3"))
    return tmp_path


def command(folder, seeds, *more):
    arguments = ["calibrate", "slow", "--plugin", str(folder / "slow.py"), "--seeds", str(seeds)]
    return [sys.executable, "-m", "refimpl", *arguments, "-n", "2", *more]


def finish(folder, seeds, *more):
    return subprocess.run(
        command(folder, seeds, *more), capture_output=True, text=True, timeout=300, check=False
    )


def file_of(folder):
    return folder / "baselines" / "stand-in" / "slow.only.jsonl"


def begun(folder):
    log = folder / "begun"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def journalled(folder):
    journal = committed.journal_of(file_of(folder))
    whole = journal.read_text().rpartition("\n")[0] if journal.exists() else ""
    return [json.loads(line)["seed"] for line in whole.split("\n")[1:]]


def test_a_kill_loses_no_finished_seed_and_none_is_run_twice(slow):
    running = subprocess.Popen(
        command(slow, 10), start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 200
    while len(journalled(slow)) < 3 and running.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept, tried = journalled(slow), begun(slow)
    assert len(kept) >= 3
    assert not file_of(slow).exists()
    (slow / "begun").unlink()

    ran = finish(slow, 10)
    assert ran.returncode == 0, ran.stderr
    assert f"{10 - len(kept)} runs to do for 1 baselines; {len(kept)} exist already" in ran.stdout
    assert sorted(begun(slow)) == sorted(set(range(1000, 1010)) - set(kept))
    assert len(tried) - len(kept) <= 4  # two at work, and as many handed to them
    seeds = [run.seed for run in committed.read(file_of(slow)).runs]
    assert seeds == list(range(1000, 1010))
    assert not committed.journal_of(file_of(slow)).exists()


def test_a_seed_that_fails_is_named_and_costs_no_other(slow):
    (slow / "fail").touch()
    ran = finish(slow, 5)
    assert ran.returncode != 0
    assert ran.stderr.count("\n") == 1
    assert "slow · only · seed 1002: RuntimeError: out of luck" in ran.stderr
    (slow / "fail").unlink()
    (slow / "begun").unlink()
    assert finish(slow, 5).returncode == 0
    assert 1002 in begun(slow)
    assert len(begun(slow)) < 5


def test_more_seeds_are_added_to_those_that_are_there(slow):
    finish(slow, 5)
    (slow / "begun").unlink()
    assert finish(slow, 7).returncode == 0
    assert sorted(begun(slow)) == [1005, 1006]
    assert len(committed.read(file_of(slow)).runs) == 7


def test_fresh_runs_go_to_a_folder_of_their_own(slow):
    assert finish(slow, 5, "--fresh", str(slow / "fresh")).returncode == 0
    assert not file_of(slow).exists()
    there = committed.read(slow / "fresh" / "stand-in" / "slow.only.jsonl")
    assert [run.seed for run in there.runs] == list(range(100_000, 100_005))


def test_a_run_that_was_killed_after_its_last_seed_is_finished_by_the_next(example):
    variant = example.variants[0]
    path = committed.path_of(example, variant, "stand-in")
    with committed.journal(path) as journal:
        for seed in range(1000, 1005):
            (run,) = train_seeds(variant, "stand-in", [seed])
            if not journal.begun:
                journal.begin(
                    calibration.begun(calibration.plan(example, variant, "stand-in", 5), run)
                )
            journal.append(run)
    assert not path.exists()
    calibration.calibrate([(example, variant)], "stand-in", 5, Engine(1))
    assert len(committed.read(path).runs) == 5
    assert not committed.journal_of(path).exists()


def test_jobs_are_single_seeds_or_equal_parts():
    task = Task("e", "v", "stand-in")
    seeds = tuple(range(1000, 1050))
    assert [job.seeds for job in jobs(task, seeds, False, 2)] == [(seed,) for seed in seeds]
    assert [len(job.seeds) for job in jobs(task, seeds, True, 2)] == [25, 25]
    assert [len(job.seeds) for job in jobs(task, seeds, True, 1)] == [32, 18]
    assert [seed for job in jobs(task, seeds, True, 3) for seed in job.seeds] == list(seeds)


# --- a cluster -----------------------------------------------------------------------------------


@pytest.fixture
def cluster():
    """A head and one more machine of a Ray cluster, both on this one; a core each."""
    pytest.importorskip("ray", reason="needs ray, which has no wheel for this Python")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def test_a_cluster_that_loses_a_machine_loses_no_seed(slow, cluster):
    second = next(node for node in cluster.list_all_nodes() if not node.head)
    running = subprocess.Popen(
        command(slow, 12, "--engine", "ray", "--address", cluster.address),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 200
    while len(journalled(slow)) < 3 and running.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    cluster.remove_node(second, allow_graceful=False)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said
    seeds = [run.seed for run in committed.read(file_of(slow)).runs]
    assert seeds == list(range(1000, 1012))
    assert len(begun(slow)) <= 12 + 2  # what the lost machine had in hand was begun anew


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_no_cluster_at_an_address_is_one_line(slow, address):
    pytest.importorskip("ray", reason="needs ray, which has no wheel for this Python")
    ran = finish(slow, 5, "--engine", "ray", "--address", address)
    assert ran.returncode == 1
    assert f"no Ray cluster answers at {address} (" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_an_address_without_its_engine_is_said(slow):
    ran = finish(slow, 5, "--address", "127.0.0.1:1")
    assert ran.returncode != 0
    assert "add --engine ray" in ran.stderr


# --- plans ---------------------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path):
    return replace(EXAMPLE, baselines=tmp_path)


def test_a_plan_has_the_seeds_that_are_not_there(example):
    baselines_of(example)
    assert calibration.plan(example, example.variants[0], "stand-in", 8).seeds == (1006, 1007)
    assert calibration.plan(example, example.variants[0], "stand-in", 6).seeds == ()


def test_a_baseline_takes_no_seeds_that_checks_run(example):
    most = seeds.SEEDS_OF_A_BASELINE
    with pytest.raises(BaselineError, match=f"has at most {most} seeds, but 1500 were requested"):
        calibration.plan(example, example.variants[0], "stand-in", 1500)


def test_runs_of_another_protocol_are_not_added_to(example):
    baselines_of(example)
    variant = example.variants[0]
    other = replace(variant, protocol=replace(variant.protocol, learning_rate=0.5))
    with pytest.raises(BaselineError, match=r"learning_rate is 0\.1 and not 0\.5.*--because"):
        calibration.plan(example, other, "stand-in", 8)


def test_a_baseline_of_another_protocol_is_made_anew_for_a_reason_which_it_keeps(
    example, monkeypatch
):
    baselines_of(example)
    variant = replace(
        example.variants[0], protocol=replace(example.variants[0].protocol, learning_rate=0.2)
    )
    chosen, engine = [(example, variant)], Engine(1)
    monkeypatch.setattr(  # workers would look for a plugin
        calibration,
        "run_jobs",
        lambda work, engine: (
            (job.task, train_seeds(variant, "stand-in", job.seeds)) for job in work
        ),
    )
    with pytest.raises(BaselineError, match="--because REASON"):
        calibration.calibrate(chosen, "stand-in", 6, engine)
    journal = committed.journal_of(committed.path_of(example, variant, "stand-in"))
    journal.write_text("runs of yet another program")
    calibration.calibrate(chosen, "stand-in", 6, engine, because="the document says 0.2")
    (change,) = committed.read_for(example, variant, "stand-in").changes
    assert change.because == "the document says 0.2"
    assert change.moved[0] == "learning_rate is 0.1 and not 0.2"
    assert re.match(r"loss: median \S+ of 6 runs, before \S+ of 6$", change.moved[1])
    again = calibration.plan(example, variant, "stand-in", 8, because="nothing to say")
    assert again.seeds == (1006, 1007)
    assert again.changes == ()


def test_a_damaged_baseline_is_made_anew_only_for_a_reason(example):
    baselines_of(example)
    path = committed.path_of(example, example.variants[0], "stand-in")
    path.write_text("nothing\n")
    with pytest.raises(BaselineError, match=r"restore it from version control.*--because REASON"):
        calibration.plan(example, example.variants[0], "stand-in", 6)
    plan = calibration.plan(example, example.variants[0], "stand-in", 6, because="disk failed")
    assert len(plan.seeds) == 6
    assert "nothing" not in plan.changes[0].because
    assert "is truncated" in plan.changes[0].moved[0]


def test_seeds_are_counted_as_they_are_on_the_disk_whenever_it_ends(example, monkeypatch):
    class Ended(calibration.Watcher):
        def begins(self, plans):
            (self.plan,) = plans

        def ran(self, plan, run):
            raise KeyboardInterrupt  # written, but not yet counted by whoever watches

    baselines_of(example)
    variant, watch = example.variants[0], Ended()
    monkeypatch.setattr(
        calibration,
        "run_jobs",
        lambda work, engine: (
            (job.task, train_seeds(variant, "stand-in", job.seeds[:1])) for job in work
        ),
    )
    with pytest.raises(KeyboardInterrupt):
        calibration.calibrate([(example, variant)], "stand-in", 8, Engine(1), watch=watch)
    assert watch.plan.finished_seeds() == 7


def test_seeds_of_a_baseline_that_is_made_anew_do_not_count_as_kept(example):
    baselines_of(example)
    path = committed.path_of(example, example.variants[0], "stand-in")
    assert calibration.plan(example, example.variants[0], "stand-in", 6).finished_seeds() == 6
    path.write_text("nothing\n")
    anew = calibration.plan(example, example.variants[0], "stand-in", 6, because="disk failed")
    assert anew.finished_seeds() == 0


def test_no_message_suggests_to_delete_what_is_kept():
    sources = Path(calibration.__file__).parents[1]
    assert [
        path.name for path in sources.rglob("*.py") if "delete it" in path.read_text("utf-8")
    ] == []


def test_runs_of_another_torch_are_not_added_to(example, monkeypatch):
    baselines_of(example)
    monkeypatch.setattr(calibration, "environment", lambda: {"packages": {"torch": "99.0"}})
    with pytest.raises(BaselineError, match=r"torch is .* and not 99\.0"):
        calibration.plan(example, example.variants[0], "stand-in", 8)


def test_runs_of_other_data_of_the_same_shape_are_not_added_to(example):
    baselines_of(example)
    variant = example.variants[0]

    def shifted():
        splits = variant.data.load("stand-in")
        return Splits(Rows(splits.train.x, splits.train.y + 1), splits.valid)

    other = replace(variant, data=replace(variant.data, stand_in=shifted))
    with pytest.raises(BaselineError, match=r"data digest is .* and not .*--because REASON"):
        calibration.plan(example, other, "stand-in", 8)
    assert calibration.plan(example, other, "stand-in", 6).seeds == ()
