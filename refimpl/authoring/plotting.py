"""Learning curves as a picture, with the rows and what is predicted for them below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from refimpl.authoring import pictures
from refimpl.errors import RefimplError
from refimpl.training.loop import History
from refimpl.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from refimpl.authoring.pictures import Predicted
    from refimpl.contract import Figure as Stated


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
    history: History,
    title: str,
    path: Path,
    documented: Sequence[Stated] = (),
    rows: Predicted | None = None,
) -> None:
    """Draw each figure over the epochs, training and validation together in one panel.

    ``documented`` are the document's own figures: one of the end of training is drawn as a line
    across its panel, one of an epoch as a cross.
    """
    plot_histories({"": history}, title, path, documented, rows)


def plot_histories(
    histories: Mapping[str, History],
    title: str,
    path: Path,
    documented: Sequence[Stated] = (),
    rows: Predicted | None = None,
) -> None:
    """Draw each figure of several named runs over their epochs.

    There is one panel for each figure; a run's validation is dashed, in the colour of its training.
    ``rows``, and what is predicted for them, are drawn below. In formats that allow it, drawing the
    same twice gives the same bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    panels = _panels(histories.values())
    parts = [name for name, there in (("curves", panels), ("rows", rows)) if there]
    width = 4.8 * max(len(panels), 2 if rows else 1)
    figure = Figure(figsize=(width, 3.6 * len(parts)), layout="constrained")
    below = dict(zip(parts, figure.subfigures(len(parts), 1, squeeze=False)[:, 0], strict=True))
    if panels:
        _draw_curves(below["curves"], panels, histories, documented)
    if rows:
        pictures.draw(rows, below["rows"])
    figure.suptitle(title)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        kind = path.suffix.removeprefix(".") or "png"
        undated = {"Date": None} if kind == "svg" else None
        with whole_file(path) as stream:
            figure.savefig(stream, format=kind, dpi=144, metadata=undated)


def _draw_curves(
    figure: SubFigure,
    panels: Sequence[str],
    histories: Mapping[str, History],
    documented: Sequence[Stated],
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, name in zip(axes, panels, strict=True):
        for colour, (run, history) in enumerate(histories.items()):
            _draw(axis, history, name, run, f"C{colour}")
        _draw_documented(axis, name, documented)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_title(name)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if len(axis.get_lines()) > 1:
            axis.legend(frameon=False)


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


def _draw_documented(axis: Axes, name: str, documented: Sequence[Stated]) -> None:
    for colour, metric in (("0.35", name), ("0.6", f"val_{name}")):
        stated = [(f.epoch, f.documented) for f in documented if f.metric == metric]
        for epoch, value in stated:
            if epoch is None and value is not None:
                label = f"the document: {metric} {value:g}"
                axis.axhline(value, color=colour, linestyle=":", label=label)
        at = [(epoch, value) for epoch, value in stated if epoch is not None and value is not None]
        if at:
            label = f"the document: {metric} of an epoch"
            axis.plot(*zip(*at, strict=True), "x", color=colour, label=label)
