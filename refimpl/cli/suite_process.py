"""Runs the suite in a process of its own, and judges the run by its results file alone.

Nothing of the caller's pytest reaches it: no options or plugins from variables, no settings, no
conftest, no installed plugin but those that the suite needs. Whatever ends it early, what it had
checked is in the results file's ``.part``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import TextIO

import click

from refimpl.checking.results import Results, ResultsError, part_of, read
from refimpl.cli.messages import complain
from refimpl.cli.suite_screen import SuiteScreen
from refimpl.processes import ENDING, PARENT, safe_environment
from refimpl.writing import is_stream

SETTINGS = Path(str(files("refimpl.runner"))) / "suite.ini"

PLUGINS = "xdist.plugin,pytest_timeout,refimpl.runner.pytest_plugin"
"""The pytest plugins that the suite needs; others are not loaded."""

KEPT = ("PYTEST_XDIST_AUTO_NUM_WORKERS",)
"""The only variable of pytest's that the suite reads: how many workers ``-n auto`` means."""

CODE = (
    "import sys; sys.path[:] = [folder for folder in sys.path if folder]; "
    "from refimpl.runner.suite_main import main; main()"
)


def run_suite(arguments: Sequence[str], results: Path | None, verbose: bool = False) -> int:
    """Run the suite with these options of pytest; 0 only if its results file says that it passed.

    Without a place for the results, they are written to a temporary file.
    """
    with tempfile.TemporaryDirectory(prefix="refimpl-check-") as scratch:
        own = results is None or is_stream(results)
        path = Path(scratch) / "results.jsonl" if own else results
        assert path is not None
        run = uuid.uuid4().hex
        shown = ["-v", "-v"] if verbose else SuiteScreen.ARGUMENTS
        given = [*arguments, *shown, "--results", str(path), "--run-id", run]
        status = _run([*given, *_one_process(given)], path)
        judged = _judged(path, run, status)
        if results is not None and own and path.is_file():
            with results.open("wb") as stream:
                stream.write(path.read_bytes())
    return judged


def _judged(path: Path, run: str, status: int) -> int:
    """The exit status: 0 only for a run that came to its end, with every check run and passed."""
    found: Results | None = None
    try:
        found = read(path) if path.is_file() else None
    except ResultsError as error:
        complain(str(error))
    if found is None or found.header["run"] != run or not found.complete:
        if status == 0:
            complain("the run did not come to its end: something in it ended the process")
        _tell_what_is_kept(path, run)
        return status if status > 0 else 1
    if found.passed:
        return 0
    why = found.why_not_passed
    if why and (found.expected or not status):  # else pytest has said why nothing was planned
        complain(why)
    return status if status > 0 else 1


def _tell_what_is_kept(path: Path, run: str) -> None:
    part = part_of(path)
    try:
        kept = read(part)
    except ResultsError:
        return
    if kept.header["run"] == run and kept.checks and "refimpl-check-" not in str(part):
        count = f"{len(kept.checks)} of {len(kept.expected or ())}"
        complain(f"{count} checks are kept in {part}; repeat the command with --resume to go on")


def _one_process(arguments: Sequence[str]) -> list[str]:
    """The option that starts no workers, if a path is none that xdist could tell them."""
    if arguments[arguments.index("-n") + 1] == "0":
        return []
    for path in (os.getcwd(), tempfile.gettempdir(), *sys.path, *arguments):
        try:
            os.fsencode(path).decode("utf-8")
        except UnicodeDecodeError:
            complain(f"{path}: the name is not UTF-8, so all checks run in one process")
            return ["-n", "0"]
    return []


def _run(arguments: Sequence[str], path: Path) -> int:
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    optimised = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    command = [sys.executable, *safe, *optimised, "-c", CODE, *arguments]
    direct = _is_ours(sys.stdout)
    sys.stdout.flush()
    child = subprocess.Popen(
        command,
        env=_environment(sys.stdout.encoding if direct else "utf-8"),
        stdin=subprocess.DEVNULL,
        stdout=None if direct else subprocess.PIPE,
        stderr=None if direct else subprocess.STDOUT,
        start_new_session=True,
    )
    with _passing_on_signals(child):
        if child.stdout is not None:
            for line in child.stdout:
                click.echo(line.decode(errors="backslashreplace"), nl=False)
        return child.wait()


def _is_ours(stream: TextIO) -> bool:
    """Whether a child that writes to its standard output writes to this stream."""
    try:
        return stream.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False


def _environment(output: str) -> dict[str, str]:
    """The child's: whatever the locale, names of files are UTF-8, and it prints in ``output``.

    Threads that wait for each other do not spin: where another program uses a core, a check with
    two threads took six times as long.
    """
    kept = {
        name: value
        for name, value in safe_environment().items()
        if (not name.startswith("PYTEST_") and name != "PYTHONWARNINGS") or name in KEPT
    }
    return {
        "OMP_WAIT_POLICY": "passive",
        **kept,
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": f"{output}:backslashreplace",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": PLUGINS,
        "REFIMPL_CHECK_PATH": os.pathsep.join(sys.path),
        PARENT: str(os.getpid()),
    }


@contextmanager
def _passing_on_signals(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """An interrupt is the child's to handle; what ends this process ends the child and its workers.

    Only a process whose main thread this is can handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        child.send_signal(signal.SIGINT)

    ended_by: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        ended_by.append(number)
        _kill(child)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, interrupt)}
    before |= {number: signal.signal(number, end) for number in ENDING}
    try:
        yield
    finally:
        _kill(child)
        for number, handler in before.items():
            signal.signal(number, handler)
        if ended_by:
            complain(f"ended by {signal.Signals(ended_by[0]).name}")


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and its workers, who share its session."""
    if child.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
