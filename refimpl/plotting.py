"""Learning curves as a picture."""

from __future__ import annotations

from pathlib import Path

from refimpl.errors import RefimplError
from refimpl.training import History


def formats() -> tuple[str, ...]:
    """The endings of files that a plot can be written to."""
    from matplotlib.backend_bases import FigureCanvasBase

    return tuple(sorted(FigureCanvasBase.get_supported_filetypes()))


def require_format(path: Path) -> None:
    """Raise :class:`RefimplError` where the file's ending is none that can be drawn."""
    if path.suffix.removeprefix(".") not in formats():
        raise RefimplError(
            f"cannot plot to {path}: its ending must be one of {', '.join(formats())}"
        )


def plot_history(history: History, title: str, path: Path) -> None:
    """Draw every figure over the epochs, training and validation in one panel each."""
    from matplotlib.figure import Figure

    names = [name for name in history.epochs[-1].metrics if not name.startswith("val_")]
    alone = [n for n in history.epochs[-1].metrics if n.startswith("val_") and n[4:] not in names]
    panels = names + alone
    figure = Figure(figsize=(4.8 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    epochs = [record.epoch for record in history.epochs]
    for axis, name in zip(axes, panels, strict=True):
        marker = "o" if len(epochs) < 30 else ""
        axis.plot(epochs, history.curve(name), marker=marker, markersize=3, label="training")
        if validation := history.curve(f"val_{name}"):
            axis.plot(epochs, validation, marker=marker, markersize=3, label="validation")
            axis.legend(frameon=False)
        axis.set_xlabel("epoch")
        axis.set_title(name)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=144)
