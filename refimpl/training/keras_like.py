"""A small Keras-like model around a module: the class style of *20-days*, written once.

Several examples train in this style, so it is here and not in one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from refimpl.contract import Step
from refimpl.errors import ContractError

if TYPE_CHECKING:
    from refimpl.training.layer_table import Summary

Batch = tuple[Tensor, Tensor]
Score = Callable[[Tensor, Tensor], Tensor]


class Model:
    """``compile`` it, then ``fit``, ``evaluate``, ``predict`` and ``summary``.

    ``metrics`` are functions of (output, target); see :mod:`refimpl.metrics`.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.loss: Score | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.metrics: Mapping[str, Score] = {}

    def compile(
        self, loss: Score, optimizer: torch.optim.Optimizer, metrics: Mapping[str, Score] = {}
    ) -> None:
        """Set the loss, the optimizer and the metrics to report."""
        self.loss, self.optimizer, self.metrics = loss, optimizer, metrics

    def fit(self, batches: Iterable[Batch]) -> Iterator[Step]:
        """Train on each batch once, yielding a step after each update."""
        loss_of, optimizer = self._compiled()
        for features, labels in batches:
            if not self.net.training:  # at first perhaps, and after each evaluation
                self.net.train()
            predictions = self.net(features)
            loss = loss_of(predictions, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield Step(loss, self.net, predictions, labels, optimizer)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """``val_loss`` and each metric as ``val_…``: means over the batches, in evaluation mode."""
        loss_of, _ = self._compiled()
        self.net.eval()
        sums: dict[str, float] = {}
        count = 0
        for features, labels in batches:
            predictions = self.net(features)
            scores = {"loss": loss_of(predictions, labels)}
            scores.update({name: m(predictions, labels) for name, m in self.metrics.items()})
            for name, score in scores.items():
                sums[name] = sums.get(name, 0.0) + float(score.double().mean())
            count += 1
        return {f"val_{name}": total / count for name, total in sums.items()}

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """The outputs for these features, in evaluation mode."""
        self.net.eval()
        predictions: Tensor = self.net(features)
        return predictions

    def summary(self, sample: Tensor) -> Summary:
        """Layer table and size rows for inputs like ``sample`` (one row, with its batch axis)."""
        from refimpl.training.layer_table import summarise

        return summarise(self.net, sample)

    def _compiled(self) -> tuple[Score, torch.optim.Optimizer]:
        if self.loss is None or self.optimizer is None:
            raise ContractError("compile(loss, optimizer) the model before fitting or evaluating")
        return self.loss, self.optimizer
