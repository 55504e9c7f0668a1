"""Pictures of the rows that an example is trained on, and of what it predicts after training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from refimpl.contract import Step, Variant
from refimpl.training.loop import predictor
from refimpl.training.problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

MOST_ROWS = 500
"""The most rows that are predicted: more points would hide each other."""

IMAGES = 16
SMALLEST_SIDE = 8
"""The side of the smallest square that a row of pixels is taken for."""

GRID = 80
"""How many points a side a plane is predicted at."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Predicted:
    """Rows x (N, ...) with targets y (N,) or (N, k), and the model's outputs for them (N, k).

    ``of`` is the split: ``"validation"`` if the example has one, else ``"training"``.
    ``surface`` holds, for rows with two columns, the outputs at a grid over the plane.
    """

    of: str
    x: Array
    y: Array
    output: Array
    surface: tuple[Array, Array, Array] | None = None

    @property
    def separates(self) -> float | None:
        """The output from which on a row belongs to class 1; ``None`` if y is no such class."""
        if self.output.shape[1:] != (1,) or not np.isin(self.y, (0, 1)).all():
            return None
        return 0.5 if ((self.output >= 0) & (self.output <= 1)).all() else 0.0

    @property
    def classes(self) -> tuple[Array, Array] | None:
        """The class of each row, and the predicted one; ``None`` if targets are no classes."""
        if self.separates is not None:
            return self.y.reshape(-1).astype(int), (self.output[:, 0] > self.separates).astype(int)
        if self.y.ndim == 1 and self.y.dtype.kind in "iu":
            return self.y, self.output.argmax(axis=1)
        return None

    @property
    def kind(self) -> str | None:
        """How such rows are drawn; ``None`` if there is no picture for them."""
        if self.classes is not None:
            if _images(self.x) is not None:
                return "images"
            return "shares" if self.surface is None else "plane"
        if self.y.ndim == 2 and self.x.ndim == 3:
            return "series"
        return "values" if self.x.ndim == 2 and self.y[0].size == 1 else None


def predicted_by(variant: Variant, problem: Problem, last: Step) -> Predicted | None:
    """What the model of the last step predicts for the first rows of the data.

    ``None`` if there is nothing of it to draw: rows that are no tensors, a step without a model.
    """
    if problem.streams or problem.collate is not None or last.model is None:
        return None
    split = problem.valid or problem.train
    if not all(isinstance(part, Tensor) for part in (split.x, split.y)):
        return None
    few = split.chosen(slice(MOST_ROWS))
    with predictor(variant, last) as predict:
        output = predict(few.x)
        if not isinstance(output, Tensor) or len(output) != len(few):
            return None
        surface = _surface(predict, few.x) if few.x.shape[1:] == (2,) else None
    of = "validation" if problem.valid is not None else "training"
    flat = _array(output).reshape(len(few), -1)
    rows = Predicted(of, _array(few.x), _array(few.y), flat, surface)
    return rows if rows.kind else None


def _surface(predict: Callable[[Any], Any], x: Tensor) -> tuple[Array, Array, Array]:
    low, high = x.min(dim=0).values.tolist(), x.max(dim=0).values.tolist()
    across, up = (torch.linspace(low[i], high[i], GRID, dtype=x.dtype) for i in (0, 1))
    plane = torch.cartesian_prod(across, up).to(x.device)
    outputs = _array(predict(plane)).reshape(GRID, GRID, -1)[..., 0]
    return _array(across), _array(up), outputs.T


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array


def draw(rows: Predicted, figure: SubFigure) -> None:
    """Draw the rows, and beside them or over them what is predicted."""
    _DRAWN[rows.kind or "shares"](rows, figure)


def _images(x: Array) -> Array | None:
    """The rows as images (N, H, W) or (N, H, W, 3), each from 0 to 1; ``None`` if they are none."""
    if x.dtype.kind != "f":
        return None
    if x.ndim == 2:
        side = round(float(x.shape[1]) ** 0.5)
        if side < SMALLEST_SIDE or side * side != x.shape[1]:
            return None
        x = x.reshape(-1, 1, side, side)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return None
    low, high = (f(x, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    x = (x - low) / np.maximum(high - low, 1e-9)
    return x[:, 0] if x.shape[1] == 1 else x.transpose(0, 2, 3, 1)


def _draw_images(rows: Predicted, figure: SubFigure) -> None:
    images = _images(rows.x)
    assert images is not None
    assert rows.classes is not None
    truth, found = rows.classes
    few = min(IMAGES, len(images))
    axes = figure.subplots(2, -(-few // 2), squeeze=False).flatten()
    figure.suptitle(f"{rows.of} rows: label → prediction", fontsize="medium")
    for axis in axes:
        axis.set_axis_off()
    for axis, image, label, guess in zip(axes, images[:few], truth, found, strict=False):
        axis.imshow(image, cmap="gray_r" if image.ndim == 2 else None)
        axis.set_title(
            f"{label} → {guess}", fontsize="small", color="0.2" if label == guess else "C3"
        )


def _draw_plane(rows: Predicted, figure: SubFigure) -> None:
    assert rows.surface is not None
    assert rows.classes is not None
    left, right = figure.subplots(1, 2)
    truth, _ = rows.classes
    across, up, outputs = rows.surface
    filled = right.contourf(across, up, outputs, levels=12, cmap="RdBu_r", alpha=0.7)
    if rows.separates is not None and outputs.min() < rows.separates < outputs.max():
        right.contour(across, up, outputs, levels=[rows.separates], colors="0.2")
    figure.colorbar(filled, ax=right)
    for axis, title in ((left, f"{rows.of} rows"), (right, "and what is predicted")):
        for value, colour in enumerate(("C0", "C3")):
            chosen = rows.x[truth == value]
            axis.scatter(*chosen.T, s=5, color=colour, label=f"class {value}", rasterized=True)
        axis.set_title(title)
        axis.set_aspect("equal")
    left.legend(frameon=False, markerscale=2)


def _draw_shares(rows: Predicted, figure: SubFigure) -> None:
    assert rows.classes is not None
    left, right = figure.subplots(1, 2)
    truth, found = rows.classes
    values, counts = np.unique(truth, return_counts=True)
    left.bar([str(value) for value in values], counts, color=[f"C{i}" for i in range(len(values))])
    left.set_title(f"{rows.of} rows by class")
    right.set_title("and what is predicted")
    if rows.separates is None:
        right.bar(*np.unique(found, return_counts=True))
        return
    bins = np.linspace(rows.output.min(), rows.output.max(), 21)
    for i, value in enumerate(values):
        chosen = rows.output[truth == value, 0]
        right.hist(chosen, bins=bins, alpha=0.6, color=f"C{i}", label=f"class {value}")
    right.axvline(rows.separates, color="0.35", linestyle=":")
    right.set_xlabel("output")
    right.legend(frameon=False)


def _draw_series(rows: Predicted, figure: SubFigure) -> None:
    axis = figure.subplots(1, 1)
    for column in range(rows.y.shape[1]):
        colour = f"C{column}"
        axis.plot(rows.y[:, column], ".", color=colour, label=f"column {column}")
        axis.plot(rows.output[:, column], color=colour, label=f"column {column}, predicted")
    axis.set_title(f"{rows.of} rows in order, and what is predicted")
    axis.set_xlabel("row")
    axis.legend(frameon=False, ncols=2)


def _draw_values(rows: Predicted, figure: SubFigure) -> None:
    y, outputs = rows.y.reshape(-1), rows.output[:, 0]
    axes = figure.subplots(1, rows.x.shape[1], squeeze=False, sharey=True)[0]
    for column, axis in enumerate(axes):
        axis.scatter(rows.x[:, column], y, s=8, color="C0", label=f"{rows.of} rows",
                     rasterized=True)  # fmt: skip
        axis.scatter(rows.x[:, column], outputs, s=8, color="C3", label="predicted",
                     rasterized=True)  # fmt: skip
        axis.set_xlabel(f"x{column}" if len(axes) > 1 else "x")
        axis.set_title("y")
    axes[0].legend(frameon=False)


_DRAWN: Mapping[str, Callable[[Predicted, SubFigure], None]] = {
    "images": _draw_images, "plane": _draw_plane, "shares": _draw_shares,
    "series": _draw_series, "values": _draw_values,
}  # fmt: skip
