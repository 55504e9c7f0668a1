"""Everything that a GPU is to show, in one command: ``python -m benchmarks.on_a_gpu``.

The whole suite on the device, then one comparison of every composition, then TF32 left on, which
must be found, then how long documents' loops, refimpl's runs and graphs of whole steps take, then a
script for each kernel that is wrong. Results files, the table and scripts go to ``--output``; each
command has a time limit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import tf32_left_on
from refimpl.checking.checks import Result
from refimpl.checking.results import ResultsError, read

PARTS = (
    "compile", "graphs", "export", "bf16", "fp16", "tf32", "channels-last", "f64", "data-parallel",
    "deterministic",
)  # fmt: skip
MINUTES = 15
KERNELS = "each-kernel-is-right"
COMPARED = "same-on-every-execution"
PLANTED = Path(tf32_left_on.__file__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 1 if any command failed or ran past its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=Path("gpu"))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all commands together")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    own = parser.parse_args(arguments)
    program = [sys.executable, "-m", "refimpl"]
    check = [*program, "check", "--device", own.device, "-n", "auto"]
    files = {own.output / "whole.jsonl": check}
    for part in PARTS:
        only = ["--check", COMPARED, "--execution", part]
        files[own.output / f"{part}.jsonl"] = [*check, *only]
    commands = [[*command, "--results", str(file)] for file, command in files.items()]
    left_on = own.output / f"{tf32_left_on.NAME}.jsonl"
    both = ["--check", COMPARED, "--check", KERNELS, "--execution", tf32_left_on.NAME]
    planted = [*check, *both, "--plugin", str(PLANTED), "--results", str(left_on)]
    timed = [sys.executable, "-m", "benchmarks.graphs", "--device", own.device]
    timed += ["--table", str(own.output / "graphs.md")]
    if own.dry_run:
        print(*map(" ".join, [*commands, planted, timed]), sep="\n")
        print("# then, for each kernel that is wrong:", *program, "reproduce EXAMPLE VARIANT …")
        return 0
    own.output.mkdir(parents=True, exist_ok=True)
    # The whole suite may take half of the time, each of the others a part of the rest.
    limit = own.minutes * 60 / 2
    worst = 0
    for number, command in enumerate(commands):
        worst = max(worst, run(command, limit if not number else limit / (len(PARTS) + 1)))
    run(planted, limit / (len(PARTS) + 1))  # fails where all is well
    worst = max(worst, run(timed, limit / 2))
    found, missed = of_tf32(recorded(left_on))
    print(f"TF32 left on: found in {len(found)} variants, missed in {len(missed)}", *missed)
    if missed or not found:
        worst = 1
    wrong = {(r.example, r.variant, r.execution): r for path in files for r in failures(path)}
    for example, variant, execution in wrong:
        script = own.output / f"reproduce-{example}-{variant}-{execution}.py"
        where = ["--execution", execution, "--output", str(script)]
        run([*program, "reproduce", example, variant, *where], limit / 4)
    return worst


def run(command: Sequence[str], limit: float) -> int:
    """Run a command for at most ``limit`` seconds; 0 if it ended well, else 1."""
    print("+", *command, flush=True)
    try:
        return int(subprocess.run(command, timeout=limit).returncode != 0)
    except subprocess.TimeoutExpired:
        print(f"stopped after {limit:.0f} s", flush=True)
        return 1


def of_tf32(results: Sequence[Result]) -> tuple[list[str], list[str]]:
    """The variants whose comparison fails, and those in which only the judge of kernels sees it.

    A variant in which no kernel is off has no product that this device computes in TF32.
    """
    failed = {c: {f"{r.example}/{r.variant}" for r in results if r.outcome == "failed"
                  and r.check == c} for c in (COMPARED, KERNELS)}  # fmt: skip
    return sorted(failed[COMPARED]), sorted(failed[KERNELS] - failed[COMPARED])


def failures(path: Path) -> list[Result]:
    """The checks of kernels that failed, as far as the run came."""
    return [r for r in recorded(path) if r.outcome == "failed" and r.check == KERNELS]


def recorded(path: Path) -> Sequence[Result]:
    """The results of a run, as far as it came."""
    for file in (path, path.with_name(path.name + ".part")):
        try:
            return read(file).checks
        except ResultsError:
            continue
    return []


if __name__ == "__main__":
    sys.exit(main())
