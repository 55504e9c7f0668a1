"""What a device can do, found by trying it once in a process."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

YES = "yes"


@cache
def capabilities(device: str) -> dict[str, str]:
    """``yes`` for each thing that this device can do, or torch's reason why not; raises nothing.

    Float64, bfloat16 and autocast, an LSTM forward and back, an operation in deterministic mode,
    streams and graphs. Empty if there is no such device here.
    """
    from refimpl.composition import on_device

    if on_device(device).missing() is not None:
        return {}
    return {name: _tried(probe, device) for name, probe in _PROBES.items()}


def lacks(device: str, what: str) -> str | None:
    """``needs float64 on mps`` if the device cannot do it, for a skip; ``None`` if it can."""
    if capabilities(device).get(what, YES) == YES:
        return None
    return f"needs {what} on {device.partition(':')[0]}"


def _tried(probe: Callable[[str], object], device: str) -> str:
    try:
        return YES if probe(device) is not False else "no"
    except Exception as error:  # a back end may raise anything
        return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _multiplies(dtype: str) -> Callable[[str], object]:
    def probe(device: str) -> bool:
        import torch

        own: torch.dtype = getattr(torch, dtype)
        x = torch.ones(4, 4, dtype=own).to(device)
        return bool((x @ x).to("cpu").sum() == 64) and x.dtype == own

    return probe


def _lstm(device: str) -> object:
    import torch

    with torch.random.fork_rng(devices=[]):
        layer = torch.nn.LSTM(2, 2).to(device)
    return layer(torch.ones(3, 1, 2).to(device))[0].sum().backward()


def _deterministic(device: str) -> object:
    import torch

    before = torch.get_deterministic_debug_mode()
    # torch.use_deterministic_algorithms imports all of torch's compiler, which takes seconds.
    torch.set_deterministic_debug_mode("error")
    try:
        x = torch.ones(1, 1, 4, 4).to(device).requires_grad_()
        weight = torch.ones(1, 1, 2, 2).to(device).requires_grad_()
        return torch.nn.functional.conv2d(x, weight).sum().backward()  # type: ignore[no-untyped-call]
    finally:
        torch.set_deterministic_debug_mode(before)


def _autocast(device: str) -> object:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        autocast = torch.autocast(device.partition(":")[0], torch.bfloat16)
        with autocast:
            return autocast._enabled  # a device that cannot leaves it off, and warns


def _has(name: str) -> Callable[[str], object]:
    def probe(device: str) -> bool:
        import torch

        return hasattr(getattr(torch, device.partition(":")[0], None), name)

    return probe


_PROBES: dict[str, Callable[[str], object]] = {
    "float64": _multiplies("float64"),
    "bfloat16": _multiplies("bfloat16"),
    "float16": _multiplies("float16"),
    "autocast": _autocast,
    "LSTM": _lstm,
    "determinism": _deterministic,
    "streams": _has("Stream"),
    "graphs": _has("CUDAGraph"),
}
