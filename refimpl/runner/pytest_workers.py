"""The pytest hooks of parallel runs: how many workers, what each may use, and what if one dies.

Registered by :mod:`refimpl.runner.pytest_plugin`. Nothing at module level imports torch, nor
does any hook that runs in a worker before its GPU and threads are settled.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from refimpl import threads
from refimpl.processes import end_with_parent
from refimpl.runner import workers

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

RESTARTS = 200
"""How many workers may die before a run is given up; xdist's own limit is four per worker."""

DEATHS_AT_START = 3
"""How many workers may die before they have collected anything."""

TIMEOUT = {"stand-in": 600, "real": 3600}
"""Seconds that one check may take, if neither options nor configuration say otherwise."""

PATIENCE = 1.5
"""After this many times the timeout, a timer in C ends a worker that no signal reaches."""

AUTO_VARIABLE = "PYTEST_XDIST_AUTO_NUM_WORKERS"

_INPUT = "refimpl"
"""The key under which the controlling process tells a worker what it may use."""

_PEAK = "refimpl_peak_memory"
"""The key under which a worker reports its peak memory to the controlling process."""

_KEYS = "refimpl_keys"
"""The key under which a worker reports the keys of the questions that its tests were given."""

QUESTIONS: pytest.StashKey[list[str]] = pytest.StashKey()
"""The keys of the questions that tests of another repository are given in this process."""

DONE: pytest.StashKey[set[str]] = pytest.StashKey()
"""The checks whose results the run has from the one that it resumes."""

_STATE: pytest.StashKey[Controller] = pytest.StashKey()
_STDERR: pytest.StashKey[int] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of parallel runs."""
    group = parser.getgroup("refimpl")
    group.addoption("--gpus-per-worker", type=int, default=1, metavar="N",
                    help="with -n and --device cuda, how many GPUs each worker is given "
                    "(default: 1; checks that need more GPUs are skipped)")  # fmt: skip
    group.addoption("--durations-from", type=Path, metavar="FILE",
                    help="with -n, start the longest checks of this results file first "
                    "(default: the file that --results replaces)")  # fmt: skip


# --- how many ------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """``-n auto``: what GPUs and their memory allow; else the cores, within a container's quota."""
    count = yield
    if os.environ.get(AUTO_VARIABLE):
        return count
    kind, _, index = config.option.device.partition(":")
    if kind == "cpu":
        return min(count, workers.cores())
    if kind != "cuda" or index:
        return 1  # one device, whatever it is: its examples would only wait for one another
    gpus = workers.find_gpus()
    _require_enough(gpus, config.option.gpus_per_worker)
    # Every core counts: xdist leaves out the second thread of one, but these wait for their GPU.
    return workers.count_on_gpus(gpus, workers.cores(), config.option.gpus_per_worker)


def _require_enough(gpus: list[workers.Gpu], each: int) -> None:
    if each < 1 or (gpus and each > len(gpus)):
        raise pytest.UsageError(
            f"--gpus-per-worker {each} is not possible: only {len(gpus)} GPUs are visible"
        )


# --- what each may use: the controlling process --------------------------------------------------


class Controller:
    """What the controlling process knows about its workers."""

    def __init__(self, config: pytest.Config) -> None:
        self.count = len(config.option.tx or ())
        self.threads = workers.threads_each(workers.cores(), self.count)
        self.seconds = _earlier_seconds(config)
        self.pinning: workers.Pinning | None = None
        self.collected: set[str] = set()
        self.dead_at_start = 0
        self.peaks: list[int] = []
        self.keys: set[str] = set()
        if config.option.device == "cuda":
            gpus, each = workers.find_gpus(), config.option.gpus_per_worker
            _require_enough(gpus, each)
            places = workers.places(gpus, each)
            self.pinning = workers.Pinning(places) if places else None

    def __repr__(self) -> str:
        return f"Controller({self.count} workers of {self.threads} threads)"


def parallel(config: pytest.Config) -> dict[str, Any]:
    """What a results file says about the workers: how many, their threads and their GPUs."""
    state = config.stash.get(_STATE, None)
    if state is None:
        return {"count": 0, "threads": None, "gpus": []}
    gpus = list(state.pinning.places[: state.count]) if state.pinning else []
    said = threads.stated()
    each = int(said) if said and said.isdigit() else state.threads
    return {"count": state.count, "threads": each, "gpus": gpus}


def _earlier_seconds(config: pytest.Config) -> dict[str, float]:
    """How long each cell took in an earlier run; empty if there is none."""
    from refimpl.checking.results import ResultsError, read

    given: Path | None = config.option.durations_from
    replaced: Path | None = config.option.results
    if given is None and (replaced is None or not replaced.is_file()):
        return {}
    try:
        checks = read(given or replaced).checks  # type: ignore[arg-type]
    except ResultsError as error:
        if given is not None:
            raise pytest.UsageError(f"--durations-from: {error}") from error
        return {}
    return {check.id: check.seconds for check in checks}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """In a worker, settle its GPU and threads; in the controlling process, plan what each gets."""
    if hasattr(config, "workerinput"):
        parent = config.workerinput.get(_INPUT, {}).get("parent", 0)
        end_with_parent(at_once=True, parent=parent)
        config.stash[_STDERR] = os.dup(2)  # before a test's output is captured
        if config.workerinput.get(_INPUT, {}).get("groups"):
            # By this, a worker adds a test's group to its name. xdist reads only the command line,
            # which need not say loadgroup.
            config.option.loadgroup = True
        _settle(config.workerinput.get(_INPUT, {}))
    elif getattr(config.option, "numprocesses", None) and not config.option.collectonly:
        config.stash[_STATE] = Controller(config)
        if config.option.dist in ("no", "load"):
            # One variant's checks share its training run, so they belong on one worker.
            config.option.dist = "loadgroup"
        config.option.loadscopereorder = False  # it orders by the number of tests; we order by time
        if config.option.maxworkerrestart is None:
            config.option.maxworkerrestart = str(RESTARTS)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell a worker what it may use before it starts."""
    state = node.config.stash.get(_STATE, None)
    if state is not None:
        node.workerinput[_INPUT] = {
            "threads": state.threads,
            "gpus": state.pinning.take(node.gateway.id) if state.pinning else None,
            "seconds": state.seconds,
            "groups": node.config.option.dist == "loadgroup",
            "parent": os.getpid() if getattr(node.gateway.spec, "popen", None) else 0,
            "done": sorted(node.config.stash.get(DONE, set())),
        }


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: WorkerController) -> None:
    """Note that a worker has collected its tests."""
    state = node.config.stash.get(_STATE, None)
    if state is not None:
        state.collected.add(node.gateway.id)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController, error: object | None) -> None:
    """Free a worker's GPU; give up if too many workers die before they have collected a test."""
    state = node.config.stash.get(_STATE, None)
    if state is None:
        return
    if state.pinning is not None:
        state.pinning.release(node.gateway.id)
    if not error:
        state.peaks.append(node.workeroutput[_PEAK])
        state.keys.update(node.workeroutput[_KEYS])
    if error and node.gateway.id not in state.collected:
        state.dead_at_start += 1
        if state.dead_at_start > DEATHS_AT_START:
            pytest.exit(f"workers die before they collect a test: {error}", returncode=1)


def peak_memory(config: pytest.Config) -> int:
    """The peak memory, in MiB, of any process of this run; workers that died do not report it."""
    state = config.stash.get(_STATE, None)
    others = state.peaks if state is not None else []
    return max([workers.peak_memory(), *others])


def keys_of_workers(config: pytest.Config) -> set[str]:
    """The keys of the questions that the workers' tests were given."""
    state = config.stash.get(_STATE, None)
    return state.keys if state is not None else set()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> object | None:
    """Use a scheduler with which a crash costs only the test that crashed."""
    if config.option.dist != "loadgroup":
        return None
    from refimpl.runner.scheduling import CrashSafeScheduling

    return CrashSafeScheduling(config, log)


# --- what each may use: the worker ---------------------------------------------------------------


def _settle(given: dict[str, Any]) -> None:
    if given.get("gpus") is not None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            raise pytest.UsageError(
                "CUDA is in use before this worker could be given its GPU; "
                "a plugin or a conftest.py calls it while it is imported"
            )
        os.environ[workers.VISIBLE] = given["gpus"]
    if given.get("threads"):
        threads.limit(given["threads"])
    workers.use_large_pages()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report this worker's peak memory to the controlling process."""
    if hasattr(session.config, "workerinput"):
        output = session.config.workeroutput  # type: ignore[attr-defined]
        output[_PEAK] = workers.peak_memory()
        output[_KEYS] = session.config.stash[QUESTIONS]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every check a timeout; in a worker, put the longest groups first."""
    from refimpl.runner.scheduling import cell_of, longest_first

    _leave_out_what_is_done(config, items)
    if not _has_timeout(config):
        for item in items:
            if cell_of(item) is not None:
                item.add_marker(pytest.mark.timeout(TIMEOUT[config.option.data]))
    if hasattr(config, "workerinput"):
        items[:] = longest_first(items, config.workerinput.get(_INPUT, {}).get("seconds", {}))


def _leave_out_what_is_done(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the checks whose results a resumed run has already."""
    given = getattr(config, "workerinput", {}).get(_INPUT, {}).get("done")
    done = set(given) if given is not None else config.stash.get(DONE, set())
    left_out = [item for item in items if _key(item) in done]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _key(item) not in done]


def _key(item: pytest.Item) -> str | None:
    """The key of the result that a test will have, if it is a check."""
    given: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    for name in ("cell", "verdict"):
        if hasattr(given.get(name), "id"):  # a plan without cells leaves a parameter unset
            return str(given[name].id)
    return getattr(given.get("check"), "key", None)


def _has_timeout(config: pytest.Config) -> bool:
    """Whether the user has decided how long a test may take."""
    if not any(map(config.pluginmanager.hasplugin, ("timeout", "pytest_timeout"))):
        return True  # pytest-timeout is switched off
    option, variable = config.getoption("timeout", None), os.environ.get("PYTEST_TIMEOUT")
    return bool(option or variable or config.getini("timeout"))


# The signal that pytest-timeout sends does not reach a test that hangs in C or in a kernel.
# A timer in C then ends the worker; the controlling process names the test and goes on.


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """In a worker, set the second timer beside pytest-timeout's own."""
    if hasattr(item.config, "workerinput"):
        faulthandler.dump_traceback_later(
            PATIENCE * settings.timeout, exit=True, file=item.config.stash[_STDERR]
        )


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> None:
    """Cancel the second timer, since the test has ended."""
    if hasattr(item.config, "workerinput"):
        faulthandler.cancel_dump_traceback_later()
