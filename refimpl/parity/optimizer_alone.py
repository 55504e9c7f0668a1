"""An optimizer alone, on a few numbers, as its variant makes it.

Whole runs take torch's fused kernels where there are any; who copies the loop does not.
"""

from __future__ import annotations

import torch
from torch import nn

from refimpl.contract import Variant
from refimpl.parity.judged_updates import JudgedUpdates, Watcher
from refimpl.parity.update_definitions import OF_OPTIMIZERS
from refimpl.parity.whole_runs import chosen
from refimpl.training.problem import Problem

NUMBERS, LONG = 8, 1000
"""How many numbers are updated, and at most how often."""


def judge_alone(variant: Variant, problem: Problem) -> JudgedUpdates:
    """Updates from all of a run of this length with drawn gradients, each by the formula.

    None are judged of an optimizer without a formula.
    """
    if variant.optimizer is None:
        return JudgedUpdates()
    generator = torch.Generator().manual_seed(problem.seed)
    length = min(problem.length, LONG)
    start, *gradients = torch.randn(length + 1, NUMBERS, generator=generator).to(problem.device)
    parameter = nn.Parameter(start)
    optimizer = variant.optimizer([parameter], lr=problem.lr)
    if type(optimizer) not in OF_OPTIMIZERS:
        return JudgedUpdates()
    numbers = chosen(length, NUMBERS, variant.name)
    run = f"{length:,} of {NUMBERS} numbers alone"
    with Watcher(numbers, run=run).watching() as seen:
        for parameter.grad in gradients:
            optimizer.step()
    return seen
