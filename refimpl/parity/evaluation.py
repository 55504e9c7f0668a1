"""Predictions in evaluation mode, compared with those of the oracle that has the same parameters.

Each model predicts the same rows three times: while gradients are recorded, under ``no_grad`` and
under ``inference_mode``; at the start of the run and with the parameters at its end. The oracle is
the variant itself in float64 on the CPU, with the candidate's own parameters, and predicts while
gradients are recorded: kernels for predictions alone are what is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from refimpl.composition import CPU, precision_of
from refimpl.contract import Execution, Step, Variant
from refimpl.data import Tier
from refimpl.errors import ContractError
from refimpl.parity.kernel_bounds import dtype_name
from refimpl.parity.kernel_judge import JudgedCall, furthest
from refimpl.parity.rounding import rounding_of
from refimpl.parity.whole_runs import trained
from refimpl.training.kept import Kept
from refimpl.training.loop import steps_of
from refimpl.training.problem import Problem, pose
from refimpl.training.trajectories import bare_name
from refimpl.trees import call, leaves, mapped

ROWS = 16

MODES: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    "evaluation": torch.enable_grad,
    "evaluation under no_grad": torch.no_grad,
    "evaluation under inference_mode": torch.inference_mode,
}

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Model:
    """A variant's model after its first step, its parameters and buffers by their bare names."""

    predict: Callable[[Any], Any]
    module: nn.Module | None
    tensors: State

    def set_to(self, values: State) -> None:
        """Give it other parameters and buffers."""
        with torch.no_grad():
            for name, own in self.tensors.items():
                own.copy_(values[name])

    def evaluated(self, rows: Any) -> list[Tensor]:
        """Its predictions in evaluation mode: a tensor, or each of several."""
        if self.module is None:
            return self._outputs(rows)
        was_training = self.module.training
        self.module.eval()
        try:
            return self._outputs(rows)
        finally:
            self.module.train(was_training)

    def _outputs(self, rows: Any) -> list[Tensor]:
        return [output.detach() for output in leaves(self.predict(rows))]


@dataclass(frozen=True)
class _Oracles:
    """What the oracle predicts with these parameters, and how far rounding may take each."""

    tensors: State
    outputs: list[Tensor]
    bounds: list[float]

    def are_of(self, tensors: State) -> bool:
        """Whether they were made with these parameters."""
        return self.tensors.keys() == tensors.keys() and all(
            torch.equal(self.tensors[name], own) for name, own in tensors.items()
        )


_kept = Kept[_Oracles](8)
"""Of one variant, for several executions."""


def _predicted(oracle: Model, tensors: State, rows: Any, rounding: torch.dtype) -> _Oracles:
    oracle.set_to(tensors)
    with torch.enable_grad():
        outputs = oracle.evaluated(rows)
        bounds = rounding_of(partial(oracle.evaluated, rows), outputs, rounding)
    return _Oracles(tensors, outputs, bounds)


def compare_predictions(variant: Variant, execution: Execution, tier: Tier) -> Iterator[JudgedCall]:
    """How far each prediction is from the oracle's, over what rounding explains."""
    # One step makes the model, on the rows that are predicted.
    posed = pose(variant, tier, dropout=False, horizon=1).shortened(ROWS, 1)
    candidate = posed.but(execution=execution, precision=execution.dtype or "float32")
    exact = posed.but(precision="float64", execution=CPU)
    model, oracle = _model(variant, candidate), _model(variant, exact)
    rounding = precision_of(execution)
    start = {name: torch.as_tensor(value) for name, value in posed.values.items()}
    starting = {**{name: value.clone() for name, value in oracle.tensors.items()}, **start}
    for when, values in (("start", starting), ("end", _end(variant, tier, oracle))):
        model.set_to(values)
        own = {
            name: own.detach().to("cpu", torch.float64, copy=True)
            for name, own in model.tensors.items()
        }
        rows = mapped(partial(_as_read, dtype=candidate.dtype), exact.sample(ROWS))
        predicted = partial(_predicted, oracle, own, rows, rounding)
        oracles = _kept.of(variant, CPU, predicted, tier, when, candidate.dtype, rounding)
        if not oracles.are_of(own):
            oracles = predicted()
        given = candidate.sample(ROWS)
        for mode, entered in MODES.items():
            with execution.around(), entered():
                outputs = model.evaluated(given)
            for found, right, bound in zip(outputs, oracles.outputs, oracles.bounds, strict=True):
                yield replace(
                    furthest(found, right, bound), kernel=f"predictions at the {when} of the run",
                    shapes=tuple(tuple(getattr(leaf, "shape", ())) for leaf in leaves(given)),
                    dtype=dtype_name(found.dtype), device=found.device.type,
                    during=mode,
                )  # fmt: skip


def _as_read(rows: Any, dtype: torch.dtype) -> Any:
    """Rows in float64 as the candidate reads them: with the digits of its own dtype."""
    real = isinstance(rows, Tensor) and rows.is_floating_point()
    return rows.to(dtype).double() if real else rows


def _model(variant: Variant, problem: Problem) -> Model:
    step = next(steps_of(variant, problem, 1), None)
    if step is None or step.model is None:
        raise ContractError(f"variant {variant.name!r} yields no model= to predict with")
    prepare = variant.prepare or (lambda rows: rows)
    model = step.model
    return Model(lambda rows: call(model, prepare(rows)), *_parts(step))


def _parts(step: Step) -> tuple[nn.Module | None, dict[str, Tensor]]:
    tensors: dict[str, Any] = {bare_name(name): own for name, own in step.parameters.items()}
    # What predicts may be a copy of what is trained: an average of its weights.
    model = step.model if isinstance(step.model, nn.Module) else step.module
    if model is None:
        return None, tensors
    seen = set(map(id, tensors.values()))
    own = [*model.named_parameters(), *model.named_buffers()]
    tensors |= {bare_name(name): each for name, each in own if id(each) not in seen}
    return model, tensors


def _end(variant: Variant, tier: Tier, oracle: Model) -> State:
    """Parameters and buffers at the end of the run on the CPU."""
    last = trained(variant, tier, CPU).last
    if last is None:
        raise ContractError(f"variant {variant.name!r} makes no step")
    found = _parts(last)[1]
    return {name: torch.as_tensor(found[name]).detach() for name in oracle.tensors}
