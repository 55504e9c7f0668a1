"""Shows the progress of a run: its epochs as they end, and its last line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from refimpl.baselines.calibration import Watcher
from refimpl.cli.rendering import stdout

if TYPE_CHECKING:
    from refimpl.baselines.calibration import Plan
    from refimpl.baselines.committed import Run
    from refimpl.contract import Example, Variant
    from refimpl.data import Tier
    from refimpl.training.loop import EpochRecord


def figures_text(metrics: Mapping[str, float]) -> str:
    """``name=value`` for each figure."""
    return " ".join(f"{name}={value:.6g}" for name, value in metrics.items())


def final_line(final: Mapping[str, float]) -> str:
    """The final figures, and the parameters of models with few of them, to eight decimals."""
    measured = ("loss", "val_")
    return " ".join(
        f"{name}={value:.6f}"
        if name.startswith(measured) or name in ("accuracy", "auc", "recall")
        else f"{name}={value:.8f}"
        for name, value in final.items()
    )


class RunProgress:
    """Shows a run's epochs as they end: a live bar on a terminal, else some lines."""

    def __init__(self, example: Example, variant: Variant, tier: Tier, lines: int) -> None:
        assert variant.protocol is not None
        self.epochs = variant.protocol.epochs_on(tier)
        self.title = f"{example.name} · {variant.name} · {tier} data"
        self.stop = variant.protocol.stop
        self.every = max(1, self.epochs // lines)
        self.shown = True
        self.console = stdout()
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[figures]}"),
            console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("epoch", total=self.epochs, figures="")

    def __enter__(self) -> RunProgress:
        self.console.print(Text(self.title, style="bold"))
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def epoch(self, record: EpochRecord) -> None:
        """Show an epoch that has just ended."""
        figures = figures_text(record.metrics)
        self.bar.update(self.task, completed=record.epoch, figures=figures)
        self.shown = record.epoch % self.every == 0 or record.epoch in (1, self.epochs)
        if self.shown:
            self._show(record)

    def _show(self, record: EpochRecord) -> None:
        figures = figures_text(record.metrics)
        line = f"epoch {record.epoch}/{self.epochs} {figures} ({record.seconds:.2f} s)"
        self.console.print(Text(line), soft_wrap=True)

    def ended(self, last: EpochRecord) -> None:
        """Show the last epoch of a run, and that it is not the last of its protocol."""
        if last.epoch >= self.epochs:
            return
        if not self.shown:
            self._show(last)
        stop = self.stop
        why = f": {stop.metric} was no better for {stop.patience} epochs" if stop else ""
        self.console.print(Text(f"stopped after epoch {last.epoch} of {self.epochs}{why}"))


class CalibrationProgress(Watcher):
    """Shows the seeds of a calibration as they end: a live bar on a terminal, else some lines."""

    def __init__(self) -> None:
        self.console = stdout()
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("seeds")
        self.plans: Sequence[Plan] = ()
        self.left: dict[str, int] = {}

    def __enter__(self) -> CalibrationProgress:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def begins(self, plans: Sequence[Plan]) -> None:
        """Print how many runs there are to do, and how many are done already."""
        self.plans = plans
        self.left = {plan.title: len(plan.seeds) for plan in plans}
        there = sum(len(plan.there.runs) for plan in plans if plan.there)
        todo = sum(self.left.values())
        self.bar.update(self.task, total=todo)
        self.console.print(f"{todo} runs to do for {len(plans)} baselines; {there} exist already")

    def ran(self, plan: Plan, run: Run) -> None:
        """Count a seed, and print a line when a baseline has all of its seeds."""
        self.bar.advance(self.task)
        self.left[plan.title] -= 1
        if not self.left[plan.title]:
            text = f"{plan.title}: {len(plan.seeds)} runs, the last in {run.seconds:.2f} s"
            self.console.print(Text(text), soft_wrap=True)
