"""The switches by which torch makes float32 products with fewer digits: TF32, bfloat16.

Since torch 2.9 each library has a switch of its own, ``fp32_precision``. Older builds have two for
CUDA and one for matrix products. Reading the old ones raises where they contradict the new ones,
so that everything here reads the new ones where there are any.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from refimpl.errors import one_line

NEW_SWITCHES = (
    "generic",
    "cuda.matmul",
    "cudnn",
    "cudnn.conv",
    "cudnn.rnn",
    "mkldnn",
    "mkldnn.matmul",
    "mkldnn.conv",
    "mkldnn.rnn",
)
"""Those of torch 2.9 and later, below ``torch.backends``; an outer one before its inner ones."""

OVERRIDES = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)
"""Variables of the environment by which a library takes another precision than torch asks for."""

IEEE = "ieee"
OLD = "old "
_UNSET = "none"
_UNREADABLE = "unreadable: "


def switches() -> dict[str, str]:
    """What every switch is set to, and the variables that overrule them; raises nothing."""
    found = snapshot()
    new = {name: setting for name, setting in found.items() if not name.startswith(OLD)}
    seen = new or {name.removeprefix(OLD): setting for name, setting in found.items()}
    return seen | {name: os.environ[name] for name in OVERRIDES if name in os.environ}


@contextmanager
def ieee() -> Iterator[None]:
    """Make every float32 product in float32; on leaving, put back what was set before."""
    before = snapshot()
    if set(before.values()) <= {IEEE, "highest", "False"}:
        yield
        return
    set_ieee()
    try:
        yield
    finally:
        restore(before)


def snapshot() -> dict[str, str]:
    """What every switch is set to, old ones too, for :func:`restore`; raises nothing."""
    old = {f"{OLD}{name}": _read(read) for name, (read, _) in _old().items()}
    return {name: _read(lambda n=name: _node(n).fp32_precision) for name in _new()} | old  # type: ignore[misc]


def set_ieee() -> None:
    """Make every float32 product in float32 from now on."""
    for name, (_, write) in _old().items():
        write("highest" if name == "matmul" else "False")
    for name in _new():
        _node(name).fp32_precision = IEEE


def set_tf32() -> None:
    """Let cuBLAS and cuDNN make float32 products in TF32 from now on."""
    if new := _new():
        for name in new:
            if name.startswith(("cuda", "cudnn")):
                _node(name).fp32_precision = "tf32"
        return
    for name, (_, write) in _old().items():
        if name != "matmul":
            write("True")


def restore(before: Mapping[str, str]) -> None:
    """Set every switch to what it was when :func:`snapshot` was called."""
    for name, (_, write) in _old().items():
        setting = before[f"{OLD}{name}"]
        if not setting.startswith(_UNREADABLE):
            write(setting)
    for _ in range(2):  # an inner switch that is unset may unset the outer one
        for name in _new():
            node = _node(name)
            # What merely followed the outer switch goes on following it.
            for setting in (_UNSET, before[name]):
                if node.fp32_precision == before[name]:
                    break
                with contextlib.suppress(RuntimeError, ValueError):
                    node.fp32_precision = setting


def _new() -> list[str]:
    import torch

    if not hasattr(torch.backends, "fp32_precision"):
        return []
    return [name for name in NEW_SWITCHES if hasattr(_node(name), "fp32_precision")]


def _node(name: str) -> Any:
    import torch

    node: Any = torch.backends
    for part in () if name == "generic" else name.split("."):
        node = getattr(node, part, None)
    return node


def _old() -> dict[str, tuple[Callable[[], Any], Callable[[str], None]]]:
    """How to read and write each of the older switches."""
    import torch

    back_ends = torch.backends

    def set_cudnn(setting: str) -> None:
        back_ends.cudnn.allow_tf32 = setting == "True"

    def set_cublas(setting: str) -> None:
        back_ends.cuda.matmul.allow_tf32 = setting == "True"

    return {
        "cudnn.allow_tf32": (lambda: back_ends.cudnn.allow_tf32, set_cudnn),
        "cuda.matmul.allow_tf32": (lambda: back_ends.cuda.matmul.allow_tf32, set_cublas),
        "matmul": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    }


def _read(read: Callable[[], Any]) -> str:
    try:
        return str(read())
    except Exception as error:  # a build that raises where its switches contradict each other
        return f"{_UNREADABLE}{one_line(error)}"
