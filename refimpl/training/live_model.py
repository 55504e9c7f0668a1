"""Measurements of a variant's live model, from the first step of its own run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from refimpl.composition import CPU
from refimpl.contract import Execution, Step, Variant
from refimpl.data import Tier
from refimpl.errors import ContractError
from refimpl.training.kept import Kept
from refimpl.training.layer_table import Summary, summarise
from refimpl.training.loop import steps_of
from refimpl.training.problem import pose
from refimpl.trees import leaves


@dataclass(frozen=True)
class FirstStep:
    """The first update of a run."""

    step: Step
    parameters: Mapping[str, Tensor]

    @property
    def parameter_count(self) -> int:
        """How many numbers the model has, including those that are not trained."""
        return sum(p.numel() for p in self.parameters.values())

    @property
    def trainable_count(self) -> int:
        """How many of them are trained."""
        if self.step.gradients is not None:
            return sum(p.numel() for p in self.step.gradients.values())
        return sum(p.numel() for p in self.parameters.values() if p.requires_grad)

    @property
    def state_dict_keys(self) -> tuple[str, ...]:
        """The keys of the module's state dict; without a module, the parameters' names."""
        model = self.step.module
        return tuple(model.state_dict() if model is not None else self.parameters)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the output of the first batch; of several, that of the first."""
        first = next((leaf for leaf in leaves(self.step.output) if leaf is not None), None)
        if first is None:
            raise ContractError("the variant yields no output=, so its shape cannot be seen")
        return tuple(first.shape)


def first_step(variant: Variant, tier: Tier, execution: Execution = CPU) -> FirstStep:
    """The first update of a run, not made again for the same variant while it is kept.

    Raises :class:`ContractError` if the variant yields none.
    """
    return _kept.of(variant, execution, lambda: _made(variant, tier, execution), tier)


_kept = Kept[FirstStep](1)


def _made(variant: Variant, tier: Tier, execution: Execution) -> FirstStep:
    step = next(steps_of(variant, pose(variant, tier, execution=execution), 1), None)
    if step is None:
        raise ContractError(f"variant {variant.name!r} never yields a Step")
    parameters = {name: torch.as_tensor(value) for name, value in step.parameters.items()}
    return FirstStep(step, parameters)


def live_summary(variant: Variant, tier: Tier, execution: Execution = CPU) -> Summary:
    """Layer table and sizes of the variant's module, for one row of its data.

    Raises :class:`ContractError` if the variant has no module to tabulate.
    """
    model = first_step(variant, tier, execution).step.module
    if model is None:
        raise ContractError(f"variant {variant.name!r} has no module, so it has no layer table")
    problem = pose(variant, tier, execution=execution)
    sample = problem.sample(1)
    if variant.prepare is not None:
        sample = variant.prepare(sample)
    shape = variant.facts.summary_input if variant.facts else None
    if shape is not None:
        sample = torch.zeros(1, *shape, dtype=sample.dtype, device=sample.device)
    return summarise(model, sample)
