"""What ``refimpl check`` shows while it runs: one line, in the place of pytest's dots."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import IO, Any, ClassVar

import pytest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 60.0
"""Seconds between two lines where the output is no terminal."""


class SuiteScreen:
    """A pytest plugin: a live line on a terminal, elsewhere a line a minute."""

    ARGUMENTS: ClassVar[Sequence[str]] = ("-q", "--tb=no", "-r", "N", "--show-capture=no")
    """What keeps pytest's own report off the screen."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.console = Console(file=stream or _stdout(), highlight=False, markup=False)
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[failed]}", markup=False),
            console=self.console, disable=not self.live, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("starting", total=None, failed="")
        self.total = self.done = self.failed = 0
        self.began = self.said = time.monotonic()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Begin, in the place of xdist's lines about its workers."""
        reporter = session.config.pluginmanager.get_plugin("terminaldistreporter")
        if reporter is not None:  # xdist also calls it directly, so taking it out is not enough
            reporter.write_line = reporter.rewrite = lambda *line, **style: None
        self.bar.start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note how many checks there are, without workers."""
        self.total = self.total or len(getattr(session, "items", ()))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Note how many checks there are, from the first worker that knows."""
        self.total = len(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Any:
        """No letter for a check, but its outcome all the same."""
        if report.when == "call" or report.failed or (report.when == "setup" and report.skipped):
            outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
            return outcome, "", ""
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a check that has ended."""
        if report.when != "call" and not (report.when == "setup" and not report.passed):
            return
        self.done += 1
        self.failed += report.failed
        _, _, cell = report.nodeid.partition("[")
        example = cell.partition("/")[0]
        failed = f"{self.failed} failed" if self.failed else ""
        self.bar.update(
            self.task, description=example, completed=self.done, total=self.total or None,
            failed=failed,
        )  # fmt: skip
        now = time.monotonic()
        if not self.live and now - self.said >= EVERY:
            self.said = now
            self.console.print(self._line(example, failed, now), soft_wrap=True)

    def _line(self, example: str, failed: str, now: float) -> str:
        """How far it is; the longest checks come first, so that the time left is less than so."""
        spent = now - self.began
        left = spent * (self.total - self.done) / self.done if self.total else 0.0
        parts = (f"{self.done} of {self.total} checks", example, failed,
                 f"{spent / 60:.0f} min, at most {left / 60:.0f} min left")  # fmt: skip
        return " · ".join(filter(None, parts))

    def pytest_sessionfinish(self) -> None:
        """Clear the line."""
        self.bar.stop()

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Any:
        """Print what went wrong before any check ran, and nothing of pytest's about it."""
        errors = terminalreporter.stats.get("error", [])
        collecting = [error for error in errors if isinstance(error, pytest.CollectReport)]
        for reason in dict.fromkeys(str(error.longrepr) for error in collecting):
            self.console.print(f"refimpl: {reason}", soft_wrap=True)
        if collecting:  # pytest has yet to say that it was interrupted
            for write in ("write_line", "write_sep"):
                setattr(terminalreporter, write, lambda *line, **style: None)
        return (yield)


def _stdout() -> IO[str]:
    """Standard output itself, which pytest replaces while a check runs."""
    try:
        return os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # it is no file
        return sys.stdout
