"""The options of a run of checks, declared once for ``refimpl check`` and for pytest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from refimpl.checking.requests import DEFAULT_PARTS
from refimpl.tiers import TIERS


@dataclass(frozen=True)
class Option:
    """One option: ``--flag VALUE``; ``name`` is that of the argument it becomes."""

    flag: str
    name: str
    help: str
    metavar: str
    kind: type = str
    default: str | int | None = None
    choices: tuple[str, ...] = ()
    many: bool = False


DATA = Option(
    "--data", "data", "Train on generated stand-in data, or on the documents' own (REFIMPL_DATA).",
    "TIER", default="stand-in", choices=TIERS,
)  # fmt: skip
DEVICE = Option(
    "--device", "device", "Run on this device, by torch's name for it: cpu, cuda, cuda:1, mps …",
    "DEVICE", default="cpu",
)  # fmt: skip
EXECUTION = Option(
    "--execution", "execution",
    "Compare this execution with the float64 oracle: a part, or parts composed, as bf16 or "
    "cuda+bf16+compile; on the run's device, unless it names one (repeatable; 'all' for every "
    f"part; default: the plain device, and it with {', '.join(filter(None, DEFAULT_PARTS))}).",
    "NAME", many=True,
)  # fmt: skip
RESEED = Option(
    "--reseed", "reseed",
    "Add N to the seed of every run, for other draws. Baselines use the seeds from 1000 on: "
    "take a multiple of 100 up to 800, or 2000 and more.",
    "N", int, 0,
)  # fmt: skip
PLUGIN = Option(
    "--plugin", "plugin", "Also load the examples of this plugin (repeatable).",
    "FILE|MODULE", many=True,
)  # fmt: skip
RESULTS = Option(
    "--results", "results", "Write the results to this file, as JSON Lines.", "FILE", Path
)
EXPECTED_FAILURES = Option(
    "--expected-failures", "expected_failures",
    "Expect the failures in this file, besides those that plugins bring (repeatable).",
    "FILE", Path, many=True,
)  # fmt: skip

AGAINST = Option(
    "--against", "against", "Say what changed since these earlier results (repeatable).",
    "FILE", Path, many=True,
)  # fmt: skip

VARIANT = Option("--variant", "variant", "Check only this variant (repeatable).", "NAME", many=True)
CHECK = Option("--check", "check", "Run only this check (repeatable).", "NAME", many=True)
FAILED = Option(
    "--failed", "failed", "Run only what failed in this results file.", "FILE", Path
)  # fmt: skip

ALL = (
    DATA,
    DEVICE,
    EXECUTION,
    RESEED,
    PLUGIN,
    RESULTS,
    EXPECTED_FAILURES,
    AGAINST,
    VARIANT,
    CHECK,
    FAILED,
)
