"""The command that runs some checks again as they were run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refimpl.checking.checks import VERDICTS, Result


@dataclass(frozen=True)
class RunOptions:
    """The options of a run that a command to repeat one of its checks must have too."""

    device: str = "cpu"
    plugins: Sequence[str] = ()
    reseed: int = 0
    expected_failures: Sequence[Path] = ()


def options_in(header: Mapping[str, Any]) -> RunOptions:
    """The options of a run, as far as the header of its results file has them."""
    return RunOptions(str(header.get("device", "cpu")), (), int(header.get("reseed", 0)))


def rerun_command(results: Sequence[Result], options: RunOptions) -> str:
    """The command that runs these checks again.

    If a plugin was refused before its examples were known, that is the list of all examples, which
    ends with what was refused.
    """
    plugins = [word for plugin in options.plugins for word in ("--plugin", plugin)]
    if any("#" in result.example for result in results):
        return shlex.join(["refimpl", "list", *plugins])
    examples = dict.fromkeys(result.example for result in results)
    variants = dict.fromkeys(result.variant for result in results if result.variant != "-")
    checks = dict.fromkeys(result.check for result in results if result.check not in VERDICTS)
    executions = dict.fromkeys(r.execution for r in results if r.execution != options.device)
    words = ["refimpl", "check", *examples]
    if len(examples) == 1:  # variants of several examples need not be in each
        words += _each("--variant", variants)
    words += _each("--check", checks)
    if results[0].tier != "stand-in":
        words += ["--data", results[0].tier]
    if options.device != "cpu":
        words += ["--device", options.device]
    words += _each("--execution", executions)
    if options.reseed:
        words += ["--reseed", str(options.reseed)]
    words += _each("--expected-failures", map(str, options.expected_failures))
    return shlex.join([*words, *plugins])


def _each(option: str, values: Any) -> list[str]:
    return [word for value in values for word in (option, value)]
