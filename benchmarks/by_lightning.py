"""A training by Lightning's Trainer, as its user writes it."""

from __future__ import annotations

import lightning
from torch import Tensor, optim

from benchmarks.loops import End
from benchmarks.task import Batch, Seen, Task


class Trained(lightning.LightningModule):  # type: ignore[misc]
    """The net with its steps; figures are gathered by hand, which is faster than ``self.log``."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task, self.net = task, task.net
        self.seen: Seen = []
        self.held_out: Seen = []
        self.figures: dict[str, float] = {}

    def training_step(self, batch: Batch, index: int) -> Tensor:
        features, labels = batch
        output = self.net(features)
        loss = self.task.loss(output, labels)
        self.seen.append((loss.detach(), output.detach(), labels))
        return loss

    def on_train_epoch_end(self) -> None:
        self.figures |= self.task.figures(self.seen)
        self.seen.clear()

    def validation_step(self, batch: Batch, index: int) -> None:
        features, labels = batch
        output = self.net(features)
        self.held_out.append((self.task.loss(output, labels), output, labels))

    def on_validation_epoch_end(self) -> None:
        self.figures |= self.task.held_out_figures(self.held_out)
        self.held_out.clear()

    def configure_optimizers(self) -> optim.Optimizer:
        return self.task.optimizer


def by_lightning(task: Task) -> End:
    """Train with all that Lightning itself turns off to measure its overhead."""
    module = Trained(task)
    trainer = lightning.Trainer(
        max_epochs=task.epochs, accelerator="cpu", devices=1, barebones=True
    )
    trainer.fit(module, task.train, task.valid)
    return task.end(module.figures)
