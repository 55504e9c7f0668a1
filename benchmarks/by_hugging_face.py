"""A training by Hugging Face's Trainer, as its user writes it."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.loops import End
from benchmarks.task import Batch, Seen, Task


class Figures(TrainerCallback):  # type: ignore[misc]
    """The figures of the epochs, which the Trainer itself has for validation only."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.seen: Seen = []
        self.held_out: Seen = []
        self.figures: dict[str, float] = {}

    def on_epoch_end(self, *_: object, **__: object) -> None:
        self.figures |= self.task.figures(self.seen)
        self.seen.clear()

    def compute_metrics(self, given: EvalPrediction, compute_result: bool) -> dict[str, float]:
        self.held_out.append((given.losses[0], given.predictions, given.label_ids))
        if compute_result:
            self.figures |= self.task.held_out_figures(self.held_out)
            self.held_out.clear()
        return {}


class Trained(Trainer):  # type: ignore[misc]
    """The Trainer with a loss of one's own."""

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        output, labels = model(inputs["features"]), inputs["labels"]
        loss = self.of_epochs.task.loss(output, labels)
        if model.training:
            self.of_epochs.seen.append((loss.detach(), output.detach(), labels))
        return (loss, {"output": output}) if return_outputs else loss


def collate(batches: list[Batch]) -> dict[str, Tensor]:
    """A batch under the names that the Trainer looks for; it is whole already."""
    [(features, labels)] = batches
    return {"features": features, "labels": labels}


def by_hugging_face(task: Task) -> End:
    """Train without logs, bars, reports, checkpoints, and without a filter of losses."""
    figures = Figures(task)
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=task.epochs,
            per_device_train_batch_size=1,
            per_device_eval_batch_size=1,
            eval_strategy="epoch" if task.valid else "no",
            batch_eval_metrics=True,
            include_for_metrics=["loss"],
            label_names=["labels"],
            lr_scheduler_type="constant",
            max_grad_norm=0,
            remove_unused_columns=False,
            accelerator_config={"dispatch_batches": False},
            dataloader_pin_memory=False,
            logging_strategy="no",
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trained(
            task.net,
            arguments,
            collate,
            task.train,
            task.valid,
            compute_metrics=figures.compute_metrics,
            callbacks=[figures],
            optimizers=(task.optimizer, None),
        )
        trainer.of_epochs = figures
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return task.end(figures.figures)
