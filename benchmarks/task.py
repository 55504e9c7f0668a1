"""What every trainer is given: the same net, optimizer, loss, batches, and means of figures.

The kernels are those that refimpl takes for whole runs, for every trainer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn, optim
from torch.utils.data import IterableDataset

from benchmarks.loops import End
from refimpl import Variant
from refimpl.training.loop import mean_of, swiftly
from refimpl.training.problem import Problem

if TYPE_CHECKING:
    from refimpl.contract import Loss, Metric

Batch = tuple[Tensor, Tensor]
Seen = list[tuple[Tensor, Tensor, Tensor]]
"""Loss, outputs and targets of batches."""


class Training(IterableDataset[Batch]):
    """The batches of an epoch, which trainers set: some tell the loader, some its sampler."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.epoch = problem, 0
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.problem.batches_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        # A generator: trainers may ask for it before they set the epoch, but read afterwards.
        yield from self.problem.epoch_batches(self.epoch)


class HeldOut(IterableDataset[Batch]):
    """The validation batches, cut once."""

    def __init__(self, problem: Problem) -> None:
        self.batches: Sequence[Batch] = tuple(problem.valid_batches())

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


@dataclass(frozen=True)
class Task:
    """One training; :func:`task_of` makes a new one for each run."""

    epochs: int
    net: nn.Module
    optimizer: optim.Optimizer
    loss: Loss
    train: Training
    valid: HeldOut | None
    metrics: Mapping[str, Metric]
    weighted: bool

    def figures(self, seen: Seen) -> dict[str, float]:
        """The figures of an epoch: means over its batches."""
        return self._means(seen, None)

    def held_out_figures(self, seen: Seen) -> dict[str, float]:
        """Those of the validation batches, weighted by size where the protocol says so."""
        sizes = [len(target) for _, _, target in seen] if self.weighted else None
        return {f"val_{name}": value for name, value in self._means(seen, sizes).items()}

    def end(self, figures: dict[str, float]) -> End:
        """Where the training ended."""
        parameters = {name: value.detach() for name, value in self.net.named_parameters()}
        return End(parameters, figures, self.net)

    def _means(self, seen: Seen, sizes: Sequence[int] | None) -> dict[str, float]:
        found = {"loss": mean_of([loss for loss, _, _ in seen], sizes)}
        for name, metric in self.metrics.items():
            scores = [metric(output, target).mean() for _, output, target in seen]
            found[name] = mean_of(scores, sizes)
        return found


def task_of(variant: Variant, problem: Problem) -> Task:
    """What a variant that declares its build, optimizer and loss is trained with."""
    assert variant.build is not None
    assert variant.optimizer is not None
    assert variant.loss is not None
    problem = swiftly(problem)
    net = problem.load(variant.build())
    held_out = HeldOut(problem)
    return Task(
        problem.protocol.epochs_on(problem.tier),
        net,
        problem.resume(variant.optimizer(net.parameters(), lr=problem.lr)),
        variant.loss,
        Training(problem),
        held_out if len(held_out) else None,
        variant.metrics or {},
        problem.protocol.average == "samples",
    )
