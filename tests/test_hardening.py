"""Nothing from outside turns a run green, and nothing is lost: each row of the issue, in one table.

``python tests/test_hardening.py`` prints the table: what was done, the exit status, and the last
line. ``REFIMPL_LONG=1`` adds the rows that take minutes, and makes the fuzzing longer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from refimpl.checking.results import part_of, read

LONG = bool(os.environ.get("REFIMPL_LONG"))
"""Whether to do what takes minutes, too."""

slow = pytest.mark.skipif(not LONG, reason="it takes minutes; REFIMPL_LONG=1 runs it")

TOY = """
import os, signal, threading, time
from refimpl import Exact, Example, hookimpl

def value(number):
    def compute():
        if os.environ.get("TOY") == f"exit {number}":
            os._exit(0)
        if os.environ.get("TOY") == f"hang {number}":
            time.sleep(60)
        if os.environ.get("TOY") == f"thread {number}":
            threading.Thread(target=time.sleep, args=(60,), name="left behind").start()
        time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
        return number
    return compute

@hookimpl
def refimpl_examples():
    return [
        Example(f"toy-{n}", "A toy", "tests", "0", values=(Exact("n", value(n), n),))
        for n in range(4)
    ]
"""

SKIPPER = """
import pytest

def pytest_collection_modifyitems(items):
    for item in items[1:]:
        item.add_marker(pytest.mark.skip(reason="not today"))
"""

CHECKS = 8
"""How many checks the toys get: of each, its value, and whether its plugin is in order."""


@dataclass
class Ran:
    status: int
    out: str
    err: str
    seconds: float

    @property
    def last(self) -> str:
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1] if lines else ""


class Folder:
    """A folder in which the toys are checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / "toys.py").write_text(TOY)

    @property
    def results(self) -> Path:
        return self.path / "results.jsonl"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "refimpl", *words]

    def check(self, *words: str, n: str = "0", **variables: str) -> Ran:
        named = ["--plugin", "toys.py", "toy-0", "toy-1", "toy-2", "toy-3", "-n", n]
        given = [] if "--results" in words else ["--results", str(self.results)]
        return self.run("check", *named, *given, *words, **variables)

    def run(self, *words: str, **variables: str) -> Ran:
        began = time.monotonic()
        done = subprocess.run(
            self.command(*words), cwd=self.path, capture_output=True, timeout=300,
            env={**environment(), **variables},
        )  # fmt: skip
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return Ran(done.returncode, out, err, time.monotonic() - began)

    def start(self, *words: str, n: str = "0", **variables: str) -> subprocess.Popen[bytes]:
        named = ["check", "--plugin", "toys.py", "toy-0", "toy-1", "toy-2", "toy-3", "-n", n]
        return subprocess.Popen(
            self.command(*named, "--results", str(self.results), *words), cwd=self.path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**environment(), **variables},
        )  # fmt: skip


def environment() -> dict[str, str]:
    """This process's, without what pytest puts there."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def children_of(pid: int) -> list[int]:
    """The processes below a process, on Linux."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == pid:
            own = int(status.parent.name)
            found += [own, *children_of(own)]
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit, "it did not come to be"
        time.sleep(0.05)


def all_checked(ran: Ran, folder: Folder) -> None:
    assert (ran.status, len(read(folder.results).checks)) == (0, CHECKS), ran.out + ran.err
    assert read(folder.results).passed


# --- green though not checked --------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    ["-k toy-0", "--collect-only", pytest.param("--setup-plan --runxfail", marks=slow),
     pytest.param("--help", marks=slow), pytest.param("-p no:timeout", marks=slow),
     pytest.param("--deselect x -x -m nothing", marks=slow)],
)  # fmt: skip
def test_pytests_options_of_the_caller_change_nothing(folder, options):
    all_checked(folder.check(PYTEST_ADDOPTS=options), folder)


def test_a_plugin_that_skips_reaches_no_check(folder):
    (folder.path / "skipper.py").write_text(SKIPPER)
    ran = folder.check(PYTEST_PLUGINS="skipper", PYTHONPATH=str(folder.path))
    all_checked(ran, folder)


@pytest.mark.parametrize(
    "how", ["-k toy-0", "-p skipper", pytest.param("--setup-plan", marks=slow)]
)
def test_whoever_drives_pytest_what_was_not_checked_is_no_pass(folder, how):
    (folder.path / "skipper.py").write_text(SKIPPER)
    words = ["--pyargs", "refimpl.conformance", "--plugin", "toys.py", "--results", "results.jsonl"]
    named = [word for n in range(4) for word in ("--example", f"toy-{n}")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words, *named, *how.split()],
        cwd=folder.path, capture_output=True, timeout=300,
        env={**environment(), "PYTHONPATH": str(folder.path)},
    )  # fmt: skip
    assert done.returncode == 0
    if how != "--setup-plan":
        assert read(folder.results).not_checked
        ran = folder.run("report", "--exit-code", "results.jsonl")
        assert ran.status == 1
        assert "passed" not in ran.out.lower().split(":")[0]


def test_an_execution_that_was_asked_for_and_is_not_here_is_a_failure(folder):
    ran = folder.check("--execution", "mps" if sys.platform != "darwin" else "cuda")
    assert ran.status == 1


@pytest.mark.parametrize("n", ["0", pytest.param("2", marks=slow)])
def test_a_plugin_that_ends_the_process_ends_no_run_as_passed(folder, n):
    ran = folder.check(TOY="exit 1", n=n)
    assert ran.status == 1
    if n == "0":
        assert "the run did not come to its end" in ran.err
        assert not folder.results.exists()
        assert len(read(part_of(folder.results)).checks) >= 4


@pytest.mark.parametrize("command", [["list"], pytest.param(["info", "toy"], marks=slow)])
def test_a_plugin_that_ends_the_process_ends_no_command_as_passed(folder, command):
    (folder.path / "ends.py").write_text("import os\nos._exit(0)\nrefimpl_examples = None\n")
    ran = folder.run(*command, "--plugin", "ends.py")
    assert ran.status == 1
    assert "ended the process" in ran.err


def test_two_runs_do_not_write_one_file(folder):
    first = folder.start(TOY="hang 1")
    try:
        wait_until(part_of(folder.results).exists)
        second = folder.check()
        assert second.status == 1 or second.status == 4
        assert "another process is writing it" in second.out + second.err
        assert "(process " in second.out + second.err
    finally:
        first.terminate()
        first.wait(20)


# --- nothing is lost -----------------------------------------------------------------------------


def test_an_earlier_file_stays_until_the_new_one_is_complete_and_resume_goes_on(folder):
    all_checked(folder.check(), folder)
    before = folder.results.read_bytes()
    ended = folder.check(TOY="exit 2")
    assert ended.status == 1
    assert folder.results.read_bytes() == before
    assert "repeat the command with --resume to go on" in ended.err
    all_checked(folder.check("--resume"), folder)
    assert not part_of(folder.results).exists()


def test_what_is_resumed_is_the_same_run(folder):
    folder.check(TOY="exit 2")
    ran = folder.check("--resume", "--reseed", "100")
    assert ran.status != 0
    assert "is of a run with another reseed" in ran.out + ran.err


@pytest.mark.skipif(sys.platform != "linux", reason="it looks for orphans in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("n", ["0", "2"])
def test_workers_end_with_their_parent(folder, number, n):
    own = folder.start(n=n, TOY_SECONDS="5")
    wait_until(lambda: part_of(folder.results).exists() and len(children_of(own.pid)) >= 1)
    below = children_of(own.pid)
    own.send_signal(number)
    own.wait(20)
    time.sleep(2)
    assert [pid for pid in below if is_running(pid)] == []
    assert own.returncode != 0


@slow
def test_forty_kills_lose_no_record_and_leave_no_orphan(folder):
    for kill in range(40):
        own = folder.start("--resume" if part_of(folder.results).exists() else "--reseed=0",
                           n=str(2 * (kill % 2)), TOY_SECONDS="0.3")  # fmt: skip
        part = part_of(folder.results)
        there = len(read(part).checks) if part.exists() else 0
        time.sleep(1 + kill % 8)
        below = children_of(own.pid)
        own.kill()
        own.wait(20)
        time.sleep(2)
        assert [pid for pid in below if is_running(pid)] == []
        if folder.results.exists():
            folder.results.unlink()
            continue
        assert not part.exists() or len(read(part).checks) >= there
    resumed = ["--resume"] if part_of(folder.results).exists() else []
    all_checked(folder.check(*resumed), folder)


def test_a_thread_that_a_plugin_leaves_does_not_hold_up_the_end(folder):
    ran = folder.check(TOY="thread 1")
    assert ran.status == 0
    assert ran.seconds < 55
    assert "left threads behind, which are ended: left behind" in ran.out


# --- strange surroundings ------------------------------------------------------------------------


def surroundings(folder: Folder) -> dict[str, dict[str, str]]:
    """Variables that others set, by what they stand for."""
    home = folder.path / "read-only home"
    home.mkdir(mode=0o555, exist_ok=True)
    return {
        "randomly": {"PYTEST_ADDOPTS": "-p randomly"},
        "xdist options": {"PYTEST_ADDOPTS": "-n 3 --dist each --maxfail 1"},
        "cov": {"PYTEST_ADDOPTS": "--cov=refimpl", "COV_CORE_SOURCE": "refimpl"},
        "rerunfailures": {"PYTEST_ADDOPTS": "--reruns 3"},
        "strict warnings": {"PYTHONWARNINGS": "error"},
        "cp1252": {"PYTHONIOENCODING": "cp1252", "LC_ALL": "C", "PYTHONUTF8": "0"},
        "-OO": {"PYTHONOPTIMIZE": "2"},
        "read-only home": {"HOME": str(home), "XDG_CACHE_HOME": str(home)},
    }


QUICK = ("cp1252", "-OO")


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=slow)
     for n in surroundings(Folder(Path(tempfile.mkdtemp())))],
)  # fmt: skip
def test_the_verdict_does_not_depend_on_the_surroundings(folder, name):
    all_checked(folder.check(**surroundings(folder)[name]), folder)


def test_a_path_with_spaces_and_an_emoji_and_other_peoples_settings_change_nothing(tmp_path):
    folder = Folder(tmp_path / "a folder 🐍 é")
    (folder.path / "conftest.py").write_text("raise SystemExit('not mine')\n")
    (folder.path / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    for name in ("execnet", "joblib", "socket", "xdist"):
        (folder.path / f"{name}.py").write_text("raise SystemExit('not the real one')\n")
    script = f"from refimpl.cli.main import main; import sys; sys.path[:] = {sys.path!r}; main()"
    done = subprocess.run(
        [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-c", script, "check",
         "toy-0", "--plugin", "toys.py", "-n", "2", "--results", str(folder.results)],
        cwd=folder.path, capture_output=True, timeout=300, env=environment(),
    )  # fmt: skip
    if sys.version_info < (3, 11):
        assert b"would be imported instead of the module" in done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    assert read(folder.results).passed


@pytest.mark.parametrize("command", [["errata"], ["info", "tensors"]], ids=" ".join)
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_output_in_a_small_encoding_does_not_end_halfway(folder, command, encoding):
    ran = folder.run(*command, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert "Error" not in ran.err
    assert ran.status == 0


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-v", "-n", "0", "-rA", "--tb=short", *sys.argv[1:]]))
