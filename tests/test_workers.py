"""Parallel runs: who gets which GPU and how many threads, what comes first, what a crash costs."""

import itertools
import json
import subprocess
import sys
from itertools import pairwise
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refimpl.checking.checks import Cell, Check, Subject
from refimpl.contract import Example, Execution, Facts, Layer, Protocol, Variant
from refimpl.runner import pytest_workers, workers
from refimpl.runner.scheduling import CrashSafeScheduling, estimate, longest_first
from refimpl.runner.workers import (
    Gpu,
    Pinning,
    count_on_gpus,
    find_gpus,
    named_gpus,
    places,
    threads_each,
)

GIB = 1024

TWO_GPUS = """\
0, GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77, 40000, Default, [N/A]
1, GPU-8932f937-d72c-4106-c12f-20bd9faed9f6, 15000, Default, [N/A]
"""
SLICED = """\
0, GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77, 80000, Default, Enabled
1, GPU-8932f937-d72c-4106-c12f-20bd9faed9f6, 80000, Default, Disabled
"""
SLICES = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.40gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 1g.10gb     Device  1: (UUID: MIG-28c7384e-1111-5afc-978f-d2f1294409fd)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-8932f937-d72c-4106-c12f-20bd9faed9f6)
"""


def machine(table="", listing="", torch=None):
    """What programs print on a machine; an empty table is a machine without nvidia-smi."""

    def run(command):
        if command[0] != "nvidia-smi":
            return f"a warning\n{json.dumps(torch or [])}\n"
        if not table:
            raise FileNotFoundError("nvidia-smi")
        return listing if "-L" in command else table

    return run


def found(value=None, **options):
    environment = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    return find_gpus(environment, machine(**options))


# --- which GPUs there are ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, None),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", ["0"]),
        (" 2, 0 ", ["2", "0"]),
        ("0,-1,1", ["0"]),
        ("1,,0", ["1"]),
        ("GPU-5d5b,MIG-c738", ["GPU-5d5b", "MIG-c738"]),
        ("0,0", ["0"]),
    ],
)
def test_the_callers_variable_is_read_as_cuda_reads_it(value, names):
    assert named_gpus(value) == names


def test_without_the_variable_all_gpus_are_seen_with_their_free_memory():
    assert [(g.id, g.memory) for g in found(table=TWO_GPUS)] == [("0", 40000), ("1", 15000)]


@pytest.mark.parametrize("value", ["1,0", "GPU-8932f937,GPU-5d5ba0d6", "GPU-8932f937,0"])
def test_gpus_keep_the_callers_names_and_order(value):
    gpus = found(value, table=TWO_GPUS)
    assert [gpu.id for gpu in gpus] == value.split(",")
    assert [gpu.memory for gpu in gpus] == [15000, 40000]


def test_a_gpu_that_the_caller_left_out_is_never_used():
    assert [gpu.id for gpu in found("1", table=TWO_GPUS)] == ["1"]
    assert found("", table=TWO_GPUS) == []


def test_an_id_that_is_none_hides_what_comes_after_it():
    assert [gpu.id for gpu in found("0,7,1", table=TWO_GPUS)] == ["0"]


def test_a_divided_gpu_is_seen_as_its_slices():
    gpus = found(table=SLICED, listing=SLICES)
    assert [(gpu.id[:12], gpu.memory) for gpu in gpus] == [
        ("MIG-c7384736", 40 * GIB),
        ("MIG-28c7384e", 10 * GIB),
        ("1", 80000),
    ]


def test_slices_can_be_named_by_the_caller_in_both_ways():
    named = found("MIG-28c7384e,MIG-GPU-5d5ba0d6/1/0", table=SLICED, listing=SLICES)
    assert [(g.id, g.memory) for g in named] == [
        ("MIG-28c7384e", 10 * GIB),
        ("MIG-GPU-5d5ba0d6/1/0", None),
    ]


def test_without_nvidia_smi_a_torch_of_its_own_process_is_asked():
    assert [(g.id, g.memory) for g in found(torch=[9000, 8000])] == [("0", 9000), ("1", 8000)]
    assert [g.id for g in found("GPU-a,GPU-b", torch=[9000, 8000])] == ["GPU-a", "GPU-b"]


def test_a_machine_without_gpus_has_none():
    assert found() == []


def test_looking_for_gpus_imports_no_torch():
    program = "import sys; from refimpl.runner import pytest_plugin, workers; workers.find_gpus(); "
    program += "print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, env={"PATH": "", "CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    assert done.stdout.strip() == "False", done.stderr


# --- how many workers, and where -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "capacity"), [(139 * GIB, 34), (12 * GIB, 3), (6 * GIB, 1), (1 * GIB, 1), (None, 1)]
)
def test_memory_says_how_many_workers_share_a_gpu(memory, capacity):
    assert Gpu("0", memory=memory).capacity == capacity


def test_a_gpu_for_one_process_gets_one_worker():
    mode = TWO_GPUS.replace("Default", "Exclusive_Process")
    assert [gpu.capacity for gpu in found(table=mode)] == [1, 1]


def test_the_first_workers_go_to_different_gpus():
    gpus = [Gpu("0", memory=40 * GIB), Gpu("GPU-b", memory=9 * GIB)]
    assert places(gpus) == ["0", "GPU-b"] * 2 + ["0"] * 8


def test_auto_counts_gpus_memory_and_cores():
    gpus = [Gpu("0", memory=40 * GIB), Gpu("1", memory=9 * GIB)]
    assert count_on_gpus(gpus, cores=64) == 12
    assert count_on_gpus(gpus, cores=4) == 4
    assert count_on_gpus([Gpu("0", memory=1 * GIB)] * 8, cores=64) == 8
    assert count_on_gpus([], cores=64) == 1


def test_a_worker_can_be_given_several_gpus():
    gpus = [Gpu(str(n), memory=5 * GIB) for n in range(5)]
    assert places(gpus, each=2) == ["0,1", "2,3"]
    assert places(gpus, each=8) == []


def test_a_worker_that_takes_over_gets_the_place_of_the_dead_one():
    pinning = Pinning(["0", "1", "2"])
    assert [pinning.take(f"gw{n}") for n in range(3)] == ["0", "1", "2"]
    pinning.release("gw1")
    assert pinning.take("gw3") == "1"


def test_more_workers_than_places_are_spread_as_memory_bears():
    pinning = Pinning(["0", "1", "0", "0"])
    taken = [pinning.take(f"gw{n}") for n in range(8)]
    assert taken.count("0") == 6
    assert taken.count("1") == 2


def test_releasing_a_worker_that_has_no_place_is_no_error():
    Pinning(["0"]).release("gw7")


@pytest.mark.parametrize(
    ("cores", "count", "threads"), [(2, 2, 1), (16, 3, 5), (4, 8, 1), (8, 1, 8), (8, 0, 8)]
)
def test_threads_fill_the_cores_and_no_more(cores, count, threads):
    assert threads_each(cores, count) == threads
    assert threads * count <= cores or threads == 1


def test_a_worker_asks_for_large_pages_unless_the_caller_has_said_otherwise():
    environment = {}
    workers.use_large_pages(environment)
    assert environment == {workers.LARGE_PAGES: "1"}
    environment = {workers.LARGE_PAGES: "0"}
    workers.use_large_pages(environment)
    assert environment == {workers.LARGE_PAGES: "0"}


# --- pytest's -n auto ----------------------------------------------------------------------------


def auto(monkeypatch, device="cpu", xdist=8, cores=8, gpus=(), each=1, variable=None):
    """What ``-n auto`` comes to, where xdist itself would start so many."""
    monkeypatch.setattr(workers, "cores", lambda: cores)
    monkeypatch.setattr(workers, "find_gpus", lambda: list(gpus))
    if variable:
        monkeypatch.setenv(pytest_workers.AUTO_VARIABLE, variable)
    else:
        monkeypatch.delenv(pytest_workers.AUTO_VARIABLE, raising=False)
    option = SimpleNamespace(device=device, gpus_per_worker=each)
    asked = pytest_workers.pytest_xdist_auto_num_workers(SimpleNamespace(option=option))
    next(asked)
    with pytest.raises(StopIteration) as answer:
        asked.send(xdist)
    return answer.value.value


def test_on_the_cpu_auto_is_xdists_own_count(monkeypatch):
    assert auto(monkeypatch, xdist=4) == 4


def test_a_containers_quota_limits_auto(monkeypatch):
    assert auto(monkeypatch, xdist=64, cores=2) == 2


def test_on_cuda_auto_is_what_the_gpus_bear(monkeypatch):
    gpus = [Gpu("0", memory=9 * GIB), Gpu("1", memory=9 * GIB)]
    assert auto(monkeypatch, "cuda", xdist=64, cores=64, gpus=gpus) == 4
    assert auto(monkeypatch, "cuda", xdist=64, cores=64, gpus=gpus, each=2) == 2
    assert auto(monkeypatch, "cuda", xdist=3, cores=3, gpus=gpus) == 3


def test_on_one_large_gpu_auto_fills_the_cores(monkeypatch):
    """Four workers on an H200 once left 16 cores half idle."""
    (h200,) = found(table="0, GPU-5d5b, 142000, Default, Disabled")
    assert auto(monkeypatch, "cuda", xdist=8, cores=16, gpus=[h200]) == 16
    assert auto(monkeypatch, "cuda", xdist=48, cores=96, gpus=[h200]) == 142000 // 4096
    assert threads_each(16, 16) == 1


def test_one_named_device_gets_one_worker(monkeypatch):
    assert auto(monkeypatch, "cuda:1", gpus=[Gpu("0"), Gpu("1")]) == 1
    assert auto(monkeypatch, "mps") == 1


def test_xdists_own_variable_has_the_last_word(monkeypatch):
    assert auto(monkeypatch, "cuda", xdist=5, variable="5") == 5


def test_more_gpus_for_a_worker_than_there_are_is_a_usage_error(monkeypatch):
    with pytest.raises(pytest.UsageError, match="--gpus-per-worker 2 is not possible: only 1 GPUs"):
        auto(monkeypatch, "cuda", gpus=[Gpu("0")], each=2)


# --- what comes first ----------------------------------------------------------------------------


def a_cell(example, variant="only", check="c", epochs=1, parameters=1, layers=()):
    protocol = Protocol(epochs=epochs, learning_rate=0.1)
    own = Variant(variant, protocol=protocol, facts=Facts(parameters=parameters, layers=layers))
    subject = Subject(
        Example(example, "t", "d", "s", (own,)), own, Execution("cpu", "cpu"), "stand-in"
    )
    return Cell(Check(check, "?", "variant", lambda s: iter(()), lambda s: True), subject)


class Item:
    """As much of a pytest item as the order needs."""

    def __init__(self, nodeid, cell=None):
        self.nodeid, self.cell = nodeid, cell
        self.callspec = SimpleNamespace(params={"cell": cell} if cell else {})

    def get_closest_marker(self, name):
        if self.cell is None or name != "xdist_group":
            return None
        subject = self.cell.subject
        return SimpleNamespace(args=(f"{subject.example.name}/{subject.variant.name}",))


def ordered(items, seconds=None):
    return [item.nodeid for item in longest_first(items, seconds or {})]


def test_the_longest_group_comes_first_and_stays_together():
    short, long = a_cell("short", epochs=2), a_cell("long", epochs=50)
    items = [
        Item("s1", short),
        Item("l1", long),
        Item("s2", short),
        Item("l2", long),
        Item("plain"),
    ]
    assert ordered(items) == ["l1", "l2", "s1", "s2", "plain"]


def test_durations_of_an_earlier_run_count_more_than_the_guess():
    short, long = a_cell("short", epochs=2), a_cell("long", epochs=50)
    items = [Item("l", long), Item("s", short)]
    assert ordered(items, {short.id: 9.0, long.id: 2.0}) == ["s", "l"]


def test_a_group_weighs_what_its_checks_weigh_together():
    first, second, alone = (
        a_cell("many", check="a"),
        a_cell("many", check="b"),
        a_cell("one", check="a"),
    )
    items = [Item("one", alone), Item("a", first), Item("b", second)]
    assert ordered(items, {first.id: 3.0, second.id: 3.0, alone.id: 5.0}) == ["a", "b", "one"]


def test_every_worker_comes_to_the_same_order():
    items = [Item(str(n), a_cell(f"e{n % 7}", epochs=n % 3)) for n in range(60)]
    assert ordered(items) == ordered(items)
    assert sorted(ordered(items)) == sorted(item.nodeid for item in items)


def test_more_epochs_and_larger_models_are_reckoned_to_take_longer():
    protocols = [(1, 1), (9, 1), (9, 99), (99, 99)]
    costs = [estimate(a_cell("e", epochs=e, parameters=p)) for e, p in protocols]
    assert all(a < b for a, b in pairwise(costs))


def test_a_convolution_is_reckoned_to_take_as_often_as_it_is_applied():
    convolution = Layer("conv", "Conv2d", (-1, 8, 30, 30), 80)
    dense = Layer("fc", "Linear", (-1, 8), 800)
    small, large = (a_cell("e", layers=(layer,)) for layer in (dense, convolution))
    assert estimate(large) - estimate(small) == 80 * 900 - 800


# --- what a crash costs --------------------------------------------------------------------------


class Node:
    """As much of an xdist worker as the scheduler needs."""

    shutting_down = False

    def __init__(self, name):
        self.gateway, self.sent = SimpleNamespace(id=name), []

    def send_runtest_some(self, indices):
        self.sent += indices

    def shutdown(self):
        self.shutting_down = True


def scheduler(count):
    """The scheduler of a run with so many workers."""
    option = SimpleNamespace(tx=["popen"] * count, loadscopereorder=False, maxprocesses=None)
    config = SimpleNamespace(
        option=option, getvalue=lambda name: getattr(option, name), hook=None,
        getoption=lambda name, *default: getattr(option, name, None),
    )  # fmt: skip
    return CrashSafeScheduling(config)


@pytest.fixture
def scheduling():
    """Two workers and three groups of tests, shared out."""
    tests = [f"t[{n}]@{group}" for group in "abc" for n in range(4)]
    made = scheduler(2)
    nodes = [Node("gw0"), Node("gw1")]
    for node in nodes:
        made.add_node(node)
        made.add_node_collection(node, tests)
    made.schedule()
    return made, nodes, tests


def test_a_test_that_killed_its_worker_is_named_and_not_given_out_again(scheduling):
    made, (dead, other), tests = scheduling
    made.mark_test_complete(dead, 0)
    assert made.remove_node(dead) == tests[1]
    queued = [test for unit in made.workqueue.values() for test, done in unit.items() if not done]
    assigned = [tests[index] for index in other.sent]
    assert tests[1] not in queued + assigned
    assert {tests[2], tests[3]} <= set(queued + assigned)
    assert tests[0] not in assigned[4:]


def test_what_a_dead_worker_still_had_comes_next(scheduling):
    made, (dead, _), _ = scheduling
    made.remove_node(dead)
    assert next(iter(made.workqueue)) == "a"


def test_a_worker_that_is_still_collecting_gets_nothing_yet(scheduling):
    made, (dead, _), tests = scheduling
    late, later = Node("gw2"), Node("gw3")
    for node in (late, later):
        made.add_node(node)
    made.remove_node(dead)
    made.add_node_collection(late, tests)
    made.schedule()
    assert late.sent
    assert later.sent == []
    assert not later.shutting_down


def test_a_worker_that_had_nothing_left_costs_nothing(scheduling):
    made, (done, _), tests = scheduling
    for index in range(4):
        made.mark_test_complete(done, index)
    for index in done.sent[4:]:
        made.mark_test_complete(done, index)
    assert made.remove_node(done) is None
    assert tests


class Worker(Node):
    """A worker that xdist's protocol is played with: it starts a test once it knows of the next."""

    def __init__(self, number):
        super().__init__(f"gw{number}")
        self.ready, self.done = False, 0

    @property
    def waits(self):
        """Whether it can begin nothing until it hears from the controlling process."""
        return len(self.sent) - self.done < (1 if self.shutting_down else 2)

    @property
    def has_finished(self):
        return self.shutting_down and self.done == len(self.sent)


def played(groups, deadly, count, pick):
    """A whole run under the scheduler, as xdist drives it; how often each test was begun.

    ``pick`` chooses which of several workers does something next. The workers of ``deadly`` tests
    die of them and are replaced.
    """
    tests = [f"t[{n}]@{name}" for name, size in enumerate(groups) for n in range(size)]
    made = scheduler(count)
    deadly = {tests[n % len(tests)] for n in deadly}
    numbers = itertools.count()
    alive = [Worker(next(numbers)) for _ in range(count)]
    begun = dict.fromkeys(tests, 0)
    ending = False
    for worker in alive:
        made.add_node(worker)
    while alive:
        able = [w for w in alive if not w.ready or w.has_finished or not w.waits]
        assert able, f"every worker waits for ever; left: {dict(made.workqueue)}"
        worker = pick(able)
        if not worker.ready:
            worker.ready = True
            if not ending:
                made.add_node_collection(worker, tests)
                if made.collection_is_completed:
                    made.schedule()
        elif worker.has_finished:
            if worker in made.nodes:
                assert made.remove_node(worker) is None
            alive.remove(worker)
        else:
            index = worker.sent[worker.done]
            worker.done += 1
            begun[tests[index]] += 1
            if tests[index] in deadly:
                assert made.remove_node(worker) == tests[index]
                alive.remove(worker)
                ending = False
                alive.append(Worker(next(numbers)))
                made.add_node(alive[-1])
            else:
                made.mark_test_complete(worker, index)
        if made.tests_finished and not ending:
            ending = True
            for node in made.nodes:
                node.shutdown()
    return begun


@given(
    groups=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    deadly=st.sets(st.integers(0, 31), max_size=6),
    count=st.integers(1, 4),
    random=st.randoms(use_true_random=False),
)
@example(groups=[2, 2, 1], deadly={0, 2}, count=1, random=Random(0))
def test_whoever_dies_when_every_test_is_begun_once_and_the_run_ends(groups, deadly, count, random):
    begun = played(groups, deadly, count, random.choice)
    assert set(begun.values()) == {1}


# --- whole runs ----------------------------------------------------------------------------------

PLANTED = '''
"""Examples that kill their worker, or never return."""

import os
from collections import deque
from itertools import repeat

from refimpl import Exact, Example, hookimpl


def kill():
    os._exit(7)


def spin():
    while True:
        pass


def deaf():
    deque(repeat(0), maxlen=0)  # never returns to the interpreter, so that no signal is seen


def example(name, compute, expected=1):
    return Example(name, name, "none", "1", values=(Exact("value", compute, expected),))


@hookimpl
def refimpl_examples():
    return [
        example("kills", kill), example("spins", spin), example("deaf", deaf),
        *(example(f"sound-{n}", lambda: 1) for n in range(4)),
    ]
'''


def run(folder, *options, examples, environment=None):
    """Run the suite on planted examples in a process of its own; its output and its records."""
    plugin = folder / "planted.py"
    plugin.write_text(PLANTED)
    results = folder / "results.jsonl"
    arguments = ["-p", "no:cacheprovider", "-q", "--plugin", str(plugin), "--results", str(results)]
    arguments += [part for name in examples for part in ("--example", name)]
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--pyargs", "refimpl.conformance", *arguments, *options],
        cwd=folder, capture_output=True, text=True, env={**clean, **(environment or {})},
        timeout=300,
    )  # fmt: skip
    records = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    return done.stdout + done.stderr, records


def answers(records, check="exact-values"):
    return {r["example"]: r for r in records if r.get("check") == check}


SOUND = [f"sound-{n}" for n in range(4)]


one_run = pytest.mark.xdist_group("troubled")  # its tests share a run, so they share a worker


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """A run in which one worker dies, one loops, and one hangs where no signal reaches it."""
    folder = tmp_path_factory.mktemp("troubled")
    return run(folder, "-n", "2", "--timeout", "4", examples=["kills", "spins", "deaf", *SOUND])


@one_run
def test_all_other_results_are_in_the_file_and_the_run_came_to_its_end(troubled):
    _, records = troubled
    found = answers(records)
    assert {name: found[name]["outcome"] for name in SOUND} == dict.fromkeys(SOUND, "passed")
    assert records[-1]["$report_type"] == "footer"
    assert records[-1]["exit_status"] == 1
    assert (records[-1]["passed"], records[-1]["failed"]) == (11, 3)


@one_run
def test_a_worker_that_died_and_what_killed_it_are_named(troubled):
    output, records = troubled
    reason = answers(records)["kills"]["reason"]
    assert "crashed while running" in reason
    assert "kills/-/exact-values/cpu/stand-in" in reason
    assert reason.startswith("worker 'gw")
    assert reason.split(" while ")[0] in output


@one_run
def test_a_check_that_loops_is_named_and_costs_nothing_else(troubled):
    _, records = troubled
    assert "it did not end within 4 s" in answers(records)["spins"]["reason"]


@one_run
def test_a_check_that_no_signal_reaches_is_named_with_where_it_hangs(troubled):
    output, records = troubled
    assert "crashed while running" in answers(records)["deaf"]["reason"]
    assert "in deaf" in output


@one_run
def test_the_header_says_how_the_workers_shared_the_cores(troubled):
    _, records = troubled
    each = threads_each(workers.cores(), 2)
    assert records[0]["workers"] == {"count": 2, "threads": each, "gpus": []}


@pytest.mark.parametrize("processes", ["0", "2"])
def test_the_footer_says_how_much_memory_a_process_has_had(tmp_path, processes):
    folder = tmp_path / processes
    folder.mkdir()
    output, records = run(folder, "-n", processes, examples=["sound-0", "sound-1"])
    peak = records[-1]["peak_mib"]
    assert 100 < peak < 10_000
    assert f"memory: at most {peak:,} MiB in one process" in output


def test_what_a_process_has_had_is_counted_and_not_what_its_parent_had():
    held = b"x" * 300 * 1024**2
    program = "import sys; from refimpl.runner.workers import peak_memory;"
    program += "held = b'x' * int(sys.argv[1]);"
    program += "print(peak_memory())"
    small, large = (
        int(subprocess.check_output([sys.executable, "-c", program, str(size)]))
        for size in (0, len(held))
    )
    assert small < 200
    assert 290 < large - small < 320


SEEN = """\
import json, os, sys
from pathlib import Path

import pytest

@pytest.mark.parametrize("number", range(6))
def test_what_a_worker_sees(number, worker_id):
    seen = {
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": os.environ["OMP_NUM_THREADS"],
        "torch": "torch" in sys.modules,
        "dist": os.environ["PYTEST_XDIST_WORKER_COUNT"],
    }
    Path(__file__).with_name(f"{worker_id}.json").write_text(json.dumps(seen))
"""


def seen_by_workers(folder, *options, **environment):
    """What each worker of a run of tests that are nobody's conformance has found, by its name."""
    (folder / "test_seen.py").write_text(SEEN)
    (folder / "bin").mkdir()
    smi = folder / "bin" / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{TWO_GPUS}END\n")
    smi.chmod(0o755)
    clean = {"PATH": f"{smi.parent}:/usr/bin:/bin", "HOME": str(folder), **environment}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder, capture_output=True, text=True, env=clean, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("gw*.json"))}


def test_each_worker_sees_its_own_gpu_by_the_callers_name(tmp_path):
    named = {"CUDA_VISIBLE_DEVICES": "GPU-8932f937,0"}
    seen = seen_by_workers(tmp_path, "-n", "2", "--device", "cuda", **named)
    assert {name: own["gpus"] for name, own in seen.items()} == {"gw0": "GPU-8932f937", "gw1": "0"}
    assert not any(own["torch"] for own in seen.values())


def test_auto_starts_as_many_as_gpus_and_cores_bear(tmp_path):
    seen = seen_by_workers(tmp_path, "-n", "auto", "--device", "cuda", LOKY_MAX_CPU_COUNT="3")
    count = {own["dist"] for own in seen.values()}
    assert count == {str(min(3, len(places(found(table=TWO_GPUS))), workers.cores()))}


def test_on_the_cpu_workers_share_the_cores_and_no_gpu_is_hidden(tmp_path):
    seen = seen_by_workers(tmp_path, "-n", "2", LOKY_MAX_CPU_COUNT="2")
    assert {own["threads"] for own in seen.values()} == {"1"}
    assert {own["gpus"] for own in seen.values()} == {None}
