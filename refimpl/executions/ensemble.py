"""Many seeds of one variant at once, by ``torch.func``: every parameter gets a leading seed axis.

It uses only a variant's ``build``, ``optimizer`` and ``loss``, and works only if every operation of
the module can be vmapped (``nn.LSTM`` cannot). Element-wise optimizers work on stacked parameters
as they do on single ones.

This trains the program that a variant declares, not the loop that it wrote. So it is an execution
that is compared with that loop step by step, and a way to make many runs for a baseline; a check of
the variant itself trains the variant itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from refimpl.contract import Step, Variant
from refimpl.data import Tier
from refimpl.errors import ContractError
from refimpl.requirements import NEEDS_ARRAYS
from refimpl.training import fast_kernels
from refimpl.training.ladder import to_ladder
from refimpl.training.loop import EpochRecord, History, few_parameters, mean, swiftly, train
from refimpl.training.problem import Problem, pose, start_values

MEMBERS = 2
"""How many seeds the ensemble execution trains together: one that is compared, and one whose
numbers must not leak into it."""

OFTEN = 25
"""Batches of one shape after which their operations are traced, which takes as long as they do."""

WIDE = 1000
"""How many elements a weight must have for its layer to be computed as ``W xᵀ``."""


def supports(variant: Variant) -> bool:
    """Whether a variant declares what is needed to train many of its seeds at once."""
    parts = (variant.build, variant.optimizer, variant.loss, variant.protocol, variant.data)
    if None in parts or variant.collate is not None:
        return False
    # Recurrent layers have no batching rule (pytorch#105982), nor have sparse gradients.
    if variant.has_layer(nn.RNNBase) or _sparse(variant):
        return False
    return _updates_plainly(variant)


def unfit(variant: Variant) -> str | None:
    """Why a variant that declares what is needed cannot be trained so: its rows are not arrays."""
    assert variant.data is not None
    rows = variant.data.load("stand-in").train
    arrays = isinstance(rows.x, np.ndarray) and isinstance(rows.y, np.ndarray)
    return None if arrays else NEEDS_ARRAYS


def _sparse(variant: Variant) -> bool:
    assert variant.build is not None
    return any(getattr(layer, "sparse", False) for layer in variant.build().modules())


def _updates_plainly(variant: Variant) -> bool:
    """Whether each batch makes one update, with its gradients as they are."""
    protocol, data = variant.protocol, variant.data
    assert protocol is not None
    assert data is not None
    plain = (protocol.accumulate, protocol.clip, protocol.schedule, protocol.stop)
    return plain == (1, None, None, None) and data.batches is None


# --- step by step --------------------------------------------------------------------------------


def ensemble_steps(variant: Variant, problem: Problem) -> Iterator[Step]:
    """The run of ``problem`` as the first member of an ensemble; the others have other seeds."""
    others = [
        problem.but(seed=problem.seed + k, values=start_values(variant, problem.seed + k))
        for k in range(1, MEMBERS)
    ]
    together = Ensemble(variant, [problem, *others])
    return (together.member(0, update) for update in together.updates())


@dataclass(frozen=True)
class Judged:
    """One batch of every member: losses (members,), outputs (members, N, …), metrics (members,).

    Targets have the members' axis only if the members have not all read the same rows.
    """

    losses: Tensor
    outputs: Tensor
    metrics: Mapping[str, Tensor]
    targets: Tensor
    shared: bool

    def detached(self) -> Judged:
        """The same, detached from the graph."""
        metrics = {name: scores.detach() for name, scores in self.metrics.items()}
        return replace(
            self, losses=self.losses.detach(), outputs=self.outputs.detach(), metrics=metrics
        )


class Ensemble:
    """One model for each problem, all in the same tensors.

    The problems differ only in seed and start. Raises :class:`ContractError` if the variant lacks
    ``build``, ``optimizer`` or ``loss``.
    """

    def __init__(self, variant: Variant, problems: Sequence[Problem]) -> None:
        if variant.build is None or variant.optimizer is None or variant.loss is None:
            raise ContractError(f"variant {variant.name!r} needs build=, optimizer= and loss=")
        self.variant, self.problems = variant, problems
        self.loss, self.metrics = variant.loss, variant.metrics or {}
        members = [problem.load(variant.build()).train() for problem in problems]
        self.skeleton = members[0]
        trained = [n for n, p in self.skeleton.named_parameters() if p.requires_grad]
        self.parameters, self.buffers = stack_module_state(members)
        self.optimizer = variant.optimizer([self.parameters[n] for n in trained], lr=problems[0].lr)
        if problems[0].swift:
            fast_kernels.fuse(self.optimizer)
        self._shapes: dict[tuple[object, ...], _Together] = {}

    def __len__(self) -> int:
        return len(self.problems)

    def updates(self) -> Iterator[Judged]:
        """Train to the end, or to the horizon; yields each update before it makes the next."""
        batches = (batch for epoch in self.problems[0].epochs() for batch in self.batches(epoch))
        for x, y in islice(batches, self.problems[0].horizon):
            judged = self.judge(x, y, self.same_rows)
            self.optimizer.zero_grad()
            # No loss depends on another member's parameters: the sum's gradient is each one's own.
            judged.losses.sum().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            yield judged.detached()

    def judge(self, x: Tensor, y: Tensor, shared: bool) -> Judged:
        """Forward, loss and metrics of every member, each on its own rows or all on the same."""
        values = {**self.parameters, **self.buffers}
        key = (x.shape, shared, self.skeleton.training)
        if key not in self._shapes:
            self._shapes[key] = self._together(values, x, y, shared)
        own = self._shapes[key]
        losses, outputs, *scores = own(values, x, y)
        found = dict(zip(own.metrics, scores, strict=True))
        for name in self.metrics.keys() - found.keys():
            pairs = ((outputs[k].detach(), y if shared else y[k]) for k in range(len(self)))
            found[name] = torch.stack([self.metrics[name](*pair).mean() for pair in pairs])
        return Judged(losses, outputs, {n: found[n] for n in self.metrics}, y, shared)

    def _together(self, values: dict[str, Tensor], x: Tensor, y: Tensor, shared: bool) -> _Together:
        """The forward pass, the loss and those metrics that can be vmapped."""
        axis = None if shared else 0
        prepare = self.variant.prepare or (lambda rows: rows)

        def outputs(own: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.skeleton, own, (prepare(x),))  # type: ignore[no-any-return]

        def score(name: str, output: Tensor, y: Tensor) -> Tensor:
            return self.metrics[name](output.detach(), y).mean()

        def together(name: str) -> bool:
            try:
                vmap(partial(score, name), (0, axis))(made, y)
            except RuntimeError:  # it branches on values, or its shape depends on them
                return False
            return True

        made = vmap(outputs, (0, axis), randomness="different")(_copied(values), x)
        names = tuple(filter(together, self.metrics))

        def judged(own: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            output = outputs(own, x)
            return self.loss(output, y), output, *(score(name, output, y) for name in names)

        many = vmap(judged, (0, axis, axis), randomness="different")

        def run(values: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            with _WeightTimesRows():
                return many(values, x, y)

        return _Together(run, names)

    def member(self, k: int, update: Judged) -> Step:
        """An update as one member made it."""
        gradients = {n: v.grad[k] for n, v in self.parameters.items() if v.grad is not None}
        parameters = {name: value[k] for name, value in self.parameters.items()}
        target = update.targets if update.shared else update.targets[k]
        return Step(update.losses[k], parameters, update.outputs[k], target, gradients=gradients)

    @property
    def same_rows(self) -> bool:
        """Whether all members train on the same batches, so that these need no members' axis."""
        first = self.problems[0]
        return not first.protocol.shuffle or first.batch_size >= len(first.train)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of one epoch; rows are valid until the next batch is made."""
        if self.same_rows:
            yield from self.problems[0].epoch_batches(epoch)
            return
        first, x, y = self.problems[0], self.problems[0].train.x, self.problems[0].train.y
        orders = torch.stack([problem.row_order(epoch) for problem in self.problems])
        # One buffer for the rows of every batch: allocating takes longer than copying.
        place = x.new_empty(len(self) * first.batch_size, *x.shape[1:])
        for rows in torch.split(orders.to(x.device), first.batch_size, dim=1):
            chosen = rows.flatten()
            torch.index_select(x, 0, chosen, out=place[: len(chosen)])
            yield place[: len(chosen)].view(*rows.shape, *x.shape[1:]), y[rows]

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The validation batches, with a members' axis if each reads them in its own order."""
        protocol, rows = self.problems[0].protocol, [own.valid for own in self.problems]
        size = self.problems[0].valid_batch_size
        axis = 1 if protocol.shuffle_valid else 0
        x, y = (
            torch.stack([getattr(own, part) for own in rows]) if axis else getattr(rows[0], part)
            for part in ("x", "y")
        )
        return zip(torch.split(x, size, axis), torch.split(y, size, axis), strict=True)


@dataclass
class _Together:
    """A function of (values, x, y) to losses, outputs and these metrics, of all members.

    For one shape of a batch. Going through ``torch.func`` every time takes longer than the
    computation, so if that shape occurs often, the resulting plain operations on all members at
    once are traced and reused.
    """

    run: Callable[..., tuple[Tensor, ...]]
    metrics: tuple[str, ...]
    uses: int = 0

    def __call__(self, values: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        self.uses += 1
        if self.uses == OFTEN:
            self.run = make_fx(self.run)(_copied(values), x, y)
        return self.run(values, x, y)


def _copied(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies for a pass that does not count, which must not change the buffers."""
    return {name: value.detach().clone() for name, value in values.items()}


class _WeightTimesRows(TorchFunctionMode):
    """Linear layers with a large W as ``W xᵀ`` instead of ``x Wᵀ``.

    The products are the same; batched, those of a layer with few outputs take a fifth of the time.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear and not kwargs and args[1].numel() >= WIDE:
            x, weight, *bias = args
            if x.dim() == 2:
                output = (weight @ x.mT).mT.contiguous()
                return output if not bias or bias[0] is None else output + bias[0]
        return func(*args, **(kwargs or {}))


# --- whole runs ----------------------------------------------------------------------------------


def gains(variant: Variant, tier: Tier) -> bool:
    """Whether many seeds of a variant train faster together, and end as they do alone.

    Not with convolutions, which take as long together as one after the other, nor with dropout,
    whose draws would differ. For all others it is tested: an epoch of two seeds in float64 must
    have the same figures both ways.
    """
    unsuited = (nn.modules.conv._ConvNd, nn.modules.dropout._DropoutNd)
    if not supports(variant) or variant.has_layer(*unsuited) or unfit(variant):
        return False
    assert variant.protocol is not None
    short = replace(variant.protocol, epochs=1, stand_in_epochs=None)
    problems = [
        pose(variant, tier, seed=seed).but(precision="float64", protocol=short) for seed in (1, 2)
    ]
    alone = [train(variant, problem).final for problem in problems]
    try:
        together = [history.final for history in train_together(variant, problems)]
    except (RuntimeError, ContractError):  # an operation that cannot be vmapped
        return False
    return all(_same(mine, theirs) for mine, theirs in zip(alone, together, strict=True))


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    if one.keys() != other.keys():
        return False
    mine, theirs = ([own[name] for name in one] for own in (one, other))
    return bool(np.allclose(mine, theirs, rtol=1e-8, atol=1e-10, equal_nan=True))


def train_together(variant: Variant, problems: Sequence[Problem]) -> list[History]:
    """Run every problem to the end of its protocol; returns the histories that each has alone."""
    with torch.random.fork_rng(devices=[]):
        return _train_together(Ensemble(variant, [swiftly(problem) for problem in problems]))


def _train_together(together: Ensemble) -> list[History]:
    variant, problems = together.variant, together.problems
    histories = [History() for _ in problems]
    per_epoch = problems[0].steps_per_epoch
    seen: list[Judged] = []
    began = time.perf_counter()
    for number, update in enumerate(together.updates(), start=1):
        seen.append(update)
        if number % per_epoch:
            continue
        epoch = number // per_epoch
        figures = {**_training_figures(together, seen, epoch), **_validation_figures(together)}
        seconds = (time.perf_counter() - began) / len(problems)
        for k, history in enumerate(histories):
            own = {name: float(values[k]) for name, values in figures.items()}
            history.epochs.append(EpochRecord(epoch, own, seconds))
            history.last, history.steps = together.member(k, update), number
        seen, began = [], time.perf_counter()
    for history in histories:
        assert history.last is not None
        history.parameters = few_parameters(to_ladder(variant, history.last.parameters))
    return histories


Figures = dict[str, Tensor]
"""A figure of every member, (members,), by its name."""


def _training_figures(together: Ensemble, seen: Sequence[Judged], epoch: int) -> Figures:
    """As :func:`refimpl.training.loop.training_figures`."""
    if together.problems[0].protocol.report == "last-batch":
        *_, batch = together.batches(epoch - 1)
        return _figures(_evaluated(together, [batch], together.same_rows))
    return _figures(seen)


def _validation_figures(together: Ensemble) -> Figures:
    """As :func:`refimpl.training.loop.validation_figures`."""
    problem = together.problems[0]
    if problem.valid is None:
        return {}
    shared = not problem.protocol.shuffle_valid
    judged = _evaluated(together, together.validation_batches(), shared)
    figures = _figures(judged, weighted=problem.protocol.average == "samples")
    return {f"val_{name}": value for name, value in figures.items()}


@torch.no_grad()
def _evaluated(
    together: Ensemble, batches: Iterable[tuple[Tensor, Tensor]], shared: bool
) -> list[Judged]:
    """These batches judged by the models as they are, in evaluation mode."""
    together.skeleton.eval()
    judged = [together.judge(x, y, shared) for x, y in batches]
    together.skeleton.train()
    return judged


def _figures(judged: Sequence[Judged], weighted: bool = False) -> Figures:
    """Each member's mean over the batches."""
    sizes = [batch.outputs.shape[1] for batch in judged] if weighted else None
    scores = {"loss": [batch.losses for batch in judged]}
    scores |= {name: [batch.metrics[name] for batch in judged] for name in judged[0].metrics}
    return {
        name: torch.tensor(
            [mean(own, sizes) for own in torch.stack(values, dim=1)], dtype=torch.float64
        )
        for name, values in scores.items()
    }
