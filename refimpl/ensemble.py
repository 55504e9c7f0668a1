"""Many seeds of one variant at once, by ``torch.func``: every parameter gets a leading seed axis.

Only what a variant says of itself by ``build``, ``optimizer`` and ``loss`` is used, and only where
every operation of the module can be vmapped (``nn.LSTM`` cannot). Element-wise optimizers work on
stacked parameters as they do on single ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from refimpl.contract import Step, Variant
from refimpl.errors import ContractError
from refimpl.problem import Problem, start_values

MEMBERS = 3
"""How many seeds the ensemble execution trains beside each other."""


def suits(variant: Variant) -> bool:
    """Whether a variant says enough of itself to be trained many seeds at a time."""
    parts = (variant.build, variant.optimizer, variant.loss)
    return None not in parts and not _recurrent(variant)


def _recurrent(variant: Variant) -> bool:
    """``nn.RNNBase`` has no batching rule (pytorch#105982)."""
    assert variant.build is not None
    return any(isinstance(module, nn.RNNBase) for module in variant.build().modules())


def ensemble_steps(variant: Variant, problem: Problem) -> Iterator[Step]:
    """The run of ``problem`` as the first member of an ensemble; the others have other seeds."""
    others = [
        problem.but(seed=problem.seed + k, values=start_values(variant, problem.seed + k))
        for k in range(1, MEMBERS)
    ]
    for steps in train_together(variant, [problem, *others]):
        yield steps[0]


def train_together(variant: Variant, problems: Sequence[Problem]) -> Iterator[list[Step]]:
    """Train one model for each problem, all in the same tensors; a step of each at a time.

    The problems differ in seed and start only. Raises :class:`ContractError` where the variant
    does not say how it is built, updated and judged.
    """
    if variant.build is None or variant.optimizer is None or variant.loss is None:
        raise ContractError(f"variant {variant.name!r} needs build=, optimizer= and loss=")
    loss_of, prepare = variant.loss, variant.prepare
    members = [problem.load(variant.build()) for problem in problems]
    skeleton = members[0]
    stacked = {
        name: torch.stack([dict(m.named_parameters())[name].detach() for m in members])
        for name, _ in skeleton.named_parameters()
    }
    trained = {n for n, p in skeleton.named_parameters() if p.requires_grad}
    for name in trained:
        stacked[name].requires_grad_()
    buffers = {
        name: torch.stack([dict(m.named_buffers())[name] for m in members])
        for name, _ in skeleton.named_buffers()
    }
    optimizer = variant.optimizer([stacked[n] for n in stacked if n in trained], lr=problems[0].lr)

    def loss_and_output(
        own: dict[str, Tensor], fixed: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        output = functional_call(skeleton, {**own, **fixed}, (x,))
        return loss_of(output, y), output

    each: Any = vmap(grad_and_value(loss_and_output, has_aux=True), randomness="different")
    streams = [problem.batches() for problem in problems]
    for batches in islice(zip(*streams, strict=True), problems[0].horizon):
        x = torch.stack([xb for xb, _ in batches])
        y = torch.stack([yb for _, yb in batches])
        if prepare is not None:
            x = torch.stack([prepare(xb) for xb in x])
        own = {name: stacked[name].detach() for name in stacked if name in trained}
        fixed = {**{n: stacked[n] for n in stacked if n not in trained}, **buffers}
        gradients, (losses, outputs) = each(own, fixed, x, y)
        for name, gradient in gradients.items():
            stacked[name].grad = gradient
        optimizer.step()
        yield [
            Step(
                losses[k],
                {name: tensor[k] for name, tensor in stacked.items()},
                outputs[k],
                y[k],
                gradients={name: gradient[k] for name, gradient in gradients.items()},
            )
            for k in range(len(problems))
        ]
