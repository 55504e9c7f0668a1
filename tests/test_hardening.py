"""Nothing from outside turns a run green, and nothing is lost: each row of the issue, in one table.

``python tests/test_hardening.py`` prints the table: what was done, the exit status of each command,
and the last line that it printed. ``REFIMPL_LONG=1`` adds the rows that take minutes, and makes the
fuzzing longer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from refimpl.baselines import committed
from refimpl.checking.results import part_of, read
from refimpl.writing import alone

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

SLOW = """
import os, re, time
from pathlib import Path
import numpy as np
from refimpl import DataSet, Example, Facts, Protocol, Rows, Splits, Step, Variant, hookimpl

HERE = Path(__file__).parent

def steps(problem):
    w = problem.start["w"]
    (HERE / "begun").touch()
    if os.environ.get("SLOW") == "never":
        re.match("(a+)+$", "a" * 60 + "b")  # for years, and no other thread gets a turn
    for x, y in problem.batches():
        time.sleep(0.1)
        loss = ((x * w - y) ** 2).mean()
        loss.backward()
        w.data -= 0.1 * w.grad
        yield Step(loss, {"w": w}, x * w, y, lambda x: x * w)
        w.grad = None

@hookimpl
def refimpl_examples():
    return [
        Example(
            name="slow", title="t", document="d", section="s",
            data=DataSet("ones", lambda: Splits(Rows(np.ones((4, 1)), np.ones((4, 1))))),
            protocol=Protocol(epochs=2, learning_rate=0.1),
            start=lambda rng: {"w": rng.standard_normal(1)},
            variants=(Variant("only", steps, bare=True),),
            facts=Facts(parameters=1),
            baselines=HERE / "baselines",
        )
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


ROW = "hardening-row"
"""The name under which a test's report carries what a command of it came to."""


@dataclass
class Ran:
    status: int
    out: str
    err: str
    seconds: float

    @property
    def last(self) -> str:
        lines = [line for line in (self.err.strip() or self.out.strip()).splitlines() if line]
        return lines[-1] if lines else ""


FOLDERS: list[Folder] = []
"""The folders of the test that is running."""


class Folder:
    """A folder in which the toys are checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[tuple[int | str, str]] = []
        FOLDERS.append(self)
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
        ran = Ran(done.returncode, out, err, time.monotonic() - began)
        self.rows.append((ran.status, ran.last))
        return ran

    def start(self, *words: str, n: str = "0", **variables: str) -> Begun:
        named = ["check", "--plugin", "toys.py", "toy-0", "toy-1", "toy-2", "toy-3", "-n", n]
        return Begun(self, *named, "--results", str(self.results), *words, **variables)

    def calibrate(self, seeds: int, **variables: str) -> Begun:
        return Begun(self, *self.calibration(seeds), **variables)

    def calibration(self, seeds: int) -> list[str]:
        return ["calibrate", "slow", "--plugin", "slow.py", "--seeds", str(seeds), "-n", "2"]


def environment() -> dict[str, str]:
    """This process's, without what pytest puts there."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture(autouse=True)
def rows(request):
    """What the commands of a test come to, for the table."""
    FOLDERS.clear()
    yield
    request.node.user_properties += [(ROW, row) for made in FOLDERS for row in made.rows]


class Begun:
    """A command of the toys that goes on, with a mark by which all processes that it starts show.

    Only on Linux, where ``/proc`` has the environment of each process.
    """

    MARK = "REFIMPL_TEST_MARK"

    def __init__(self, folder: Folder, *words: str, **variables: str) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            folder.command(*words), cwd=folder.path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**environment(), **variables, self.MARK: self.mark},
        )  # fmt: skip

    def running(self) -> list[int]:
        """The processes of this command that are running, wherever they have gone."""
        marked = f"{self.MARK}={self.mark}".encode()
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                state = (place / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and marked in (place / "environ").read_bytes():
                    found.append(int(place.name))
            except OSError:
                continue
        return found

    def end(self, number: int) -> None:
        """Send a signal to the command itself, and wait until it has ended."""
        self.process.send_signal(number)
        self.process.wait(20)
        self.folder.rows.append((self.process.returncode, f"{signal.Signals(number).name}"))


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
        first.end(signal.SIGTERM)


def test_two_hunts_do_not_write_one_file(folder):
    findings = folder.path / "mutants.jsonl"
    with alone(findings):
        ran = folder.run("mutants", "titanic-dnn", "--results", str(findings))
    assert ran.status == 1
    assert f"--results {findings}: another process is writing it" in ran.err


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


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="it looks for orphans in /proc")


@on_linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("n", ["0", "2"])
def test_workers_end_with_their_parent(folder, number, n):
    own = folder.start(n=n, TOY_SECONDS="5")
    wait_until(lambda: part_of(folder.results).exists() and len(own.running()) >= 2)
    own.end(number)
    time.sleep(2)
    assert own.running() == []
    assert own.process.returncode != 0


@on_linux
@slow
def test_forty_kills_of_check_lose_no_record_and_leave_no_orphan(folder):
    folder.check(TOY_SECONDS="0")
    whole = {c.id: (c.outcome, c.measurements) for c in read(folder.results).checks}
    folder.results.unlink()
    part, kills, draw = part_of(folder.results), 0, random.Random(0)
    counts = []
    while kills < 40:
        there = read(part).checks if part.exists() else ()
        counts.append(len(there))
        own = folder.start(*(["--resume"] if there else []), n=str(2 * (kills % 2)),
                           TOY_SECONDS="1")  # fmt: skip
        # After it has begun, or after a record or more; sometimes before it has written a thing.
        begun = draw.random() < 0.2 or wait_for(lambda own=own: part.exists(), own)
        time.sleep(draw.uniform(0, 3) if begun else 0)
        own.end(signal.SIGKILL)
        kills += own.process.returncode == -signal.SIGKILL
        time.sleep(2)
        assert own.running() == []
        if folder.results.exists():
            kept = read(folder.results).checks
            assert {c.id: (c.outcome, c.measurements) for c in kept} == whole
            folder.results.unlink()
        else:
            kept = read(part).checks if part.exists() else ()
            assert {c.id for c in kept} >= {c.id for c in there}
    resumed = ["--resume"] if part.exists() and read(part).checks else []
    all_checked(folder.check(*resumed), folder)
    assert {c.id: (c.outcome, c.measurements) for c in read(folder.results).checks} == whole
    folder.rows = [(0, f"{kills} kills; records of {CHECKS} before each: {counts}")]


def wait_for(holds: Callable[[], bool], own: Begun) -> bool:
    """Wait until something holds, or the command has ended."""
    wait_until(lambda: holds() or own.process.poll() is not None)
    return own.process.poll() is None


@on_linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_of_calibrate_end_with_it_even_in_a_call_that_never_returns(folder, number):
    (folder.path / "slow.py").write_text(SLOW)
    own = folder.calibrate(5, SLOW="never")
    wait_until(lambda: (folder.path / "begun").exists())
    own.end(number)
    time.sleep(2)
    assert own.running() == []
    assert own.process.returncode != 0


def test_a_calibration_that_is_ended_says_what_it_keeps(folder):
    (folder.path / "slow.py").write_text(SLOW)
    own = subprocess.Popen(
        folder.command(*folder.calibration(30)), cwd=folder.path, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: len(seeds_in(folder)) >= 1)
    own.terminate()
    _, said = own.communicate(timeout=30)
    folder.rows.append((own.returncode, said.strip().replace("\n", " ")))
    assert own.returncode == 130
    assert f"{len(seeds_in(folder))} finished seeds are kept; repeat the command to go on" in said


def seeds_in(folder: Folder) -> set[int]:
    """The seeds that a calibration has on the disk, finished or not."""
    path = folder.path / "baselines" / "stand-in" / "slow.only.jsonl"
    for file in (path, committed.journal_of(path)):
        if file.exists():
            whole = file.read_text().rpartition("\n")[0].splitlines()[1:]
            return {record["seed"] for record in map(json.loads, whole) if "seed" in record}
    return set()


@on_linux
@slow
def test_forty_kills_of_calibrate_lose_no_seed_and_leave_no_orphan(folder):
    (folder.path / "slow.py").write_text(SLOW)
    path = folder.path / "baselines" / "stand-in" / "slow.only.jsonl"
    assert folder.run(*folder.calibration(12)).status == 0
    whole = {run.seed: run.final for run in committed.read(path).runs}
    path.unlink()
    kills, draw = 0, random.Random(0)
    counts = []
    while kills < 40:
        there = seeds_in(folder)
        counts.append(len(there))
        own = folder.calibrate(12)
        begun = wait_for(lambda own=own: len(own.running()) > 2, own)
        time.sleep(draw.uniform(0, 4) if begun else 0)
        own.end(signal.SIGKILL)
        kills += own.process.returncode == -signal.SIGKILL
        time.sleep(2)
        assert own.running() == []
        assert seeds_in(folder) >= there
        if path.exists():
            assert {run.seed: run.final for run in committed.read(path).runs} == whole
            path.unlink()
    assert folder.run(*folder.calibration(12)).status == 0
    assert {run.seed: run.final for run in committed.read(path).runs} == whole
    folder.rows = [(0, f"{kills} kills; seeds of 12 before each: {counts}")]


def test_a_thread_that_a_plugin_leaves_does_not_hold_up_the_end(folder):
    ran = folder.check(TOY="thread 1")
    assert ran.status == 0
    assert ran.seconds < 55
    assert "threads were left behind, and are ended: left behind" in ran.out


# --- output --------------------------------------------------------------------------------------

LOUD = """
from refimpl import Exact, Example, hookimpl

@hookimpl
def refimpl_examples():
    title, what = "\\x1b[31mred \\u202e turned", "sum\\x1b[2J"
    return [Example("loud", title, "d\\x07", "0", values=(Exact(what, lambda: 1, 2),))]
"""


@pytest.mark.parametrize(
    "words", ["list", "info loud", pytest.param("check loud -n 0", marks=slow)]
)
def test_names_from_outside_reach_the_terminal_as_text(folder, words):
    (folder.path / "loud.py").write_text(LOUD)
    ran = folder.run(*words.split(), "--plugin", "loud.py")
    assert "loud" in ran.out
    assert not {"\x1b", "\x07", "\u202e"} & set(ran.out + ran.err)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_an_output_that_is_full_is_an_error_of_one_line(folder):
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            folder.command("list"),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )
    folder.rows.append((ran.returncode, ran.stderr.strip()))
    assert ran.returncode == 1
    assert ran.stderr.startswith("refimpl: the output cannot be written: No space left on device")
    assert ran.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="it limits the size of files by ulimit")
def test_a_disk_that_is_full_leaves_the_earlier_file_and_no_stub(folder):
    folder.results.write_text('{"$report_type": "an earlier one"}\n')
    before = folder.results.read_bytes()
    words = ["check", "--plugin", "toys.py", "toy-0", "-n", "0", "--results", str(folder.results)]
    ran = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *folder.command(*words)],
        cwd=folder.path, capture_output=True, env=environment(), text=True, timeout=300,
    )  # fmt: skip
    folder.rows.append((ran.returncode, ran.stdout.strip().splitlines()[-1]))
    assert ran.returncode == 1
    assert f"cannot write {part_of(folder.results)}: File too large" in ran.stdout + ran.stderr
    assert folder.results.read_bytes() == before
    assert {p.name for p in folder.path.glob("results*")} <= {"results.jsonl", "results.jsonl.lock"}


# --- strange surroundings ------------------------------------------------------------------------


def surroundings(folder: Folder) -> dict[str, dict[str, str]]:
    """Variables that others set, by what they stand for."""
    home = Path("/proc")  # where not even root can make a file
    if sys.platform != "linux":
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


# --- locales -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
@pytest.mark.parametrize("n", ["0", "2"])
@pytest.mark.parametrize("name", ["日本 🐍".encode(), b"caf\xe9"], ids=["emoji", "latin-1"])
def test_a_path_beyond_the_locale_changes_nothing(tmp_path, name, n):
    folder = Folder(tmp_path / os.fsdecode(name))
    ran = folder.check(n=n, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    all_checked(ran, folder)
    one = "the name is not UTF-8, so all checks run in one process"
    assert (one in ran.err) == (name == b"caf\xe9" and n == "2")


class Table:
    """A pytest plugin that prints, for each test, what its commands came to."""

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown" and not report.skipped:
            name = report.nodeid.partition("::test_")[2].replace("_", " ")
            for status, last in [row for key, row in report.user_properties if key == ROW]:
                print(f"| {name} | {status} | {last.replace('|', '/')[:200]} |")


if __name__ == "__main__":
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "--tb=short", "-s", "--no-header"]
    print("| what is done | exit status | the last line |\n|---|---|---|")
    sys.exit(pytest.main([__file__, *options, *sys.argv[1:]], plugins=[Table()]))
