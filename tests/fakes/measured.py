"""Results files of whole runs that were really made, and others that are made of them."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes.runs import sealed

STORED = Path(__file__).parents[2] / "docs" / "matrix" / "results"

Change = Callable[[dict[str, Any]], None]


def unpacked(name: str, folder: Path) -> Path:
    """A stored results file, unpacked."""
    path = folder / f"{name}.jsonl"
    path.write_bytes(lzma.decompress((STORED / f"{name}.jsonl.xz").read_bytes()))
    return path


def changed(path: Path, name: str, change: Change, keep: float = 1.0) -> Path:
    """The same run with each record changed, and cut off after a share ``keep`` of its records."""
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for record in records:
        change(record)
    if keep < 1:
        records = records[: round(keep * len(records))]
    made = path.with_name(f"{name}.jsonl")
    made.write_text(sealed([json.dumps(record) for record in records]), encoding="utf-8")
    return made


def elsewhere(python: str, torch: str, seed: int) -> Change:
    """The change to a run with other versions, whose figures are others in the sixth digit."""
    drawn = random.Random(seed)

    def off(value: Any) -> Any:
        return value * (1 + 1e-5 * drawn.gauss(0, 1)) if isinstance(value, float) else value

    def change(record: dict[str, Any]) -> None:
        if record["$report_type"] == "header":
            record["environment"]["python"] = python
            record["environment"]["packages"]["torch"] = torch
        for measured in record.get("measurements", ()):
            moved, low, high = off(measured["measured"]), measured["low"], measured["high"]
            numbers = isinstance(moved, float) and None not in (low, high)
            if numbers and low <= moved <= high:
                measured["measured"] = moved
        for curve in record.get("curves", ()):
            curve["values"] = [off(value) for value in curve["values"]]

    return change


def failing(check: str, example: str, reason: str) -> Change:
    """The change to a run in which one check of an example fails."""
    counts = {"failed": 0}

    def change(record: dict[str, Any]) -> None:
        if record["$report_type"] == "footer":
            record.update(exit_status=1, passed=record["passed"] - counts["failed"], **counts)
        if record.get("check") == check and record.get("example") == example:
            own = record["measurements"][0]
            own.update(holds=False, message=reason)
            record.update(outcome="failed", reason=reason)
            counts["failed"] += 1

    return change


def six_environments(folder: Path) -> list[Path]:
    """Whole runs in six environments: in one a check fails, and one was cut off."""
    one = unpacked("py311-torch213", folder)
    two = unpacked("py311-torch214", folder)
    return [
        one,
        two,
        changed(one, "py310-torch26", elsewhere("3.10.14", "2.6.0", 1)),
        changed(one, "py312-torch29", elsewhere("3.12.4", "2.9.1", 2)),
        changed(
            changed(two, "py313", elsewhere("3.13.1", "2.14.1", 3)),
            "py313-torch214",
            failing("parameter-count", "titanic-dnn", "parameters is 650, expected 651"),
        ),
        changed(two, "py312-torch214", elsewhere("3.12.4", "2.14.1", 4), keep=0.4),
    ]
