"""The executions that come with refimpl: the CPU, float64, and any accelerator torch names."""

from __future__ import annotations

from collections.abc import Callable

from refimpl.contract import Execution
from refimpl.hookspecs import hookimpl
from refimpl.problem import CPU
from refimpl.requirements import NEEDS_CUDA

FLOAT64 = Execution("cpu-f64", "the CPU in float64: the oracle of every comparison", dtype="float64")


def on_device(device: str) -> Execution:
    """The execution on one device, by torch's name for it: ``cuda``, ``cuda:1``, ``mps``, ``xpu``."""
    if device == "cpu":
        return CPU
    return Execution(device, f"{device}, in the document's own precision", device, missing=_no(device))


def _no(device: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        import torch

        kind, _, index = device.partition(":")
        if kind == "cuda":
            enough = torch.cuda.device_count() > int(index or 0)
            return None if torch.cuda.is_available() and enough else NEEDS_CUDA
        back_end = getattr(torch, kind, None)
        available = getattr(back_end, "is_available", lambda: False)
        return None if available() else f"needs the device {kind}"

    return missing


@hookimpl
def refimpl_executions() -> list[Execution]:
    """The built-in executions."""
    return [CPU, FLOAT64, on_device("cuda")]
