"""Results files made up for tests of what reads them."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from refimpl.checking.checks import Measurement, Result, equal, true, within, within_budget
from refimpl.training.curves import curve

ENVIRONMENT = {
    "refimpl": "0.1.0",
    "python": "3.11.7",
    "implementation": "cpython",
    "platform": "Linux-6-x86_64",
    "machine": "x86_64",
    "cpus": 2,
    "packages": {"torch": "2.14.1", "numpy": "2.4.6", "torchtext": None},
    "threads": 2,
    "precision": {"generic": "none", "cuda.matmul": "none"},
    "cuda": None,
    "devices": ["cpu"],
}


def passed(example="titanic-dnn", check="parameter-count", **changes):
    """A check that passed with one exact figure."""
    return replace(
        Result(example, "script", check, "cpu", "stand-in", "passed", seconds=0.25),
        **{"measurements": (equal("parameters", 651, 651),), **changes},
    )


def failed(example="ring-dnn", check="output-shape", reason="it is wrong", **changes):
    """A check that failed."""
    return replace(
        Result(example, "low", check, "cpu", "stand-in", "failed", reason, seconds=1.5),
        **{"measurements": (true("shape", False, reason),), **changes},
    )


def skipped(example="imdb-cnn", check="parameter-count", reason="needs torchtext"):
    """A check that was skipped."""
    return Result(example, "script", check, "cpu", "stand-in", "skipped", reason)


def trained(variant="script", values=(0.7, 0.5, 0.4), example="titanic-dnn", **band):
    """A convergence check with its learning curve."""
    return Result(
        example, variant, "reaches-documented-figures", "cpu", "stand-in", "passed", seconds=3.0,
        measurements=(within("val_loss", values[-1], 0.3, 0.45),),
        curves=(curve("val_loss", values, **band),),
    )  # fmt: skip


def parted(ratio=3.6, where="step 6, gradient b3[0, 0]: found -0.127, expected -0.077"):
    """A comparison that left its budget."""
    return failed(
        "ring-dnn", "same-on-every-execution", "it parts", execution="cpu+bf16",
        measurements=(
            within_budget("worst error ratio", ratio),
            true("agreement", False, "it parts", where=where),
        ),
        curves=(curve("error over budget", (0.1, 0.4, ratio), along="step"),),
    )  # fmt: skip


def erratum(found="wrong", holds=True):
    """The errata check of an example with one erratum."""
    tried = Measurement("torch.qr", found, "= wrong", holds, "torch.qr: the document is …")
    return passed("tensors", "errata", variant="-", measurements=(tried,))


def write(
    folder: Path,
    name: str,
    *results: Result,
    ends: bool = True,
    status: int | None = None,
    packages: dict | None = None,
    environment: dict | None = None,
    **header,
) -> Path:
    """A results file of these answers; without its end, where the run is to have died."""
    made_of = {**ENVIRONMENT, **(environment or {})}
    made_of["packages"] = {**ENVIRONMENT["packages"], **(packages or {})}
    records = [
        {
            "$report_type": "header", "schema": 2, "run": name, "tier": "stand-in",
            "device": "cpu", "started": "2026-11-21T02:03:02+00:00", "examples": [],
            "environment": made_of, "problems": [], "cells": [result.id for result in results],
            "plugins": {result.example: "in-tree" for result in results},
            "documents": {r.example: {"title": "A title", "document": "20-days",
                                      "section": "1-1", "errata": []} for r in results},
            **header,
        },
        *({"$report_type": "check", **result.record()} for result in results),
    ]  # fmt: skip
    counts = Counter(result.outcome for result in results)
    if ends:
        code = int(counts["failed"] > 0) if status is None else status
        own = {"run": records[0]["run"], "exit_status": code, "seconds": 61.0}
        records.append({"$report_type": "footer", **own, **counts})
    path = folder / f"{name}.jsonl"
    path.write_text(sealed([json.dumps(record) for record in records]), encoding="utf-8")
    return path


def sealed(lines: list[str]) -> str:
    """The lines as a file, with the digest that its footer must state, if it has one."""
    if lines and '"footer"' in lines[-1]:
        before = "".join(line + "\n" for line in lines[:-1])
        digest = hashlib.sha256(before.encode()).hexdigest()
        lines = [*lines[:-1], json.dumps({**json.loads(lines[-1]), "digest": digest})]
    return "".join(line + "\n" for line in lines)
