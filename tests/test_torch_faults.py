"""Builds of torch that compute something else fail, by a check that names what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

FAULTS = Path(__file__).parent / "fakes" / "torch_faults.py"


@dataclass(frozen=True)
class Seen:
    """A fault, the check of an example that fails on it, and words of its message.

    What is rarely wrong is found by ``alone=False``, a run of all checks.
    """

    fault: str
    example: str
    check: str
    said: tuple[str, ...]
    variant: str = ""
    execution: str = "cpu"
    alone: bool = True


SEEN = (
    Seen("addmm", "titanic-dnn", "each-kernel-is-right", ("aten::addmm", "float32 on cpu")),
    Seen("linear", "titanic-dnn", "each-layer-is-right", ("Linear linear1", "float32 on cpu")),
    Seen("conv2d", "mnist-cnn", "each-kernel-is-right", ("aten::convolution",), "function"),
    Seen("mean_in_bfloat16", "linear-regression-2d", "each-kernel-is-right", ("aten::mean",)),
    Seen(
        "wrong_in_evaluation", "titanic-dnn", "predicts-as-its-oracle",
        ("predictions at the start of the run", "no_grad"),
    ),
    Seen(
        "wrong_without_gradients", "titanic-dnn", "each-kernel-is-right",
        ("aten::addmm", "in evaluation"),
    ),
    Seen(
        "dropout_draws_again", "mnist-cnn", "dropout-keeps-its-mask",
        ("its backward uses another mask",), "function",
    ),
    Seen("wide_start", "titanic-dnn", "starts-as-torch-does", ("draws weight of Linear",)),
    Seen("race", "imdb-cnn", "each-kernel-is-right", ("aten::",), "keep-first", alone=False),
    Seen(
        "bce_of_zero", "imdb-cnn", "right-at-the-ends", ("binary_cross_entropy", "inf"),
        "keep-last",
    ),
    Seen("bce_clamped", "titanic-dnn", "right-at-the-ends", ("binary_cross_entropy", "10.0")),
    Seen(
        "softmax_without_maximum", "mnist-cnn", "right-at-the-ends", ("cross_entropy",), "function",
    ),
    Seen("relu_at_zero", "titanic-dnn", "right-at-the-ends", ("gradient of F.relu",)),
    Seen("save_narrows", "titanic-dnn", "right-at-the-ends", ("torch.save changes",)),
    Seen("state_without_buffers", "titanic-dnn", "right-at-the-ends", ("running_mean",)),
    Seen("rand_skips_a_number", "titanic-dnn", "starts-as-torch-does", ("torch.rand(3) of seed",)),
    Seen(
        "autocast_stale", "titanic-dnn", "same-on-every-execution", ("diverges at step 2",),
        execution="autocast-bf16",
    ),
)  # fmt: skip


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen.fault)
def test_a_wrong_build_is_named(seen: Seen, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    command = [
        sys.executable, "-m", "refimpl", "check", seen.example, "--plugin", str(FAULTS), "-n", "0",
        "--execution", seen.execution, "--results", str(results),
        *(["--check", seen.check] if seen.alone else []),
        *(["--variant", seen.variant] if seen.variant else []),
    ]  # fmt: skip
    environment = {**os.environ, "TORCH_FAULT": seen.fault}
    run = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 1, run.stdout + run.stderr
    records = [json.loads(line) for line in results.read_text().splitlines()]
    failed = [r for r in records if r.get("outcome") == "failed"]
    assert seen.check in {record["check"] for record in failed}
    messages = "\n".join(m["message"] for r in failed for m in r["measurements"])
    for words in seen.said:
        assert words in messages
