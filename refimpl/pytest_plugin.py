"""The pytest side of refimpl, as an entry point of pytest's own.

Options and markers stand here and not in a conftest, so that they are there under ``--pyargs``
too. Nothing at module level imports torch: with xdist, threads and devices of a worker must be
settled before torch is.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_reportlog.plugin import ReportLogPlugin

if TYPE_CHECKING:
    from refimpl.checking import Cell, Result
    from refimpl.registry import Registry

RESULT = "refimpl-result"
"""Under which name a test's report carries its result."""

_REGISTRY: pytest.StashKey[Registry] = pytest.StashKey()
_RESULTS: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the conformance suite."""
    group = parser.getgroup("refimpl", "conformance of documented PyTorch examples")
    group.addoption("--example", action="append", default=[], metavar="NAME",
                    help="check only this example (may be given several times)")  # fmt: skip
    group.addoption("--data", choices=("stand-in", "real"), default="stand-in",
                    help="which tier of data to train on (default: stand-in)")  # fmt: skip
    group.addoption("--device", default="cpu", metavar="DEVICE",
                    help="what to run on, by torch's name for it (default: cpu)")  # fmt: skip
    group.addoption("--plugin", action="append", default=[], metavar="FILE|MODULE",
                    help="check the examples of this plugin too")  # fmt: skip
    group.addoption("--results", metavar="FILE", type=Path,
                    help="write the results to this file, as JSON Lines")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Settle the threads of this process; open the results file in the controlling one."""
    config.stash[_RESULTS] = []
    if hasattr(config, "workerinput"):
        _divide_threads(int(config.workerinput["workercount"]))
        return
    if getattr(config.option, "numprocesses", None) and config.option.dist in ("no", "load"):
        # One variant's checks share its training run, so they belong on one worker.
        config.option.dist = "loadgroup"
    path: Path | None = config.option.results
    if path is not None:
        config.pluginmanager.register(ResultsFile(config, path), "refimpl-results")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the results file."""
    results = config.pluginmanager.get_plugin("refimpl-results")
    if results is not None:
        results.close()


def _divide_threads(workers: int) -> None:
    """Share the cores among the workers, unless the caller has said how many threads to use."""
    each = max(1, (os.cpu_count() or 1) // max(1, workers))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(each))


# --- what the suite is parametrised over ---------------------------------------------------------


def registry_of(config: pytest.Config) -> Registry:
    """The plugins of this run, loaded once."""
    if _REGISTRY not in config.stash:
        from refimpl import registry

        only = config.option.example or None
        config.stash[_REGISTRY] = registry.load(config.option.plugin, only=only)
    return config.stash[_REGISTRY]


def cells_of(config: pytest.Config, checks: list[Any]) -> list[Cell]:
    """Every check of every example asked for, on the device and tier asked for.

    An unknown example name is a usage error.
    """
    from refimpl.checking import cells
    from refimpl.errors import UnknownNameError
    from refimpl.executions import on_device

    loaded = registry_of(config)
    names = config.option.example or sorted(loaded.examples)
    try:
        examples = [loaded.example(name) for name in dict.fromkeys(names)]
    except UnknownNameError as error:
        if any(set(names) & set(problem.examples) for problem in loaded.problems):
            examples = [loaded.examples[n].value for n in names if n in loaded.examples]
        else:
            raise pytest.UsageError(str(error)) from error
    execution = on_device(config.option.device)
    return [
        cell
        for example in examples
        for cell in cells(example, checks, execution, config.option.data)
    ]


def verdicts_on_plugins(config: pytest.Config, check: str) -> list[Result]:
    """Whether the plugin of each example is in order; failed, with the reason, where it is not."""
    from refimpl.checking import Result, true

    loaded = registry_of(config)
    wanted = set(config.option.example)
    device, tier = config.option.device, config.option.data
    good = [
        Result(name, "-", check, device, tier, "passed",
               measurements=(true(f"registered from {registered.origin}", True, ""),))
        for name, registered in loaded.examples.items()
        if not wanted or name in wanted
    ]  # fmt: skip
    bad = [
        Result(f"{problem.plugin}#{number}", "-", check, device, tier, "failed", str(problem))
        for number, problem in enumerate(loaded.problems, start=1)
    ]
    return sorted(good, key=lambda r: r.example) + bad


def parameter(cell: Cell) -> Any:
    """A cell as a test parameter: named by its key, grouped with the cells that share its runs."""
    variant = cell.subject.variant.name if cell.subject.variant else "-"
    group = pytest.mark.xdist_group(f"{cell.subject.example.name}/{variant}")
    return pytest.param(cell, id=cell.id, marks=group)


def report_result(request: pytest.FixtureRequest, result: Result) -> None:
    """Attach a result to the test's report, then fail or skip the test as it says."""
    request.node.user_properties.append((RESULT, result.record()))
    if result.outcome == "failed":
        pytest.fail(result.details or result.reason, pytrace=False)
    if result.outcome == "skipped":
        pytest.skip(result.reason)


# --- what comes of it ----------------------------------------------------------------------------


def results_in(report: pytest.TestReport) -> Iterator[dict[str, Any]]:
    """The results that a test's report carries; for a worker that died, one that says so."""
    if report.when == "call":
        yield from (value for name, value in report.user_properties if name == RESULT)
    elif report.failed and "[" in report.nodeid:
        key = report.nodeid.split("[", 1)[1].rstrip("]").split("@", 1)[0].rstrip("]").split("/")
        if len(key) == 5:
            names = ("example", "variant", "check", "execution", "tier")
            reason = str(report.longrepr).strip().splitlines()
            yield {
                **dict(zip(names, key, strict=True)),
                "outcome": "failed",
                "reason": reason[-1] if reason else "the worker died",
                "seconds": 0.0,
                "measurements": [],
                "details": str(report.longrepr),
            }


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """One table of the examples, then what to do about each failure."""
    reports = [
        report
        for outcome in ("passed", "failed", "error", "skipped")
        for report in terminalreporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport)
    ]
    records = [record for report in reports for record in results_in(report)]
    if not records:
        return
    from refimpl.rendering import conformance_table
    from refimpl.results import result_from

    terminalreporter.ensure_newline()
    terminalreporter.section("refimpl")
    terminalreporter.write(
        conformance_table([result_from(r) for r in records], terminalreporter._tw.fullwidth)
    )


class ResultsFile(ReportLogPlugin):  # type: ignore[misc]
    """The results of a run, written as they come by pytest-reportlog's writer.

    What a dying run had measured is on disk; the footer is only written when it ends.
    """

    def __init__(self, config: pytest.Config, path: Path) -> None:
        super().__init__(config, path)
        self.run = uuid.uuid4().hex
        self.began = time.monotonic()
        self.outcomes: dict[str, int] = {"passed": 0, "failed": 0, "skipped": 0}

    def pytest_sessionstart(self) -> None:
        """The header: what is run, on what."""
        from refimpl.environment import environment
        from refimpl.results import HEADER, SCHEMA
        from refimpl.training import tf32_off

        tf32_off()
        option = self._config.option
        loaded = registry_of(self._config)
        self._write_json_data(
            {
                "$report_type": HEADER,
                "schema": SCHEMA,
                "run": self.run,
                "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "tier": option.data,
                "device": option.device,
                "examples": option.example,
                "environment": environment(),
                "plugins": {n: r.origin for n, r in sorted(loaded.examples.items())},
                "problems": [str(problem) for problem in loaded.problems],
            }
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A record for each check as it is answered."""
        from refimpl.results import CHECK

        for record in results_in(report):
            self.outcomes[record["outcome"]] += 1
            self._write_json_data({"$report_type": CHECK, **record})

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """The footer: the run came to its end."""
        from refimpl.results import FOOTER

        self._write_json_data(
            {
                "$report_type": FOOTER,
                "run": self.run,
                "exit_status": int(exitstatus),
                "seconds": round(time.monotonic() - self.began, 3),
                **self.outcomes,
            }
        )

    def pytest_warning_recorded(self) -> None:
        """Warnings are pytest's own business."""

    def pytest_collectreport(self) -> None:
        """So is collection."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the results are."""
        terminalreporter.write_line(f"results: {self._log_path}")
