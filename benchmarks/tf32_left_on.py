"""TF32 left on where float32 is claimed: an execution for ``--plugin`` that a check must find."""

from __future__ import annotations

from dataclasses import replace

from refimpl import Execution, hookimpl
from refimpl.executions.built_in import TF32

NAME = "tf32-left-on"


@hookimpl
def refimpl_executions() -> list[Execution]:
    """The part ``tf32`` without the rounding that it owns up to."""
    device = TF32.per_device
    assert device is not None

    def silent(on: str) -> Execution:
        return replace(device(on), name=NAME, rounding=None, per_device=None)

    return [replace(TF32, name=NAME, rounding=None, per_device=silent)]
