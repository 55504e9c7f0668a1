"""Judges each layer of a model against its definition, with its own inputs and parameters.

Faults above torch's kernels show here: a function of Python, a fused layer, a mode such as
``no_grad``. Each layer is called once more, as the execution would call it, on the input that it
had in the first step: while gradients are recorded, and in evaluation under ``no_grad`` and
``inference_mode``. The bound is what rounding does to the definition in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from refimpl.composition import precision_of
from refimpl.contract import Epoch, Execution, Step, Variant
from refimpl.data import Tier
from refimpl.parity.kernel_bounds import UNITS, by_transforms, dtype_name, of_tiles, summed
from refimpl.parity.kernel_judge import JudgedCall, furthest
from refimpl.parity.layer_definitions import LINEAR, TIED, defined, is_defined, results
from refimpl.parity.rounding import rounding_of
from refimpl.training.loop import drive, steps_of
from refimpl.training.problem import Problem, pose
from refimpl.training.trajectories import bare_name

NUMBERS = 20_000
"""Inputs with more numbers than this are judged by their first rows."""

ROWS = 8

SHORT = 3
"""Rows of a batch so short that a kernel may take another path for it."""

BY_ROWS = (nn.RNNBase, nn.modules.batchnorm._NormBase)
"""Layers whose first axis need not be rows, or that look across rows."""

STATES = ("last hidden state", "last state of the cells")

MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "evaluation under no_grad": torch.no_grad,
    "evaluation under inference_mode": torch.inference_mode,
}


@dataclass
class JudgedLayers:
    """The results of layers, those beyond what rounding explains, and layers without definition.

    ``passed_over`` are layers with a definition that the net does not call.
    """

    judged: list[JudgedCall] = field(default_factory=list)
    undefined: list[str] = field(default_factory=list)
    passed_over: tuple[str, ...] = ()

    @property
    def beyond(self) -> list[JudgedCall]:
        """What rounding does not explain."""
        return [each for each in self.judged if not each.ratio <= 1]


def judge_layers(variant: Variant, execution: Execution, tier: Tier) -> JudgedLayers:
    """Every leaf layer that a run calls, against its definition."""
    found = JudgedLayers()
    rounding = precision_of(execution)
    called = layers_called(variant, execution, tier)
    if variant.build is not None:
        paths = {path for path, _, _ in called}
        layers = variant.build().named_modules()
        defined = [path for path, layer in layers if is_defined(layer) and path not in paths]
        found.passed_over = tuple(defined)
    if execution.wrap is None and rounding == torch.float32:
        called += layers_called_otherwise(variant, execution, tier, called)
    for path, layer, given in called:
        if not is_defined(layer) or not isinstance(given, Tensor):
            found.undefined.append(type(layer).__name__)
            continue
        name = f"{type(layer).__name__} {path}".strip()
        found.judged += judged_layer(layer, name, given, execution, rounding)
    return found


def layers_called(
    variant: Variant, execution: Execution, tier: Tier
) -> list[tuple[str, nn.Module, Any]]:
    """Name, layer and first input of each leaf layer that the first step calls, unwrapped."""
    problem = _unwrapped(variant, execution, tier).but(horizon=1)
    return list(_called(steps_of(variant, problem, 1)).values())


def layers_called_otherwise(
    variant: Variant,
    execution: Execution,
    tier: Tier,
    first: Sequence[tuple[str, nn.Module, Any]],
) -> list[tuple[str, nn.Module, Any]]:
    """The same of what a short run to its end calls with rows of another shape than the first step.

    As a forecast does that is made from longer sequences than those of the training rows.
    """
    known = {(name, _row(given)) for name, _, given in first}
    whole = _called(drive(variant, _unwrapped(variant, execution, tier).short_run(SHORT)))
    return [called for key, called in whole.items() if key not in known]


def _unwrapped(variant: Variant, execution: Execution, tier: Tier) -> Problem:
    return pose(
        variant, tier, execution=replace(execution, wrap=None),
        precision=execution.dtype or "float32", dropout=False,
    )  # fmt: skip


def _called(
    run: Iterator[Step | Epoch],
) -> dict[tuple[str, tuple[int, ...]], tuple[str, nn.Module, Any]]:
    """The first call of each leaf layer with rows of each shape: its name, the layer, its input."""
    module: nn.Module | None = None
    with recording() as calls:
        for seen in run:
            module = seen.module if isinstance(seen, Step) else module
    names = {} if module is None else {id(m): bare_name(n) for n, m in module.named_modules()}
    found: dict[tuple[str, tuple[int, ...]], tuple[str, nn.Module, Any]] = {}
    for layer, given in calls:
        if id(layer) in names:
            key = (names[id(layer)], _row(given))
            found.setdefault(key, (names[id(layer)], layer, given))
    return found


def _row(given: Any) -> tuple[int, ...]:
    """The shape of a row of an input."""
    return tuple(given.shape[1:]) if isinstance(given, Tensor) else ()


def as_executed(layer: nn.Module, execution: Execution) -> nn.Module:
    """A layer as the execution would run it."""
    return layer if execution.wrap is None else execution.wrap(layer)


def judged_layer(
    layer: nn.Module, name: str, given: Tensor, execution: Execution, rounding: torch.dtype
) -> Iterator[JudgedCall]:
    """The results of one layer with an input that it was given, each against its definition."""
    x = given.detach()
    if x.numel() > NUMBERS and not isinstance(layer, BY_ROWS):
        x = x[:ROWS]
    was_training = layer.training
    own = {
        key: value.detach().to("cpu", torch.float64, copy=True)
        for key, value in layer.named_parameters()
    }
    wide = x.to("cpu", torch.float64) if x.is_floating_point() else x.to("cpu")
    exact, *states = right = results(layer, own, wide)
    terms = _terms(layer, wide, exact)
    allowed, *limits = _allowed(
        layer, right, rounding, terms, lambda size: results(layer, *_of(size, own, wide))
    )
    unit = torch.finfo(rounding).eps
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)) and by_transforms(x.device.type, unit):
        allowed = allowed + of_tiles(defined(layer, *_of(True, own, wide)), unit / 2)

    def call(
        during: str, role: str, found: Tensor, expected: Tensor, bound: Tensor | float
    ) -> JudgedCall:
        bare = furthest(found, expected, bound)
        return replace(
            bare, kernel=name, role=role, shapes=(tuple(x.shape),),
            dtype=dtype_name(found.dtype), device=found.device.type, during=during,
        )  # fmt: skip

    called = as_executed(layer, execution)
    try:
        called.eval()
        for mode, entered in MODES.items():
            with execution.around(), entered():
                made = called(x)
            yield call(mode, "output", _first(made), exact, allowed)
        if isinstance(layer, nn.RNNBase):
            found = made[1] if isinstance(layer, nn.LSTM) else [made[1]]
            for role, *state in zip(STATES, found, states, limits, strict=False):
                yield call(mode, role, *state)
        called.train(was_training)
        yield from _with_gradients(
            called, layer, own, x, wide, exact, allowed, execution, rounding, call
        )
    finally:
        called.train(was_training)


def _with_gradients(
    called: nn.Module,
    layer: nn.Module,
    own: dict[str, Tensor],
    x: Tensor,
    wide: Tensor,
    exact: Tensor,
    allowed: Tensor | float,
    execution: Execution,
    rounding: torch.dtype,
    call: Callable[..., JudgedCall],
) -> Iterator[JudgedCall]:
    """The output while gradients are recorded, and the gradients of input and parameters."""
    leaf = x.clone().requires_grad_() if x.is_floating_point() else x
    parameters = {key: value for key, value in layer.named_parameters() if value.requires_grad}
    leaves = [leaf] if leaf.requires_grad else []
    generator = torch.Generator().manual_seed(0)
    into = torch.randn(exact.shape, generator=generator, dtype=torch.float64).float().double()
    gradients: tuple[Tensor, ...] = ()
    differentiable = bool(leaves or parameters) and not isinstance(layer, TIED)
    with execution.around(), torch.enable_grad():
        made = _first(called(leaf))
        if differentiable:
            wanted_of = [*leaves, *parameters.values()]
            into_made = into.to(made.device, made.dtype)
            gradients = torch.autograd.grad(made, wanted_of, into_made, allow_unused=True)
            gradients = tuple(
                torch.zeros_like(own) if gradient is None else gradient
                for own, gradient in zip(wanted_of, gradients, strict=True)
            )
    yield call("training", "output", made, exact, allowed)
    if not differentiable:
        return
    into = into.to(made.dtype).double()  # as the layer got it

    def backward(size: bool = False) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            values, start = _of(size, own, wide)
            values = {key: value.clone().requires_grad_() for key, value in values.items()}
            start = start.clone().requires_grad_() if start.is_floating_point() else start
            wanted = [*([start] if leaves else []), *(values[key] for key in parameters)]
            flow = into.abs() if size else into
            return torch.autograd.grad(defined(layer, values, start), wanted, flow)

    expected = list(backward())
    limits = _allowed(layer, expected, rounding, _terms(layer, wide, exact), backward)
    roles = [
        *(["gradient of the input"] if leaves else []),
        *(f"gradient of {k}" for k in parameters),
    ]
    padding = getattr(layer, "padding_idx", None)
    for role, found, right, bound in zip(roles, gradients, expected, limits, strict=True):
        if padding is not None:
            right = right.clone()
            right[padding] = 0  # its row does not learn
        yield call("training", role, found, right, bound)


def _of(size: bool, own: dict[str, Tensor], x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Parameters and input, or their magnitudes."""
    if not size:
        return own, x
    magnitude = x.abs() if x.is_floating_point() else x
    return {key: value.abs() for key, value in own.items()}, magnitude


def _terms(layer: nn.Module, given: Tensor, made: Tensor) -> float:
    """How many terms the longest sum has in the layer's output and in its gradients."""
    weight = getattr(layer, "weight", None)
    if isinstance(layer, nn.Embedding):
        return float(given.numel())
    if not isinstance(weight, Tensor):
        return given.numel() / max(made.numel(), 1)
    outward, rows = weight.numel() / weight.shape[1], made.numel() / weight.shape[0]
    return max(weight[0].numel(), outward, rows)


def _allowed(
    layer: nn.Module,
    exact: Sequence[Tensor],
    rounding: torch.dtype,
    terms: float,
    compute: Callable[[bool], Sequence[Tensor]],
) -> Sequence[Tensor | float]:
    """How far rounding may take each tensor; ``compute(True)`` is of magnitudes.

    ``terms`` is the length of the longest sum among them.
    """
    half = torch.finfo(rounding).eps / 2
    if isinstance(layer, LINEAR):
        return [
            summed(terms, size, half) + UNITS * half * one.abs()
            for size, one in zip(compute(True), exact, strict=True)
        ]
    if isinstance(layer, nn.RNNBase):
        return rounding_of(lambda: compute(False), exact, rounding)
    exactly = 0.0 if isinstance(layer, (nn.ReLU, nn.Flatten, nn.Embedding, *TIED)) else 1.0
    return [UNITS * half * (one.abs() + exactly) for one in exact]


def _first(made: Any) -> Tensor:
    own: Tensor = made[0] if isinstance(made, tuple) else made
    return own


@contextmanager
def recording(kind: type[nn.Module] = nn.Module) -> Iterator[list[tuple[nn.Module, Any]]]:
    """Every leaf module of this kind that is called, and a copy of its first input."""
    calls: list[tuple[nn.Module, Any]] = []

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given = args[0] if args else None
        if any(module.children()) or not isinstance(module, kind):
            return
        calls.append((module, given.detach().clone() if isinstance(given, Tensor) else given))

    handle = register_module_forward_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()
