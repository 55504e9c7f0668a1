"""Asks an accelerator for kernels that give the same bits in every run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACE = ":4096:8"
"""A workspace with which cuBLAS adds up in one order; read when torch first calls it."""


@contextmanager
def reproducible(device: str) -> Iterator[None]:
    """Reproducible kernels on ``device``, where there are any; on the CPU nothing is changed.

    Torch warns of each operation that has none, by name; it runs all the same. What was set before
    is put back.
    """
    if device == "cpu":
        yield
        return
    import torch

    os.environ.setdefault(CUBLAS, WORKSPACE)
    cudnn = torch.backends.cudnn
    mode = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    of_cudnn, benchmark = cudnn.deterministic, cudnn.benchmark
    if not mode:
        torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode, warn_only=warn)
        cudnn.deterministic, cudnn.benchmark = of_cudnn, benchmark


@contextmanager
def by_default() -> Iterator[None]:
    """The kernels that torch takes if nothing is asked for; what was set before is put back."""
    import torch

    cudnn = torch.backends.cudnn
    mode = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    of_cudnn = cudnn.deterministic
    torch.use_deterministic_algorithms(False)
    cudnn.deterministic = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode, warn_only=warn)
        cudnn.deterministic = of_cudnn


def irreproducible(texts: Iterable[str]) -> list[str]:
    """The operations that torch's warnings name as having no reproducible kernel."""
    found = (_NO_KERNEL.search(text) for text in texts)
    return sorted({match[1] for match in found if match is not None})


_NO_KERNEL = re.compile(r"(\S+) does not have a deterministic implementation")
