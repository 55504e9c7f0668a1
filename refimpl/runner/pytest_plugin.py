"""The pytest plugin of refimpl, which pytest finds by its entry point.

Options and markers are defined here and not in a conftest, so that they also exist under
``--pyargs``. Nothing at module level imports torch: with xdist, a worker's threads and devices must
be settled before torch is imported.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from refimpl.checking import options
from refimpl.checking.requests import Request
from refimpl.errors import escaped
from refimpl.runner import pytest_workers
from refimpl.runner.results_file import OUTCOMES, ResultsFile, seconds_left

if TYPE_CHECKING:
    from refimpl.checking.checks import Cell, Check, Result
    from refimpl.checking.plan import Plan
    from refimpl.contract import Example
    from refimpl.loading.registry import Registry
    from refimpl.report.columns import Column

Made = TypeVar("Made")

RESULT = "refimpl-result"
"""The name under which a test's report carries its result."""

CHECKS = "refimpl_checks"
"""The mark that :func:`refimpl.conformance.parametrize_with_checks` puts on a test."""

_CELL_ID = re.compile(
    r"\[(?P<example>[^/]+)/(?P<variant>[^/]+)/(?P<check>[^/]+)/(?P<execution>[^/]+)/(?P<tier>[^/]+)\]"
)
"""The id of a cell at the end of a test's id, where xdist may have appended a group."""

SHORT = 10.0
"""Seconds of checks that take less on one process than workers take to start."""

_REGISTRY: pytest.StashKey[Registry] = pytest.StashKey()
_PLAN: pytest.StashKey[Plan] = pytest.StashKey()
_AGAINST: pytest.StashKey[Sequence[Column]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """The options of the conformance suite, and those of runs on several workers."""
    pluginmanager.register(pytest_workers, "refimpl-workers")
    group = parser.getgroup("refimpl", "conformance of documented PyTorch examples")
    group.addoption("--example", action="append", default=[], metavar="NAME",
                    help="Check only this example (repeatable).")  # fmt: skip
    for option in options.ALL:
        _add(group, option)
    group.addoption("--resume", action="store_true",
                    help="Go on with a run that was ended, from --results FILE.part.")  # fmt: skip
    group.addoption("--changed", action="store_true",
                    help="Keep the answers in --results FILE that nothing can have changed, and "
                    "run the others.")  # fmt: skip
    group.addoption("--run-id", help=argparse.SUPPRESS)


def _add(group: pytest.OptionGroup, option: options.Option) -> None:
    settings: dict[str, Any] = {"dest": option.name, "help": option.help, "type": option.kind}
    if option.choices:
        settings["choices"] = option.choices
    if option.many:
        settings["action"] = "append"
    default: Any = [] if option.many else option.default
    group.addoption(option.flag, metavar=option.metavar, default=default, **settings)


def pytest_configure(config: pytest.Config) -> None:
    """Open the results file, unless this process is a worker."""
    config.addinivalue_line("markers", f"{CHECKS}(questions): one test of each question")
    config.stash[pytest_workers.QUESTIONS] = []
    option = config.option
    if option.resume and option.results is None:
        raise pytest.UsageError("--resume needs --results FILE: the run's FILE.part is resumed")
    if option.changed and option.results is None:
        raise pytest.UsageError(
            "--changed needs --results FILE, with the answers of an earlier run"
        )
    if hasattr(config, "workerinput") or option.collectonly or option.setupplan:
        return
    config.stash[_AGAINST] = _earlier(option.against)
    if option.results is not None:
        config.pluginmanager.register(Recorder(config, option.results), "refimpl-results")


def _earlier(paths: Sequence[Path]) -> Sequence[Column]:
    """The earlier results to compare with, read before the run may replace them."""
    if not paths:
        return ()
    from refimpl.errors import RefimplError
    from refimpl.report.columns import columns

    try:
        return columns(paths)
    except RefimplError as error:
        raise pytest.UsageError(f"--against: {error}") from None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the results file."""
    recorder = config.pluginmanager.get_plugin("refimpl-results")
    if recorder is not None:
        recorder.file.close()


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """``-n auto``: no workers on the CPU if ``--changed`` leaves little; they are slow to start."""
    count = yield
    option = config.option
    if not option.changed or option.results is None or option.device != "cpu":
        return count
    now = {**header(config), **planned(config)}
    return 0 if seconds_left(config, now) < SHORT else count


# --- what the suite is parametrised over ---------------------------------------------------------


def registry_of(config: pytest.Config) -> Registry:
    """The plugins of this run, loaded once."""
    if _REGISTRY not in config.stash:
        from refimpl.loading import registry

        only = config.option.example or None
        config.stash[_REGISTRY] = registry.load(config.option.plugin, only=only)
    return config.stash[_REGISTRY]


def request_of(config: pytest.Config) -> Request:
    """What this run's options request."""
    option = config.option
    return Request(
        option.example, option.data, option.device, option.execution, option.reseed,
        option.expected_failures, option.variant, option.check, _failed_in(option.failed),
    )  # fmt: skip


def _failed_in(path: Path | None) -> frozenset[str]:
    """The keys of what failed in an earlier run; a file that cannot be read is an error."""
    if path is None:
        return frozenset()
    from refimpl.checking.results import ResultsError, read

    try:
        return frozenset(r.id for r in read(path).checks if r.outcome == "failed")
    except ResultsError as error:
        raise pytest.UsageError(f"--failed: {error}") from None


def plan_of(config: pytest.Config, checks: Sequence[Check]) -> Plan:
    """Every check of this run, planned once; what cannot be planned is a collection error."""
    if _PLAN not in config.stash:
        from refimpl.checking.plan import plan, require_executions

        made = _collected(plan, registry_of(config), request_of(config), checks)
        _collected(require_executions, [made], request_of(config))
        config.stash[_PLAN] = made
    return config.stash[_PLAN]


def questions_about(
    examples: Sequence[Example | str], config: pytest.Config, checks: Sequence[Check]
) -> list[Any]:
    """The parameters of a test that runs every check of these examples, by pytest's options."""
    from refimpl.checking.plan import plan_one, require_executions
    from refimpl.loading.registry import load_for

    request = request_of(config)
    plans = [
        _collected(plan_one, load_for(example, config.option.plugin), example, request, checks)
        for example in examples
    ]
    _collected(require_executions, plans, request)
    parameters = []
    for planned in plans:
        known = [Question(verdict.id, partial(_known, verdict)) for verdict in planned.verdicts]
        to_run = [Question(cell.id, partial(planned.run, cell)) for cell in planned.cells]
        parameters += [question_parameter(question) for question in (*known, *to_run)]
    return parameters


def _known(result: Result) -> Result:
    return result


def _collected(make: Callable[..., Made], *arguments: Any) -> Made:
    """What is made of a request; what is wrong with it is a collection error of one line."""
    from refimpl.errors import RefimplError

    try:
        return make(*arguments)
    except RefimplError as error:
        raise pytest.Collector.CollectError(str(error)) from None


def parameter(cell: Cell) -> Any:
    """A cell as a test parameter: named by its key, grouped with the cells that share its runs."""
    variant = cell.subject.variant.name if cell.subject.variant else "-"
    group = pytest.mark.xdist_group(f"{cell.subject.example.name}/{variant}")
    return pytest.param(cell, id=cell.id, marks=group)


def report_result(request: pytest.FixtureRequest, result: Result) -> None:
    """Attach a result to the test's report, then end the test as the result says."""
    _report(request.node, result)


def _report(node: pytest.Item, result: Result) -> None:
    node.user_properties.append((RESULT, result.record()))
    if result.outcome == "failed":
        pytest.fail(result.details or result.reason, pytrace=False)
    if result.outcome == "skipped":
        pytest.skip(result.reason)
    if result.outcome == "xfailed":
        pytest.xfail(result.reason)


# --- tests of other repositories ----------------------------------------------------------------


class Question:
    """One check, as given to a test in a plugin's own repository: call it to run it.

    ``key`` is that of its result. Called outside such a test, it just returns the result.
    """

    def __init__(self, key: str, run: Callable[[], Result]) -> None:
        self.key, self.run = key, run
        self.test: pytest.Item | None = None

    def __call__(self) -> Result:
        """Run the check and end the test by its result: failed, skipped, or failed as expected."""
        result = self.run()
        if self.test is not None:
            _report(self.test, result)
        return result

    def __repr__(self) -> str:
        return f"check {self.key}"


def question_parameter(question: Question) -> Any:
    """A question as a test parameter: named by its key, grouped with those that share its runs."""
    example, variant, *_ = question.key.split("/")
    group = pytest.mark.xdist_group(f"{example}/{variant}")
    return pytest.param(question, id=question.key, marks=group)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each check that the mark of ``parametrize_with_checks`` lists."""
    mark = metafunc.definition.get_closest_marker(CHECKS)
    if mark is not None:
        parameters = mark.args[0](metafunc.config)
        metafunc.config.stash[pytest_workers.QUESTIONS] += [
            parameter.values[0].key for parameter in parameters
        ]
        metafunc.parametrize("check", parameters)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each question the test that runs it."""
    parameters = getattr(item, "callspec", None)
    question = parameters.params.get("check") if parameters else None
    if isinstance(question, Question):
        question.test = item


# --- what comes of it ----------------------------------------------------------------------------


def results_in(report: pytest.TestReport) -> Iterator[dict[str, Any]]:
    """The results in a test's report; if it failed without one (its worker died), a failed one."""
    properties: list[tuple[str, Any]] = report.user_properties
    carried = [value for name, value in properties if name == RESULT]
    if report.when == "call" and carried:
        yield from carried
    elif report.failed and (key := _CELL_ID.search(report.nodeid)):
        last_words = str(report.longrepr).strip().splitlines() or ["its worker died"]
        yield {
            **key.groupdict(),
            "outcome": "failed",
            "reason": last_words[-1],
            "seconds": round(getattr(report, "duration", 0.0), 3),
            "measurements": [],
            "details": str(report.longrepr),
        }


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Print the table, the findings, what changed, and the verdict in a sentence at the end."""
    reports = [
        report
        for outcome in (*OUTCOMES, "error")
        for report in terminalreporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport)
    ]
    records = {_key(record): record for report in reports for record in results_in(report)}
    recorder = config.pluginmanager.get_plugin("refimpl-results")
    if recorder is not None:
        records = {**{_key(record): record for record in recorder.file.earlier}, **records}
    if records:
        complete = exitstatus not in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        if config.option.maxfail and terminalreporter.stats.get("failed"):
            complete = False  # it stopped at the first failure
        there = {"/".join(key) for key in records}
        if recorder is not None:
            complete = complete and there.issuperset(recorder.header.get("cells") or ())
        _print_verdict(terminalreporter, config, list(records.values()), complete)
        if exitstatus == pytest.ExitCode.INTERRUPTED:
            terminalreporter.write_line("interrupted: not every check was run")


def _key(record: dict[str, Any]) -> tuple[str, ...]:
    return tuple(record[part] for part in _CELL_ID.groupindex)


def _print_verdict(
    terminalreporter: pytest.TerminalReporter,
    config: pytest.Config,
    records: Sequence[dict[str, Any]],
    complete: bool,
) -> None:
    from refimpl.checking.results import Results, result_from
    from refimpl.cli.verdict_text import conformance_table
    from refimpl.report.changes import since
    from refimpl.report.columns import columns_of
    from refimpl.report.rerun import RunOptions

    option = config.option
    terminalreporter.ensure_newline()
    terminalreporter.section("refimpl")
    results = [result_from(record) for record in records]
    header = _header_of(config)
    earlier = config.stash.get(_AGAINST, ())
    footer = {"exit_status": 0, "seconds": 0.0} if complete else None
    now = Results(Path("this run"), header, tuple(results), footer)
    changes = since(columns_of([now]), earlier) if earlier else ()
    width = terminalreporter._tw.fullwidth
    options = RunOptions(option.device, option.plugin, option.reseed, option.expected_failures)
    terminalreporter.write(
        escaped(
            conformance_table(results, width, options, header, complete, changes, bool(earlier))
        )
    )


def _header_of(config: pytest.Config) -> dict[str, Any]:
    """The header of the run's results file, or the part of it that the verdict needs."""
    file = config.pluginmanager.get_plugin("refimpl-results")
    if file is not None and file.header:
        return dict(file.header)
    if config.stash.get(_AGAINST, ()):
        return header(config)
    option = config.option
    environment = {"packages": {"torch": version("torch")}}
    return {"tier": option.data, "device": option.device, "examples": option.example,
            "environment": environment}  # fmt: skip


def header(config: pytest.Config) -> dict[str, Any]:
    """What is run, and on what, as a results file says it."""
    from refimpl.capabilities import capabilities
    from refimpl.checking.contents import contents
    from refimpl.environment import environment
    from refimpl.store.sources import files_held_to

    option = config.option
    loaded = registry_of(config)
    return {
        "tier": option.data,
        "device": option.device,
        "reseed": option.reseed,
        "examples": option.example,
        "only": request_of(config).only,
        "environment": environment(),
        "capabilities": capabilities(option.device),
        "workers": pytest_workers.parallel(config),
        "data": files_held_to() if option.data == "real" else {},
        "plugins": {n: r.origin for n, r in sorted(loaded.examples.items())},
        "documents": {n: _document(r.value) for n, r in sorted(loaded.examples.items())},
        "contents": contents(loaded, option.expected_failures),
        "problems": [str(problem) for problem in loaded.problems],
    }


def planned(config: pytest.Config) -> dict[str, Any]:
    """What this run has to check and to meet with, if it runs the suite.

    Otherwise the footer says what was checked.
    """
    nothing: dict[str, Any] = {"cells": None, "deviations": []}
    if not _runs_the_suite(config):
        return nothing
    checks = import_module("refimpl.conformance.checks").ALL
    try:
        made = plan_of(config, checks)
        return {"cells": made.keys, "deviations": list(made.deviations)}
    except pytest.Collector.CollectError:
        return nothing  # the collection will fail with the reason


def _document(example: Example) -> dict[str, Any]:
    """What a report says about an example, beside its name."""
    errata = [
        {key: str(getattr(erratum, key)) for key in ("name", "says", "today", "since")}
        for erratum in example.errata
    ]
    about = {key: str(getattr(example, key)) for key in ("title", "document", "section")}
    return {**about, "errata": errata}


class Recorder:
    """Has the results of a run written to a file as they come."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.config = config
        self.file = ResultsFile(config, path)
        self.header: dict[str, Any] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionstart(self) -> Generator[None, object, object]:
        """Write the header while the workers start: it needs torch, which is slow to import."""
        option = self.config.option
        early = option.resume or option.changed  # the workers must know what is done already
        if early:
            self.file.begin(self._header())
        started = yield
        if not early:
            self.file.begin(self._header())
        return started

    def _header(self) -> dict[str, Any]:
        """What is run, and on what."""
        from refimpl.checking.results import HEADER, SCHEMA

        self.header = {
            "$report_type": HEADER,
            "schema": SCHEMA,
            "run": self.file.run,
            "process": os.getpid(),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **header(self.config),
            **planned(self.config),
        }
        return self.header

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a record for each check as it ends."""
        for record in results_in(report):
            self.file.add(record)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Remember that the run did not come to its end."""
        self.file.interrupted = True

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the footer: the run has come to its end."""
        cells = set(self.header.get("cells") or ())
        if (
            exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
            and cells
            and (cells <= self.file.recorded)
        ):  # every answer is of an earlier run
            failed = self.file.outcomes["failed"]
            exitstatus = pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK
            session.exitstatus = exitstatus
        gone = {*self.header.get("deviations", ())} - self.file.deviations
        whole = cells <= self.file.recorded
        if (
            gone and whole and exitstatus == pytest.ExitCode.OK
        ):  # as an expected failure that passes
            session.exitstatus = exitstatus = pytest.ExitCode.TESTS_FAILED
        self.file.peak = pytest_workers.peak_memory(self.config)
        self.file.keys = sorted(
            {
                *self.config.stash[pytest_workers.QUESTIONS],
                *pytest_workers.keys_of_workers(self.config),
            }
        )
        self.file.end(exitstatus)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the peak memory, and where the results are."""
        kept = sum(bool(record.get("earlier")) for record in self.file.earlier)
        if kept:
            why = "since nothing that they depend on has changed"
            terminalreporter.write_line(f"{kept:,} answers are of an earlier run, {why}")
        terminalreporter.write_line(f"memory: at most {self.file.peak:,} MiB in one process")
        if not self.config.option.run_id or "refimpl-check-" not in str(self.file.path):
            ended = not self.file.interrupted
            terminalreporter.write_line(f"results: {self.file.path if ended else self.file.part}")


def _runs_the_suite(config: pytest.Config) -> bool:
    """Whether what pytest was given includes the conformance suite, whole or in part."""
    suite = Path(str(files("refimpl.conformance"))).resolve()
    for given in config.args:
        name = given.partition("::")[0]
        if name == "refimpl.conformance" or name.startswith("refimpl.conformance."):
            return True
        path = Path(config.invocation_params.dir, name).resolve()
        if path == suite or path in suite.parents or suite in path.parents:
            return True
    return False
