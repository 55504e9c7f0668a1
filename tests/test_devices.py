"""A device gets the same questions as every other; what it cannot do is skipped with the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fakes.sound import EXAMPLE

from refimpl import Execution
from refimpl.capabilities import YES, capabilities, lacks
from refimpl.checking import results
from refimpl.checking.checks import Cell, Subject, equal, run_check
from refimpl.checking.checks import check as check_of
from refimpl.checking.requests import default_executions
from refimpl.composition import CPU
from refimpl.environment import capability, cudnn_version, environment, libraries
from refimpl.reproducible import CUBLAS, WORKSPACE, reproducible

NO_FLOAT64 = Path(__file__).with_name("fakes") / "no_float64.py"
WRONG = """
import torch.nn.functional as F
right = F.linear
F.linear = lambda x, w, b=None: right(x, w, b) * (1.01 if x.dtype is torch.float32 else 1)
"""
REFUSED = (
    "gradient-is-the-slope", "shards-make-the-batch", "golden-trajectory", "updates-as-stated",
)  # fmt: skip


@pytest.fixture
def check(tmp_path):
    """Runs ``refimpl check`` in a Python whose torch knows a device that has no float64."""

    def check(*arguments: str, more: str = "") -> tuple[int, results.Results]:
        (tmp_path / "sitecustomize.py").write_text(NO_FLOAT64.read_text() + more)
        file = tmp_path / "results.jsonl"
        command = [
            sys.executable, "-m", "refimpl", "check", "ring-dnn", "--variant", "high", "-n", "0",
            "--device", "apple", "--results", str(file), *arguments,
        ]  # fmt: skip
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
        return ran.returncode, results.read(file)

    return check


def test_a_device_without_float64_is_compared_and_only_what_needs_it_is_skipped(check):
    status, found = check()
    outcomes = {(r.check, r.execution): (r.outcome, r.reason) for r in found.checks}
    assert [key for key, (outcome, _) in outcomes.items() if outcome == "failed"] == []
    assert status == 0
    assert outcomes["same-on-every-execution", "apple"][0] == "passed"
    assert outcomes["each-kernel-is-right", "apple"][0] == "passed"
    skipped = {check for (check, _), (outcome, _) in outcomes.items() if outcome == "skipped"}
    assert skipped >= {*REFUSED[:3]}
    reasons = {reason for outcome, reason in outcomes.values() if outcome == "skipped"}
    assert reasons <= {"needs float64 on apple", "needs autocast on apple"}
    assert "MPS framework doesn't support float64" in found.header["capabilities"]["float64"]
    assert found.header["capabilities"]["LSTM"] == YES


def test_a_device_whose_linear_layers_are_off_by_a_hundredth_fails(check):
    status, found = check("--check", "same-on-every-execution", more=WRONG)
    assert status == 1
    failed = [r for r in found.checks if r.outcome == "failed"]
    assert {r.execution for r in failed} >= {"apple"}


def test_the_defaults_follow_from_the_device_that_is_named():
    for device in ("cpu", "cuda", "mps", "xpu", "hpu", "privateuseone"):
        names = default_executions(device)
        assert names[0] == device
        assert {f"{device}+f64", f"{device}+bf16", f"{device}+ensemble"} < set(names)


def test_the_cpu_can_do_what_it_is_compared_in():
    found = capabilities("cpu")
    assert {found[name] for name in ("float64", "bfloat16", "autocast", "LSTM", "determinism")} == {
        YES
    }
    assert lacks("cpu", "float64") is None


def test_a_device_that_is_not_here_has_no_capabilities():
    absent = "mps" if sys.platform != "darwin" else "xpu"
    assert capabilities(absent) == {}


def test_the_header_has_the_versions_of_the_libraries():
    assert environment()["libraries"] == libraries()
    assert cudnn_version(91900) == "9.19.0"
    assert cudnn_version(8902) == "8.9.2"


def test_on_an_accelerator_kernels_are_reproducible_and_what_was_set_is_put_back(monkeypatch):
    monkeypatch.delenv(CUBLAS, raising=False)
    before = torch.backends.cudnn.deterministic, torch.are_deterministic_algorithms_enabled()
    with reproducible("cuda"):
        assert torch.backends.cudnn.deterministic
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ[CUBLAS] == WORKSPACE
    assert before == (
        torch.backends.cudnn.deterministic, torch.are_deterministic_algorithms_enabled()
    )  # fmt: skip
    with reproducible("cpu"):
        assert before[1] == torch.are_deterministic_algorithms_enabled()


def test_a_check_on_a_device_runs_with_reproducible_kernels():
    def measure(subject):
        """Is it on?"""
        on = torch.backends.cudnn.deterministic and torch.are_deterministic_algorithms_enabled()
        yield equal("reproducible", on, subject.execution.device != "cpu")

    asked = check_of("asks")(measure)
    for execution in (CPU, Execution("mine", "a device", device="mine")):
        result = run_check(Cell(asked, Subject(EXAMPLE, None, execution, "stand-in")))
        assert result.outcome == "passed", result.reason


def test_a_driver_that_is_gone_leaves_the_header_whole(monkeypatch):
    def gone(*given):
        raise RuntimeError("Found no NVIDIA driver on your system")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", gone)
    monkeypatch.setattr(torch.cuda, "get_device_capability", gone)
    assert "cuDNN" not in libraries()
    assert capability("cuda") is None
