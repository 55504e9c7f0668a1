"""The switches of float32 products: recorded as the user set them, IEEE for checks, put back."""

import pytest
import torch
from fakes.sound import EXAMPLE, MODULE

from refimpl import precision
from refimpl.environment import environment
from refimpl.training.loop import steps_of
from refimpl.training.problem import pose

NEW = hasattr(torch.backends, "fp32_precision")
SETTINGS = {
    "as torch begins": lambda: None,
    "matmul in medium": lambda: torch.set_float32_matmul_precision("medium"),
    "cuBLAS in TF32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
}
if NEW:
    SETTINGS |= {
        "all in TF32": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        "cuBLAS alone": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        "oneDNN in bfloat16": lambda: setattr(torch.backends.mkldnn.conv, "fp32_precision", "bf16"),
    }


@pytest.fixture(autouse=True)
def put_back():
    """Leave the switches as they are."""
    before = precision.snapshot()
    yield
    precision.restore(before)
    assert precision.snapshot() == before


@pytest.mark.parametrize("setting", SETTINGS)
def test_whatever_is_set_is_recorded_set_to_ieee_and_put_back(setting):
    SETTINGS[setting]()
    before = precision.snapshot()
    recorded = environment()["precision"]
    assert not any(value.startswith("unreadable") for value in recorded.values())
    with precision.ieee():
        assert set(precision.switches().values()) <= {"ieee", "highest", "False"}
    assert precision.snapshot() == before
    assert environment()["precision"] == recorded


def test_steps_are_made_in_ieee_whatever_is_set():
    SETTINGS["matmul in medium"]()
    variant = EXAMPLE.variant(MODULE.name)
    next(steps_of(variant, pose(variant), 1))
    assert set(precision.switches().values()) <= {"ieee", "highest", "False"}


def test_a_variable_that_overrules_torch_is_recorded(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert precision.switches()["NVIDIA_TF32_OVERRIDE"] == "1"
