"""What a result was measured on: versions, devices, extras."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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
        "libraries": libraries(),
        "driver": driver(),
        "clocks": clocks() if torch.cuda.is_available() else None,
        "devices": devices(),
    }


def libraries() -> dict[str, str]:
    """The versions of the libraries that torch computes with here, as far as it has them."""
    import torch

    found: dict[str, str | None] = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    if torch.cuda.is_available() and torch.version.cuda is not None:
        with suppress(Exception):  # a driver that is gone raises what it likes
            found["cuDNN"] = cudnn_version(torch.backends.cudnn.version() or 0)  # type: ignore[no-untyped-call]
    built = torch.__config__.show()
    for name, pattern in _BUILT_WITH.items():
        version = re.search(pattern, built)
        found[name] = version[1] if version else None
    return {name: version for name, version in found.items() if version}


_BUILT_WITH = {
    "oneDNN": r"(?:MKL-DNN|oneDNN) v([\d.]+)",
    "MKL": r"oneAPI Math Kernel Library Version ([\d.]+)",
}
"""The libraries that a CPU computes with, and what torch says of them."""


def libraries_of(device: str) -> dict[str, str]:
    """Those of :func:`libraries` that a kind of device, ``cpu`` or ``cuda``, computes with."""
    if device not in ("cpu", "cuda"):
        return {}  # what they were built with, torch does not say
    on_cpu = device == "cpu"
    of_device = {name: v for name, v in libraries().items() if (name in _BUILT_WITH) == on_cpu}
    if not onednn_is_on():
        of_device.pop("oneDNN", None)
    return of_device


def onednn_is_on() -> bool:
    """Whether torch was built with oneDNN, and nobody has switched it off."""
    import torch

    return bool(torch._C._has_mkldnn and torch._C._get_mkldnn_enabled())


def cudnn_version(number: int) -> str:
    """``9.19.0`` for 91900, and ``8.9.2`` for 8902: the form changed with cuDNN 9."""
    if not number:
        return ""
    step = 10000 if number >= 90000 else 1000
    return f"{number // step}.{number % step // 100}.{number % 100}"


def driver() -> str | None:
    """The version of NVIDIA's driver, if there is one."""
    version = Path("/proc/driver/nvidia/version")
    try:
        found = re.search(r"Module\D+([\d.]+)", version.read_text())
    except OSError:
        return None
    return found[1] if found else None


def clocks() -> str | None:
    """What the first GPU's clocks are set to, as ``nvidia-smi`` says it."""
    fields = "clocks.sm,clocks.mem,clocks.max.sm,power.limit"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines else None


def capability(device: str) -> str | None:
    """The compute capability of a CUDA device, ``9.0``; ``None`` of any other."""
    import torch

    kind, _, index = device.partition(":")
    if kind != "cuda" or not torch.cuda.is_available() or torch.version.cuda is None:
        return None
    with suppress(Exception):
        major, minor = torch.cuda.get_device_capability(int(index or 0))
        return f"{major}.{minor}"
    return None


def device_name(device: str) -> str:
    """What the device is called: ``NVIDIA H200``, or its kind if torch does not say."""
    import torch

    kind, _, index = device.partition(":")
    name = getattr(getattr(torch, kind, None), "get_device_name", None)
    if kind == "cpu" or name is None:
        return kind
    try:
        return str(name(int(index or 0)))
    except Exception:  # a back end without one raises what it likes
        return kind


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
