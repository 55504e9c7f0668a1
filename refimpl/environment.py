"""What a result was measured on: versions, devices, extras."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from refimpl import precision
from refimpl._version import __version__
from refimpl.requirements import EXTRAS, import_error

PACKAGES = (
    "torch", "numpy", "scipy", "scikit-learn", "pandas", "torchinfo", "pluggy", "pytest",
    "pytest-xdist", *EXTRAS,
)  # fmt: skip


def installed(package: str) -> str | None:
    """The installed version of a distribution, or ``None``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Everything that a results file records of the machine, as plain data; raises nothing.

    The switches of precision are as the user has set them. Checks and training put them to IEEE.
    """
    import torch

    return {
        "refimpl": __version__,
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": {name: installed(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "precision": precision.switches(),
        "cuda": torch.version.cuda,
        "devices": devices(),
    }


def devices() -> list[str]:
    """The devices that torch sees, the CPU first."""
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        found += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count)]
    for kind in ("mps", "xpu"):
        back_end = getattr(torch, kind, None)
        if back_end is not None and getattr(back_end, "is_available", lambda: False)():
            found.append(kind)
    return found


def extras() -> dict[str, str]:
    """Each optional package: its version, or why it cannot be imported."""
    return {
        f"{package} ({extra})": import_error(package) or installed(package) or "present"
        for package, extra in EXTRAS.items()
    }
