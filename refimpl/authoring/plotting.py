"""Learning curves as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from refimpl.errors import RefimplError
from refimpl.training.loop import History
from refimpl.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def formats() -> tuple[str, ...]:
    """The file name extensions that a plot can be written to."""
    from matplotlib.backend_bases import FigureCanvasBase

    return tuple(sorted(FigureCanvasBase.get_supported_filetypes()))


def require_format(path: Path) -> None:
    """Raise :class:`RefimplError` if a plot cannot be written with this file name extension."""
    if path.suffix.removeprefix(".") not in formats():
        raise RefimplError(
            f"cannot plot to {path}: its extension must be one of {', '.join(formats())}"
        )


def plot_history(
    history: History, title: str, path: Path, documented: Mapping[str, float] | None = None
) -> None:
    """Draw each figure over the epochs, training and validation together in one panel.

    ``documented`` are the document's own figures, by name, each drawn as a line across its panel.
    """
    plot_histories({"": history}, title, path, documented)


def plot_histories(
    histories: Mapping[str, History],
    title: str,
    path: Path,
    documented: Mapping[str, float] | None = None,
) -> None:
    """Draw each figure of several named runs over their epochs.

    There is one panel for each figure; a run's validation is dashed, in the colour of its training.
    In formats that allow it, drawing the same twice gives the same bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = _panels(histories.values())
    figure = Figure(figsize=(4.8 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, name in zip(axes, panels, strict=True):
        for colour, (run, history) in enumerate(histories.items()):
            _draw(axis, history, name, run, f"C{colour}")
        _draw_documented(axis, name, documented or {})
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_title(name)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if len(axis.get_lines()) > 1:
            axis.legend(frameon=False)
    figure.suptitle(title)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        kind = path.suffix.removeprefix(".") or "png"
        undated = {"Date": None} if kind == "svg" else None
        with whole_file(path) as stream:
            figure.savefig(stream, format=kind, dpi=144, metadata=undated)


def _panels(histories: Iterable[History]) -> list[str]:
    """The figures that get a panel, training first; validation shares the panel of its training."""
    names = list(dict.fromkeys(n for h in histories for r in h.epochs for n in r.metrics))
    training = [name for name in names if not name.startswith("val_")]
    alone = [n for n in names if n.startswith("val_") and n.removeprefix("val_") not in training]
    return training + alone


def _draw(axis: Axes, history: History, name: str, run: str, colour: str) -> None:
    for metric, what, style in ((name, "training", "-"), (f"val_{name}", "validation", "--")):
        drawn = [(r.epoch, r.metrics[metric]) for r in history.epochs if metric in r.metrics]
        if not drawn:
            continue
        epochs, values = zip(*drawn, strict=True)
        marker = "o" if len(drawn) < 30 else ""
        label = f"{run}, {what}" if run else what
        axis.plot(epochs, values, style, color=colour, marker=marker, markersize=3, label=label)


def _draw_documented(axis: Axes, name: str, documented: Mapping[str, float]) -> None:
    for metric in (name, f"val_{name}"):
        if metric in documented:
            label = f"the document: {metric} {documented[metric]:g}"
            axis.axhline(documented[metric], color="0.35", linestyle=":", label=label)
