"""A device gets the same questions as every other; what it cannot do is skipped with the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from fakes.sound import EXAMPLE, MODULE

from refimpl import Execution
from refimpl.capabilities import YES, capabilities, lacks
from refimpl.checking import results
from refimpl.checking.checks import (
    VERDICTS,
    Cell,
    Measurement,
    Outcome,
    Result,
    Subject,
    equal,
    run_check,
)
from refimpl.checking.checks import check as check_of
from refimpl.checking.requests import default_executions
from refimpl.composition import CPU, compose
from refimpl.conformance.checks.repetition import spread_by_default
from refimpl.conformance.checks.slopes32 import gradient_is_the_slope_in_float32
from refimpl.environment import (
    capability,
    cudnn_version,
    environment,
    libraries,
    libraries_of,
)
from refimpl.executions.built_in import TF32
from refimpl.parity.kernel_judge import JudgedCall, library_of
from refimpl.report.verdict import sentence
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


def checked(folder, source: str, device: str, *arguments: str) -> tuple[int, results.Results]:
    """Run ``refimpl check`` in a Python whose torch knows the device that ``source`` makes."""
    (folder / "sitecustomize.py").write_text(source)
    file = folder / "results.jsonl"
    command = [
        sys.executable, "-m", "refimpl", "check", "ring-dnn", "--variant", "high", "-n", "0",
        "--device", device, "--results", str(file), *arguments,
    ]  # fmt: skip
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    return ran.returncode, results.read(file)


@pytest.fixture
def check(tmp_path):
    """Runs ``refimpl check`` on a device that has no float64: the CPU under another name."""

    def check(*arguments: str, more: str = "") -> tuple[int, results.Results]:
        return checked(tmp_path, NO_FLOAT64.read_text() + more, "apple", *arguments)

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


PRETENDED = """
import torch
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 1
torch.cuda.get_device_name = lambda index=0: "none at all"
"""


def test_what_the_cpu_computes_is_no_verdict_on_a_device(tmp_path):
    """Facts are computed on the CPU, so that a fault of the device cannot show in them."""
    (tmp_path / "sitecustomize.py").write_text(PRETENDED)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    file = tmp_path / "results.jsonl"
    ran = subprocess.run(
        [sys.executable, "-m", "refimpl", "check", "autograd", "-n", "0", "--device", "cuda",
         "--results", str(file)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    found = results.read(file)
    facts = [r for r in found.checks if r.check not in VERDICTS]
    assert {(r.execution, r.outcome) for r in facts} == {("cpu", "passed")}
    assert ran.returncode == 1
    assert f"nothing was checked on cuda: {len(facts)} checks passed, all on the CPU" in ran.stderr
    says = " ".join(ran.stdout.split())
    assert f"on CUDA: nothing was checked on it. {len(facts)} checks passed on the CPU." in says


def test_the_verdict_on_a_device_counts_what_was_checked_on_the_cpu():
    def passed(check: str, execution: str) -> Result:
        return Result("e", "v", check, execution, "stand-in", "passed")

    both = [passed("a", "cuda"), passed("b", "cuda+bf16"), passed("c", "cpu")]
    header = {"device": "cuda", "environment": {"packages": {"torch": "2.14.1"}}}
    assert "torch 2.14.1 on CUDA does" in sentence(header, both)
    assert "3 checks, 1 of them on the CPU." in sentence(header, both)
    assert "on the CPU." not in sentence({**header, "device": "cpu"}, both)
    assert sentence(header, both[2:]).endswith("on it. 1 check passed on the CPU.")


def test_a_device_whose_linear_layers_are_off_by_a_hundredth_fails(check):
    status, found = check("--check", "same-on-every-execution", more=WRONG)
    assert status == 1
    failed = [r for r in found.checks if r.outcome == "failed"]
    assert {r.execution for r in failed} >= {"apple"}


REAL = NO_FLOAT64.with_name("real_device.py")
in_python = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="needs a torch that takes a device written in Python",
)
OF_A_RUN = (
    "same-on-every-execution", "each-kernel-is-right", "right-at-the-ends", "figures-recomputed",
    "reaches-documented-figures", "same-seed-same-bits", "resumed-run-is-the-same",
)  # fmt: skip


@in_python
def test_a_real_device_without_float64_trains_is_compared_and_its_figures_are_read(tmp_path):
    """No tensor of it is made in float64, not even on the way to the CPU, as ``double()`` would."""
    asked = [word for name in OF_A_RUN for word in ("--check", name)]
    status, found = checked(tmp_path, REAL.read_text(), "pear", *asked)
    outcomes = {(r.check, r.execution): (r.outcome, r.reason) for r in found.checks}
    assert [key for key, (outcome, _) in outcomes.items() if outcome == "failed"] == []
    assert status == 0
    assert {(name, "pear") for name in OF_A_RUN} <= outcomes.keys()
    assert {outcomes[name, "pear"][0] for name in OF_A_RUN} == {"passed"}
    assert outcomes["same-on-every-execution", "pear+ensemble"][0] == "passed"
    assert outcomes["same-on-every-execution", "pear+f64"] == (
        "skipped", "needs float64 on pear"
    )  # fmt: skip


@in_python
def test_a_real_device_whose_products_are_off_by_a_hundredth_fails_with_the_kernel_named(tmp_path):
    wrong = REAL.read_text().replace("FACTOR = 1.0", "FACTOR = 1.01")
    asked = ["--check", "same-on-every-execution", "--check", "each-kernel-is-right"]
    status, found = checked(tmp_path, wrong, "pear", *asked, "--execution", "pear")
    by = {r.check: r for r in found.checks}
    assert status == 1
    assert by["same-on-every-execution"].outcome == "failed"
    assert "aten::addmm, output, " in by["each-kernel-is-right"].reason
    assert "float32 on pear" in by["each-kernel-is-right"].reason


WRONG_BACKWARD = """
import torch.nn.functional as F
right = F.linear
def linear(x, w, b=None):
    return right(x, w * 1.05 - (w * 0.05).detach() if x.dtype is torch.float32 else w, b)
F.linear = linear
"""
"""The forward pass is right; the gradient of the weight is 5 % too large."""

SLOPES = "gradient-is-the-slope-in-float32"


def test_without_float64_gradients_are_compared_with_slopes_in_float32(check):
    status, found = check("--check", SLOPES, "--check", "spread-by-default")
    by = {r.check: r for r in found.checks}
    assert status == 0
    judged = [m for m in by[SLOPES].measurements if m.what.startswith("slope error of")]
    assert judged
    assert max(m.measured for m in judged) < 1
    (spread, without) = by["spread-by-default"].measurements
    assert (spread.measured, without.measured) == (0.0, 0)


def test_a_gradient_that_is_a_twentieth_too_large_fails_by_its_slope_in_float32(check):
    status, found = check("--check", SLOPES, more=WRONG_BACKWARD)
    (slopes,) = (r for r in found.checks if r.check == SLOPES)
    assert status == 1
    assert slopes.outcome == "failed"
    assert "the gradient of fc1.weight is wrong" in slopes.reason


def test_only_a_device_without_float64_is_asked_for_slopes_in_float32():
    on_cpu = Subject(EXAMPLE, EXAMPLE.variants[0], CPU, "stand-in")
    assert not gradient_is_the_slope_in_float32.applies(on_cpu)
    assert not spread_by_default.applies(on_cpu)


def test_how_far_runs_are_apart_by_default_is_a_figure_and_what_has_no_kernel_is_named(emulated):
    parts = {part.name: compose([part]) for part in emulated.refimpl_executions()}
    variant = EXAMPLE.variant(MODULE.name)

    def spread(name: str) -> list[Measurement]:
        subject = Subject(EXAMPLE, variant, parts[name], "stand-in")
        elsewhere = replace(subject, execution=replace(parts[name], device="cpu"))
        return list(spread_by_default.measure(elsewhere))

    with deterministic():
        quiet, warns = spread("no-bfloat16"), spread("not-reproducible")
        restless = spread("restless")
    assert [m.measured for m in quiet] == [0.0, 0]
    assert restless[0].measured > 0
    assert restless[0].holds
    assert restless[0].where
    assert (warns[1].measured, warns[1].where) == (1, "addmm_fake")


@contextmanager
def deterministic():
    """As on an accelerator, where checks ask for reproducible kernels."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_check_that_hangs_is_stopped_with_a_plain_message_and_the_suite_goes_on(tmp_path):
    file = tmp_path / "results.jsonl"
    command = [
        sys.executable, "-m", "pytest", "--pyargs", "refimpl.conformance", "-n", "0",
        "--example", "titanic-dnn", "--plugin", str(NO_FLOAT64.with_name("devices.py")),
        "--execution", "hangs", "--check", "same-on-every-execution",
        "--check", "each-kernel-is-right", "--check", "parameter-count",
        "--timeout", "20", "-p", "no:cacheprovider",
        "--results", str(file),
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, capture_output=True)
    found = results.read(file)
    assert found.complete
    outcomes = {r.check: (r.outcome, r.reason) for r in found.checks if r.variant != "-"}
    assert outcomes["parameter-count"][0] == "passed"
    for name in ("same-on-every-execution", "each-kernel-is-right"):
        outcome, reason = outcomes[name]
        assert outcome == "failed"
        assert reason.startswith("it did not end within 20 s, and was stopped")


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    return import_module("benchmarks.on_a_gpu")


def test_the_script_for_a_gpu_names_every_composition_and_runs_none_in_a_dry_run(
    on_a_gpu, tmp_path, capsys
):
    assert on_a_gpu.main(["--dry-run", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(f"check --device cuda -n auto --results {tmp_path / 'whole.jsonl'}")
    names = {name for name in on_a_gpu.PARTS if any(f"--execution {name} " in x for x in printed)}
    assert names == set(on_a_gpu.PARTS)
    assert names >= {
        "compile", "graphs", "bf16", "fp16", "tf32", "channels-last", "f64", "data-parallel",
        "deterministic",
    }  # fmt: skip
    *checks, timed, last = printed
    assert all("--device cuda -n auto" in line for line in checks)
    assert "--execution tf32-left-on --plugin" in checks[-1]
    assert f"benchmarks.graphs --device cuda --table {tmp_path / 'graphs.md'}" in timed
    assert "reproduce EXAMPLE VARIANT" in last
    assert list(tmp_path.iterdir()) == []


def test_the_script_for_a_gpu_goes_on_after_a_failure_and_reproduces_it(
    on_a_gpu, tmp_path, monkeypatch
):
    ran = []

    def run(command, limit):
        ran.append(command)
        return 1

    monkeypatch.setattr(on_a_gpu, "run", run)
    wrong = Result(
        "titanic-dnn", "script", on_a_gpu.KERNELS, "cuda+f64", "stand-in", "failed", "it is off"
    )
    monkeypatch.setattr(on_a_gpu, "failures", lambda path: [wrong, wrong])
    assert on_a_gpu.main(["--output", str(tmp_path)]) == 1
    assert sum("check" in command for command in ran) == 2 + len(on_a_gpu.PARTS)
    own = [command for command in ran if "reproduce" in command]
    assert len(own) == 1
    assert own[0][3:8] == ["reproduce", "titanic-dnn", "script", "--execution", "cuda+f64"]


def test_tf32_left_on_must_be_found_wherever_a_kernel_is_off(on_a_gpu, capsys, monkeypatch):
    def failed(example: str, check: str, outcome: Outcome = "failed") -> Result:
        return Result(example, "v", check, "cuda+tf32-left-on", "stand-in", outcome)

    sound = [failed("a", on_a_gpu.COMPARED), failed("a", on_a_gpu.KERNELS)]
    without = failed("small", on_a_gpu.COMPARED, "passed")
    assert on_a_gpu.of_tf32([*sound, without]) == (["a/v"], [])
    assert on_a_gpu.of_tf32([*sound, failed("b", on_a_gpu.KERNELS)]) == (["a/v"], ["b/v"])


def test_tf32_left_on_claims_the_precision_that_it_lacks():
    left_on = import_module("benchmarks.tf32_left_on")
    (part,) = left_on.refimpl_executions()
    made = compose([part], "cuda")
    assert made.name == "cuda+tf32-left-on"
    assert (made.dtype, made.rounding) == (None, None)
    assert made.around is not CPU.around
    assert compose([TF32], "cuda").rounding == "tf32"


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


def test_what_is_switched_off_is_not_named_as_what_computes():
    call = JudgedCall("aten::addmm", "", ((2, 3), (3, 4)), "float32", "cpu", 0.1, 1e4, 1.1, 1.0)
    torch._C._set_mkldnn_enabled(False)
    try:
        assert "oneDNN" not in library_of(call)
        assert library_of(replace(call, kernel="aten::convolution")) == ""
    finally:
        torch._C._set_mkldnn_enabled(True)


def test_the_header_has_the_versions_of_the_libraries():
    assert environment()["libraries"] == libraries()
    assert {*libraries_of("cpu")} <= {"oneDNN", "MKL"}
    assert {**libraries_of("cpu"), **libraries_of("cuda")} == libraries()
    assert libraries_of("mps") == {}
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
