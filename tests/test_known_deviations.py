"""The first GPU run, replayed on an emulated device: two findings, or two known deviations."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from refimpl import DataSet, Example, Facts, ModuleVariant, Protocol, Rows, Splits
from refimpl.checking import expectations
from refimpl.checking.checks import Check, Result, cells
from refimpl.checking.expectations import ExpectationsError, ExpectedFailure
from refimpl.checking.recorded import answered
from refimpl.checking.results import not_met, read
from refimpl.composition import compose
from refimpl.conformance.checks import ALL
from refimpl.contract import Execution
from refimpl.data import philox
from refimpl.parity.repair import can_be_repaired, repaired
from refimpl.report.findings import findings, next_steps
from refimpl.report.verdict import sentence

FAKES = Path(__file__).with_name("fakes")
KNOWN = FAKES / "known-deviations.toml"
ASKED = (
    "each-kernel-is-right", "each-layer-is-right", "same-on-every-execution",
    "predicts-as-its-oracle",
)  # fmt: skip


def patches() -> Splits:
    """x (24, 4, 9, 9), and y (24, 1): the mean of the first channel."""
    x = philox("patches").normal(size=(24, 4, 9, 9))
    y = x[:, :1].mean((2, 3))
    return Splits(Rows(x[:16], y[:16]), Rows(x[16:], y[16:]))


def walks() -> Splits:
    """x (24, 5, 3), and y (24, 1): the sum of the last steps."""
    x = philox("walks").normal(size=(24, 5, 3))
    y = x[:, -1].sum(1, keepdims=True)
    return Splits(Rows(x[:16], y[:16]), Rows(x[16:], y[16:]))


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(4, 6, 5), nn.Linear(6, 1)

    def forward(self, x):
        return self.last(self.conv(x).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        return self.last(self.lstm(x)[0][:, -1])


def variant(build, data):
    return ModuleVariant(
        build.__name__.lower(), build=build, optimizer=torch.optim.SGD, data=data,
        protocol=Protocol(epochs=2, learning_rate=0.05, batch_size=8), loss=nn.MSELoss(),
        facts=Facts(parameters=sum(p.numel() for p in build().parameters())),
    )  # fmt: skip


EXAMPLE = Example(
    name="of-the-evidence",
    title="Convolution and recurrence",
    document="tests",
    section="0",
    variants=(
        variant(Convolved, DataSet("patches", patches)),
        variant(Recurrent, DataSet("walks", walks)),
    ),
)


@pytest.fixture
def device(emulated):
    """Gives the emulated devices by name."""
    parts = {part.name: part for part in emulated.refimpl_executions()}
    return lambda name: compose([parts[name]])


def answers(execution: Execution, *entries: ExpectedFailure, asked=ASKED) -> list[Result]:
    checks: list[Check] = [check for check in ALL if check.name in asked]
    own = cells(EXAMPLE, checks, execution, "stand-in", [execution])
    return [expectations.judged(answered(cell), cell, entries) for cell in own]


HEADER = {"device": "cpu", "environment": {"packages": {"torch": "2.11.0"}}}


def test_without_entries_there_are_two_findings_by_name_and_size_and_no_list_of_failures(device):
    results = answers(device("h200"))
    found = findings(results)
    assert len([r for r in results if r.outcome == "failed"]) > len(found)
    assert len(found) == 2, [f.sentence for f in found]
    by_kernel = next(f for f in found if "convolution_backward" in f.sentence)
    assert by_kernel.figure.startswith(
        "aten::convolution_backward, gradient of the weight, (8, 6, 5, 5) × (8, 4, 9, 9) × "
        "(6, 4, 5, 5), float32 on cpu, cuDNN 9.19.0 in step 1: "
    )
    assert 1e-4 < of_the_largest(by_kernel.figure) <= 6.5e-4
    assert times_rounding(by_kernel.figure) > 20
    report = dict(next_steps(by_kernel))["to report it"]
    assert report == ("refimpl reproduce of-the-evidence convolved --execution cpu+h200")
    (other,) = (f for f in found if f is not by_kernel)
    assert other.sentence.startswith("LSTM is ")
    assert other.figure.startswith(
        "LSTM lstm, output, (8, 5, 3), float32 on cpu, cuDNN 9.19.0 in evaluation under no_grad: "
    )
    assert times_rounding(other.figure) > 1


def of_the_largest(figure: str) -> float:
    """The error over the largest value; which element is named depends on how the CPU rounds."""
    return float(figure.partition(" of its largest value")[0].split()[-1])


def times_rounding(figure: str) -> float:
    """How many times what rounding explains."""
    return float(figure.partition(" × what rounding explains")[0].split()[-1])


def test_with_the_entries_it_passes_with_two_known_deviations(device):
    results = answers(device("h200"), *expectations.read(KNOWN))
    assert [r.id for r in results if r.outcome == "failed"] == []
    excused = [r for r in results if r.outcome == "xfailed"]
    assert {name for r in excused for name in r.deviations} == {
        "cuDNN 9.19: aten::convolution_backward", "cuDNN 9.19: LSTM",
    }  # fmt: skip
    assert all(r.reason.startswith("known deviation of cuDNN 9.19: the float32") for r in excused)
    assert all("(reproduce" in r.reason for r in excused)
    assert ", with 2 known deviations of cuDNN 9.19." in sentence(HEADER, results)


def test_an_entry_of_another_version_device_or_kernel_excuses_nothing(device):
    execution = device("h200")
    (of_kernel, _) = expectations.read(KNOWN)
    for change in (
        {"cudnn": "==9.20.*"},
        {"gpu": "NVIDIA A100*"},
        {"capability": "==9.0"},
        {"rocm": ">=6"},
        {"device": "cuda"},
        {"kernel": "aten::mm"},
    ):
        entry = replace(of_kernel, **change)
        results = answers(execution, entry, asked=["each-kernel-is-right"])
        assert "xfailed" not in {r.outcome for r in results}, change
        assert "failed" in {r.outcome for r in results}


def test_a_deviation_does_not_excuse_what_else_is_wrong_in_the_same_check(device):
    def halved(module: nn.Module) -> nn.Module:
        with torch.no_grad():
            module.last.weight.mul_(0.5)
        return module

    execution = replace(device("h200"), wrap=halved)
    results = answers(execution, *expectations.read(KNOWN), asked=["same-on-every-execution"])
    failed = [r for r in results if r.outcome == "failed"]
    assert {r.variant for r in failed} == {"convolved", "recurrent"}
    assert all("put right too" in r.reason for r in failed)


def test_an_entry_that_excuses_nothing_in_a_whole_run_must_be_removed(device):
    entries = expectations.read(KNOWN)
    sound = compose([Execution("h200", "in force, and right")])
    own = list(cells(EXAMPLE, [c for c in ALL if c.name in ASKED], sound, "stand-in", [sound]))
    older = [replace(entry, cudnn="==9.18.*") for entry in entries]
    assert expectations.must_be_met(older, own, []) == []
    must = expectations.must_be_met(entries, own, [])
    assert must == ["cuDNN 9.19: LSTM", "cuDNN 9.19: aten::convolution_backward"]
    assert expectations.must_be_met(entries, own, ["of-the-evidence"]) == []  # not the whole
    named = [replace(entries[0], example="of-the-evidence")]
    assert expectations.must_be_met(named, own, ["of-the-evidence"]) == must[1:]
    absent = replace(sound, missing=lambda: "needs luck")
    away = [replace(c, subject=replace(c.subject, execution=absent)) for c in own]
    assert expectations.must_be_met(entries, away, []) == []

    met = replace(Result("e", "v", "c", "x", "stand-in", "xfailed", "r"), deviations=(must[0],))
    fine = Result("e", "v", "d", "x", "stand-in", "passed")
    header = {**HEADER, "deviations": must}
    assert not_met(header, [met]) == must[1:]
    says = sentence(header, [met, fine])
    assert "1 known deviation was not met with, so that the run fails: cuDNN 9.19: aten::" in says
    assert "Remove the entry" in says


def test_a_check_that_an_entry_of_a_kernel_names_may_not_pass(device):
    (of_kernel, _) = expectations.read(KNOWN)
    named = replace(
        of_kernel, example=EXAMPLE.name, check="each-kernel-is-right", variant="recurrent"
    )
    results = answers(device("h200"), named, asked=["each-kernel-is-right"])
    outcome = {r.variant: r for r in results}
    assert outcome["recurrent"].outcome == "failed"
    assert "expects it to fail" in outcome["recurrent"].reason


def test_a_run_with_a_stale_entry_ends_with_1_and_names_it(tmp_path):
    (tmp_path / "known.toml").write_text(
        '[[expected-failure]]\nkernel = "aten::mm"\nexample = "autograd"\n'
        'reason = "it was off once"\nlink = "reproduce.py"\n'
    )
    file = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "refimpl", "check", "autograd", "-n", "0", "--results",
               str(file), "--expected-failures", str(tmp_path / "known.toml")]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1
    printed = " ".join(ran.stdout.split())
    assert (
        "known deviation was not met with, so that the run fails: aten::mm. Remove the entry"
        in printed
    )
    found = read(file)
    assert not found.passed
    assert "was not met with" in found.why_not_passed
    part = subprocess.run([*command, "--check", "exact-values"], capture_output=True, text=True)
    assert part.returncode == 0, part.stdout  # a part of a run need not meet with it


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('kernel = "aten::mm"\nreason = "r"', "it has no link"),
        ('kernel = "aten::mmm"\nreason = "r"\nlink = "l"', "is no kernel of this torch"),
        ('kernel = "aten::mm"\nreason = "r"\nlink = "l"\ncudnn = "nine"', "cudnn = 'nine' is not"),
        ('reason = "r"\nlink = "l"', "it has no example"),
    ],
)
def test_an_entry_that_is_incomplete_is_refused(tmp_path, text, says):
    path = tmp_path / "trial.toml"
    path.write_text(f"[[expected-failure]]\n{text}\n")
    with pytest.raises(ExpectationsError, match=says):
        expectations.read(path)


def test_a_kernel_and_a_layer_are_put_right():
    assert can_be_repaired("aten::convolution_backward")
    assert can_be_repaired("LSTM")
    assert not can_be_repaired("Lstm")
    layer = nn.LSTM(3, 4)
    x = torch.randn(5, 2, 3)
    exact = layer.double()(x.double())[0]
    layer.float()
    with repaired(compose([Execution("plain", "")]), ["LSTM"]).around():
        made = layer(x)[0]
        made.sum().backward()
    assert torch.equal(made, exact.float())
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


def test_bits_that_change_from_run_to_run_are_found(device):
    results = answers(device("h200-default"), asked=["same-seed-same-bits"])
    outcome = {r.variant: r.outcome for r in results}
    assert outcome == {"convolved": "failed", "recurrent": "passed"}


def test_a_device_without_memory_fails_with_its_message_and_not_with_another(device):
    results = answers(device("out-of-memory"), asked=["same-on-every-execution"])
    assert {r.outcome for r in results} == {"failed"}
    assert all("out of memory" in r.reason and "\n" not in r.reason for r in results)
    assert np.all([r.measurements == () for r in results])
