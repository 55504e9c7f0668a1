"""What code may change for everything that runs after it in the same process.

A default dtype, a grad mode or a working folder that one plugin leaves behind changes what the next
check computes. :func:`kept` puts everything back and says what was changed; :func:`strange` says
what is not as torch has it when a program begins.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from refimpl import precision
from refimpl.errors import RefimplError

OF_LIBRARIES = ("PYTEST_", "TORCH", "PYTORCH", "TRITON", "KMP_", "__KMP", "CUDA_", "NCCL_", "GLOO_")
"""How variables begin that pytest, torch and its compilers set for themselves, some late."""


@dataclass(frozen=True)
class Setting:
    """Something global: its name, how to read it, and how to put it back.

    ``of_libraries`` says that a library may well change it when it is first imported.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    of_libraries: bool = False


@dataclass
class Changes:
    """What was changed between entering and leaving; complete once it is left."""

    found: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return ", ".join(self.found)


@contextmanager
def kept() -> Iterator[Changes]:
    """Put every setting and generator back on leaving, and say which settings were changed.

    A generator that has been drawn from, or seeded, is put back without a word: that is its use.
    What a library sets while it is imported is put back too, and nobody is blamed for it.
    """
    settings = _settings()
    before = [setting.read() for setting in settings]
    generators, modules = _generators(), set(sys.modules)
    changes = Changes()
    try:
        yield changes
    finally:
        for setting, value in zip(settings, before, strict=True):
            now = setting.read()
            if now != value:
                setting.write(value)
                if not (setting.of_libraries and _packages(sys.modules) - _packages(modules)):
                    changes.found.append(f"{setting.name}{_from_to(value, now)}")
        for write, state in generators:
            write(state)


def strange() -> list[str]:
    """What is not as torch has it when a program begins, each with its value."""
    import torch

    found = []
    if torch.get_default_dtype() != torch.float32:
        found.append(f"torch's default dtype is {torch.get_default_dtype()}")
    if (device := _default_device()) != "cpu":
        found.append(f"torch's default device is {device}")
    if not torch.is_grad_enabled():
        found.append("gradients are turned off (torch.set_grad_enabled)")
    if torch.is_inference_mode_enabled():
        found.append("inference mode is on")
    if "True" in _autocast():
        found.append("autocast is on")
    if _subnormals() == "to zero":
        found.append(
            "subnormal numbers are flushed to zero (torch.set_flush_denormal, -ffast-math)"
        )
    return found


def require_ordinary() -> None:
    """Raise :class:`RefimplError` if a run would begin with anything that :func:`strange` names."""
    if found := strange():
        raise RefimplError(
            f"{' and '.join(found)}, before any check has run: the documents' programs expect "
            "what torch begins with; look for what sets it (sitecustomize.py, a conftest.py, the "
            "calling program) and take it out"
        )


def _packages(modules: Iterable[str]) -> set[str]:
    """Of what has been imported, the packages, two levels deep."""
    return {".".join(name.split(".", 2)[:2]) for name in tuple(modules)}


def _from_to(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = {n for n in {*before, *now} if before.get(n) != now.get(n)}
        return f" ({', '.join(sorted(changed))})"
    short = (str, int, float, bool)
    plain = isinstance(before, short) and isinstance(now, short)
    return f" ({before} → {now})" if plain and len(f"{before}{now}") < 200 else ""


# --- what there is -------------------------------------------------------------------------------


def _settings() -> list[Setting]:
    import numpy as np
    import torch

    return [
        Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        Setting("torch's default device", _default_device, _set_default_device),
        Setting("torch's grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
        Setting("torch's deterministic mode", _deterministic, _set_deterministic),
        Setting("cuDNN's deterministic mode", _cudnn, _set_cudnn),
        Setting("autograd's anomaly mode", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
        Setting("torch's autocast", _autocast, _set_autocast),
        Setting("how subnormal numbers are rounded", _subnormals, _set_subnormals, True),
        Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
        Setting("the precision of float32 products", precision.snapshot, precision.restore),
        Setting("torch's print options", _torch_printing, _set_torch_printing),
        Setting("NumPy's print options", np.get_printoptions, lambda o: np.set_printoptions(**o)),
        Setting("NumPy's handling of errors", np.geterr, lambda o: np.seterr(**o)),
        Setting("the filters of warnings", _filters, _set_filters, of_libraries=True),
        Setting("the working folder", _folder, _set_folder),
        Setting("the environment's variables", _variables, _set_variables, of_libraries=True),
    ]


def _default_device() -> str:
    import torch

    if hasattr(torch, "get_default_device"):
        return str(torch.get_default_device())
    return str(torch.empty(0).device)


def _set_default_device(device: str) -> None:
    import torch

    torch.set_default_device(None if device == "cpu" else device)


def _deterministic() -> str:
    import torch

    if not torch.are_deterministic_algorithms_enabled():
        return "off"
    return "warn" if torch.is_deterministic_algorithms_warn_only_enabled() else "on"


def _set_deterministic(mode: str) -> None:
    import torch

    torch.use_deterministic_algorithms(mode != "off", warn_only=mode == "warn")


def _cudnn() -> str:
    import torch

    cudnn = torch.backends.cudnn
    return f"enabled={cudnn.enabled} benchmark={cudnn.benchmark} {cudnn.deterministic}"


def _set_cudnn(state: str) -> None:
    import torch

    enabled, benchmark, deterministic = (part.endswith("True") for part in state.split())
    cudnn = torch.backends.cudnn
    cudnn.enabled, cudnn.benchmark, cudnn.deterministic = enabled, benchmark, deterministic


def _autocast() -> str:
    import torch

    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4 and later
        return f"{torch.is_autocast_enabled('cuda')} {torch.is_autocast_enabled('cpu')}"
    return f"{torch.is_autocast_enabled()} {torch.is_autocast_cpu_enabled()}"


def _subnormals() -> str:
    import torch

    try:
        smallest = torch.tensor(torch.finfo(torch.float32).tiny, dtype=torch.float32, device="cpu")
        return "to zero" if float(smallest / 2) == 0 else "kept"
    except Exception:  # what torch cannot compute, the checks say
        return "kept"


def _set_subnormals(mode: str) -> None:
    import torch

    torch.set_flush_denormal(mode == "to zero")


def _set_autocast(state: str) -> None:
    import torch

    cuda, cpu = (part == "True" for part in state.split())
    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4 and later
        torch.set_autocast_enabled("cuda", cuda)
        torch.set_autocast_enabled("cpu", cpu)
    else:
        torch.set_autocast_enabled(cuda)
        torch.set_autocast_cpu_enabled(cpu)


def _torch_printing() -> dict[str, Any]:
    import torch

    return dict(vars(torch._tensor_str.PRINT_OPTS))


def _set_torch_printing(options: dict[str, Any]) -> None:
    import torch

    for name, value in options.items():
        setattr(torch._tensor_str.PRINT_OPTS, name, value)


def _filters() -> list[Any]:
    return list(warnings.filters)


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    with suppress(AttributeError):  # CPython's: what was decided by the others is forgotten
        warnings._filters_mutated()  # type: ignore[attr-defined]


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _set_folder(folder: str) -> None:
    if folder:
        os.chdir(folder)


def _variables() -> dict[str, str]:
    return {n: value for n, value in os.environ.items() if not n.startswith(OF_LIBRARIES)}


def _set_variables(variables: dict[str, str]) -> None:
    for name in _variables().keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _generators() -> list[tuple[Callable[[Any], object], Any]]:
    """Every global generator's state, with what puts it back."""
    import numpy as np
    import torch

    found: list[tuple[Callable[[Any], object], Any]] = [
        (torch.set_rng_state, torch.get_rng_state()),
        (np.random.set_state, np.random.get_state()),
        (random.setstate, random.getstate()),
    ]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    return found
