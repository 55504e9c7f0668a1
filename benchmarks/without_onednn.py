"""A plugin that turns oneDNN off, so that torch's other kernels of the CPU are used."""

from __future__ import annotations

import torch

from refimpl import Execution, hookimpl

torch._C._set_mkldnn_enabled(False)


@hookimpl
def refimpl_executions() -> list[Execution]:
    """No execution of its own is compared: those that are there run without oneDNN."""
    return [Execution("without-onednn", "the CPU without oneDNN", supports=lambda variant: False)]
