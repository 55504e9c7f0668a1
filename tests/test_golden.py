"""Golden trajectories are small, exact in float64, and never trusted when stale or damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from refimpl import Execution, Variant
from refimpl.loading import registry
from refimpl.parity import golden

EXAMPLE = registry.load(only=["titanic-dnn"]).example("titanic-dnn")


@pytest.fixture(scope="module")
def titanic() -> Variant:
    return EXAMPLE.variant("script")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A golden folder of this test's own."""
    monkeypatch.setattr(golden, "folder", lambda: tmp_path)
    return tmp_path


def made(titanic: Variant) -> Path:
    (path,) = golden.update([EXAMPLE])
    return path


def test_what_was_just_made_agrees_exactly(folder: Path, titanic: Variant) -> None:
    path = made(titanic)
    comparison = golden.compare_with_golden(EXAMPLE, titanic)
    assert comparison.agrees
    assert comparison.worst_ratio == 0
    assert comparison.steps == golden.STEPS
    assert path.stat().st_size < 64 * 1024


def test_it_is_held_against_the_execution_that_is_asked_about(
    folder: Path, titanic: Variant
) -> None:
    def halved(module: torch.nn.Module) -> torch.nn.Module:
        module.register_forward_hook(lambda module, given, output: output / 2)
        return module

    made(titanic)
    wrong = Execution("wrong", "", wrap=halved)
    comparison = golden.compare_with_golden(EXAMPLE, titanic, wrong)
    assert comparison.divergence is not None
    assert comparison.divergence.step == 1


def test_another_computation_does_not_agree(folder: Path, titanic: Variant) -> None:
    made(titanic)
    slower = replace(titanic, protocol=replace(titanic.protocol, learning_rate=0.01 * 1.00001))
    comparison = golden.compare_with_golden(EXAMPLE, slower)
    assert comparison.divergence is not None
    assert (comparison.divergence.step, comparison.divergence.kind) == (1, "parameter")


def test_what_moves_is_shown_and_not_written_without_a_reason(
    folder: Path, titanic: Variant
) -> None:
    path = made(titanic)
    before = path.read_bytes()
    slower = replace(titanic, protocol=replace(titanic.protocol, learning_rate=0.02))
    other = replace(EXAMPLE, variants=(slower,))
    with pytest.raises(golden.GoldenError, match=r"script, step 1, parameter linear1.*--because"):
        list(golden.update([other]))
    assert path.read_bytes() == before
    assert list(golden.update([other], because="the document has another rate")) == [path]
    with safe_open(path, framework="pt") as stored:
        about = stored.metadata()
    assert about["because"] == "the document has another rate"
    assert "step 1, parameter linear1.bias moves by" in about["moved"]


def test_what_has_not_moved_needs_no_reason(folder: Path, titanic: Variant) -> None:
    assert list(golden.update([EXAMPLE])) == list(golden.update([EXAMPLE]))


def test_a_truncated_file_says_so(folder: Path, titanic: Variant) -> None:
    path = made(titanic)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(golden.GoldenError, match=r"titanic-dnn\.safetensors is truncated"):
        golden.compare_with_golden(EXAMPLE, titanic)


def test_a_changed_number_is_noticed_before_it_is_believed(folder: Path, titanic: Variant) -> None:
    path = made(titanic)
    tensors = load_file(path)
    about = {"format": golden.FORMAT, "contract": "1", "torch": "2.14.1", "digest": "0" * 64}
    save_file(tensors, path, metadata=about)
    with pytest.raises(golden.GoldenError, match="does not have the digest that it states"):
        golden.compare_with_golden(EXAMPLE, titanic)


def test_another_contract_is_refused(folder: Path, titanic: Variant) -> None:
    path = made(titanic)
    save_file(load_file(path), path, metadata={"format": golden.FORMAT, "contract": "0"})
    with pytest.raises(golden.GoldenError, match="is of contract 0"):
        golden.compare_with_golden(EXAMPLE, titanic)


def test_tensors_of_other_names_make_it_stale(folder: Path, titanic: Variant) -> None:
    made(titanic)
    renamed = replace(titanic, names={"linear1.weight": "first.weight"})
    with pytest.raises(golden.GoldenError, match=r"is stale.*gradient first\.weight"):
        golden.compare_with_golden(EXAMPLE, renamed)


@given(st.integers(1, 400), st.integers(0, 399), st.floats(1e-3, 1e3))
def test_a_sketch_sees_any_single_changed_element(size: int, at: int, change: float) -> None:
    before = torch.linspace(-1, 1, size, dtype=torch.float64)
    after = before.clone()
    after[at % size] += change
    assert not torch.allclose(golden.sketch(before), golden.sketch(after), rtol=0, atol=1e-9)
