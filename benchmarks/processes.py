"""Times one ``refimpl check`` of some examples against a process for each of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click

CHECKED = ("autograd", "tensors", "layers", "titanic-dnn")
"""Cheap examples, in which what a process costs anyway weighs most."""


@dataclass(frozen=True)
class Seconds:
    """What the same checks take."""

    examples: int
    together: float
    apart: float

    def __str__(self) -> str:
        return (
            f"Checking {self.examples} examples takes {self.together:.0f} s in one command and "
            f"{self.apart:.0f} s with a process each, as TorchBench does: "
            f"{self.apart / self.together:.2f} times as long"
        )


def seconds_of(names: Sequence[str] = CHECKED) -> Seconds:
    """Check these examples in one command, then each in a process of its own."""
    return Seconds(len(names), check(*names), sum(check(name) for name in names))


def check(*names: str) -> float:
    """The seconds that one command takes with one worker; raises if a check fails."""
    with TemporaryDirectory() as folder:
        kept = ["-n", "1", "--results", str(Path(folder) / "results.jsonl")]
        command = [sys.executable, "-m", "refimpl", "check", *names, *kept]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise click.ClickException(f"{' '.join(command)} fails:\n{done.stdout[-2000:]}")
    return seconds
