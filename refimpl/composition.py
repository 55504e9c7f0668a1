"""Executions are composed by name: a device, a precision, wrappers: ``cuda+bf16+compile``.

The parts are :class:`~refimpl.contract.Execution` objects, as plugins give them. Two parts that set
the same thing are refused, and the composed name has one order, however it was written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refimpl.contract import Execution, Variant
from refimpl.errors import RefimplError, UnknownNameError
from refimpl.requirements import NEEDS_CUDA

if TYPE_CHECKING:
    import torch
    from torch import nn

CPU = Execution("cpu", "the CPU, in the document's own precision")

PLAIN = "plain"
"""What is left of the name of an execution that is a device and nothing else."""

RENAMED = {
    "cpu-f64": "cpu+f64",
    "autocast-bf16": "cpu+bf16",
    "autocast-fp16": "cuda+fp16",
    "ddp-gloo-2": "cpu+ddp",
    "ddp-nccl-2": "cuda+ddp",
}
"""Names of executions before they were composed, and what they are now."""

RENAMED_IN_RESULTS = RENAMED | {
    "channels-last": "cuda+channels-last",
    "data-parallel": "cuda+data-parallel",
    "compile": "cpu+compile",
    "ensemble": "cpu+ensemble",
}
"""The same in results files, where a name without a device is an old one."""

DEVICE, PRECISION, STEPS = "the device", "the precision", "how steps are made"
MEMORY_FORMAT, COMPILER, REPLICAS = "the memory format", "the compiler", "the replicas"
WRAPS_IN_ORDER = (MEMORY_FORMAT, None, COMPILER, REPLICAS)
"""What is put around a module, the innermost first; ``None`` stands for any other wrapper."""


class CompositionError(RefimplError):
    """Executions that cannot be composed."""


# --- devices -------------------------------------------------------------------------------------


def on_device(device: str) -> Execution:
    """The execution on a device, by torch's name for it: ``cuda``, ``cuda:1``, ``mps``.

    Raises :class:`UnknownNameError` if torch knows no device of that name.
    """
    if device == "cpu":
        return CPU
    if not is_device(device):
        raise UnknownNameError(
            f"torch does not know a device {device!r}; use torch's names: cpu, cuda, cuda:1, mps …"
        )
    summary = f"{device}, in the document's own precision"
    return Execution(device, summary, device, missing=_Without(device))


def is_device(name: str) -> bool:
    """Whether torch knows a device of that name, whether or not it is here."""
    import torch

    try:
        torch.device(name)
    except RuntimeError:
        return False
    return True


@dataclass(frozen=True)
class _Without:
    """What this machine lacks to run on a device."""

    device: str

    def __call__(self) -> str | None:
        import torch

        kind, _, index = self.device.partition(":")
        back_end = getattr(torch, kind, None)
        available = getattr(back_end, "is_available", lambda: False)()
        count = getattr(back_end, "device_count", lambda: 1)() if available else 0
        if available and count > int(index or 0):
            return None
        return NEEDS_CUDA if kind == "cuda" else f"needs the device {kind}"


# --- names ---------------------------------------------------------------------------------------


def parts_of(name: str) -> tuple[str, ...]:
    """``("cuda", "bf16")`` of ``cuda+bf16``; old names are taken for what they are now."""
    return tuple(RENAMED.get(name, name).split("+"))


def question_of(execution: Execution) -> str:
    """An execution's name without its device: the same question is put to every device."""
    rest = [part for part in parts_of(execution.name) if part != execution.device]
    return "+".join(rest) or PLAIN


def named_in_results(name: str) -> str:
    """The name that an execution in a results file has today."""
    return RENAMED_IN_RESULTS.get(name, name)


def precision_of(execution: Execution) -> torch.dtype:
    """The dtype by whose rounding an execution is judged; TF32 has the digits of float16."""
    import torch

    name = execution.rounding or execution.dtype or "float32"
    dtype: torch.dtype = getattr(torch, {"tf32": "float16"}.get(name, name))
    return dtype


# --- composition ---------------------------------------------------------------------------------


def compose(parts: Sequence[Execution], device: str = "cpu") -> Execution:
    """These parts as one execution, on ``device`` unless one of them sets the device.

    Raises :class:`CompositionError`, in one line, if two parts set the same thing, or one undoes
    what another does.
    """
    asked = "+".join(part.name for part in parts)
    if all(not sets_device(part) for part in parts):
        parts = [on_device(device), *parts]
    setting = _settings(asked, parts)
    where = setting[DEVICE].device
    own = [p.per_device(where) if p.per_device is not None else p for p in parts]
    own = [p.beside(own) if p.beside is not None else p for p in own]
    own.sort(key=_order)
    for part in own:
        wraps = [other.name for other in own if other.wrap is not None]
        if wraps and not part.wrappable:
            raise CompositionError(
                f"{asked}: {part.name} does not call the module that {wraps[0]} wraps, so that "
                "nothing would be tested; use one of them"
            )
    if len(own) == 1:
        return own[0]
    precise = setting.get(PRECISION)
    return dataclasses.replace(
        own[0],
        name="+".join(part.name for part in own),
        summary=", ".join(part.summary for part in own),
        device=where,
        dtype=precise.dtype if precise else None,
        rounding=precise.rounding if precise else None,
        missing=_First(tuple(part.missing for part in own)),
        supports=_All(tuple(part.supports for part in own)),
        unfit=_First(tuple(part.unfit for part in own)),
        wrap=_wraps([part.wrap for part in own if part.wrap is not None]),
        around=_entered([part.around for part in own if part.around is not nullcontext]),
        steps=next((part.steps for part in own if part.steps is not None), None),
        sees_outputs=all(part.sees_outputs for part in own),
        wrappable=all(part.wrappable for part in own),
        sets=tuple(what for part in own for what in part.sets),
        per_device=None,
        beside=None,
    )


def sets_device(part: Execution) -> bool:
    """Whether a part says where to run, so that no other part may."""
    return part.device != CPU.device or part.name == CPU.name


def _sets(part: Execution) -> Iterator[str]:
    if sets_device(part):
        yield DEVICE
    if part.dtype is not None or part.rounding is not None:
        yield PRECISION
    if part.steps is not None:
        yield STEPS
    yield from part.sets


def _settings(asked: str, parts: Sequence[Execution]) -> dict[str, Execution]:
    """Which part sets what; raises if two set the same."""
    setting: dict[str, Execution] = {}
    twice = [part.name for n, part in enumerate(parts) if part.name in {p.name for p in parts[:n]}]
    if twice:
        raise CompositionError(f"{asked}: it names {twice[0]} twice; name it once")
    for part in parts:
        for what in _sets(part):
            other = setting.setdefault(what, part)
            if other is not part:
                raise CompositionError(
                    f"{asked}: {other.name} and {part.name} both set {what}; name one of them"
                )
    return setting


def _order(part: Execution) -> tuple[int, int, str]:
    """Device, precision, wrappers from the inside out, how steps are made, modes."""
    kinds = [*_sets(part)]
    if DEVICE in kinds:
        return 0, 0, part.name
    if PRECISION in kinds:
        return 1, 0, part.name
    if STEPS in kinds:
        return 3, 0, part.name
    if part.wrap is None:
        return 4, 0, part.name
    sort = next((kind for kind in kinds if kind in WRAPS_IN_ORDER), None)
    return 2, WRAPS_IN_ORDER.index(sort), part.name


# Objects and no closures, so that other processes can be sent them.


@dataclass(frozen=True)
class _First:
    """The first reason that any of these gives."""

    each: tuple[Callable[..., str | None], ...]

    def __call__(self, *given: Any) -> str | None:
        return next((reason for one in self.each if (reason := one(*given))), None)


@dataclass(frozen=True)
class _All:
    each: tuple[Callable[[Variant], bool], ...]

    def __call__(self, variant: Variant) -> bool:
        return all(one(variant) for one in self.each)


@dataclass(frozen=True)
class _Wraps:
    each: tuple[Callable[[nn.Module], nn.Module], ...]

    def __call__(self, module: nn.Module) -> nn.Module:
        for one in self.each:
            module = one(module)
        return module


@dataclass(frozen=True)
class _Entered:
    each: tuple[Callable[[], AbstractContextManager[object]], ...]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with ExitStack() as stack:
            for one in self.each:
                stack.enter_context(one())
            yield


def _wraps(
    each: Sequence[Callable[[nn.Module], nn.Module]],
) -> Callable[[nn.Module], nn.Module] | None:
    if len(each) < 2:
        return each[0] if each else None
    return _Wraps(tuple(each))


def _entered(
    each: Sequence[Callable[[], AbstractContextManager[object]]],
) -> Callable[[], AbstractContextManager[object]]:
    if len(each) < 2:
        return each[0] if each else nullcontext
    return _Entered(tuple(each))
