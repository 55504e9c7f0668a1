"""Inside one step: what goes into and comes out of every module, in the order of the calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from refimpl.composition import CPU
from refimpl.contract import Step, Variant
from refimpl.parity.lockstep import FIRST, Comparison, Rounding, judge
from refimpl.parity.rounding import Rounded, under
from refimpl.training.loop import steps_of
from refimpl.training.problem import Problem
from refimpl.training.trajectories import Observation, bare_name


def first_divergence_inside(
    variant: Variant, candidate: Problem, problem: Problem, step: int, dtype: torch.dtype
) -> str:
    """The first module of a step whose input or output diverges from the oracle's, as text.

    Empty if all modules agree (the step diverges in its loss, its backward pass or its update) or
    if modules cannot be seen: bare tensors, compiled code, other processes.
    """
    if candidate.execution.steps is not None:
        return ""
    oracle = trace(variant, problem.but(precision="float64", execution=CPU), step)
    draws = [trace(variant, under(variant, Rounded(k), problem, k), step) for k in range(FIRST)]
    found = trace(variant, candidate, step)
    keys = {seen.key for seen in found}
    if not oracle or not keys.issuperset(seen.key for seen in oracle):
        return ""
    rounding = Rounding()
    for draw in draws:
        rounding.widen(draw, oracle)
    judged = judge(Comparison("", "", ""), step, found, oracle, rounding, dtype)
    for seen, close in judged:
        if not close.error_ratio <= 1:
            return f"{seen.kind} of {seen.name} ({close.error_ratio:.3g} times its budget)"
    return ""


def trace(variant: Variant, problem: Problem, step: int) -> list[Observation]:
    """Input and output of each leaf module during update ``step`` (from 1), in call order."""
    steps = steps_of(variant, problem, step)
    for _ in range(step - 1):
        next(steps)
    with _recording() as calls:
        seen_step = next(steps)
    names = _names(seen_step)
    seen: list[Observation] = []
    for module, given, made in calls:
        if id(module) in names and not any(module.children()):
            name = names[id(module)]
            again = sum(s.kind == "activation" and s.name.split("#")[0] == name for s in seen)
            label = f"{name}#{again + 1}" if again else name
            if isinstance(given, Tensor):
                seen.append(Observation("input", label, _plain(given)))
            if isinstance(made, Tensor):
                seen.append(Observation("activation", label, _plain(made)))
    return seen


def _names(step: Step) -> dict[int, str]:
    net = step.module
    if net is None:
        return {}
    return {id(module): bare_name(name) for name, module in net.named_modules() if name}


@contextmanager
def _recording() -> Iterator[list[tuple[nn.Module, Any, Any]]]:
    calls: list[tuple[nn.Module, Any, Any]] = []

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():  # the tensors of torch.export have no values
            return
        first = output[0] if isinstance(output, tuple) else output
        calls.append((module, args[0] if args else None, first))

    handle = register_module_forward_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


def _plain(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float64, copy=True)
