"""A learner's page of each example, made from its plugin.

The text is what the plugin says of itself and what one step of each variant shows; it takes no
training and is the same on every machine, so that a test can tell whether a page is up to date.
Curves are drawn apart, since they take a run.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refimpl.contract import Example, Figure, Layer, Variant
from refimpl.data import DataSet
from refimpl.inspection import summary_of
from refimpl.ladder import first_of_ladder
from refimpl.live import first_step, live_summary
from refimpl.plotting import plot_histories
from refimpl.problem import pose
from refimpl.registry import Registered
from refimpl.requirements import missing, missing_data
from refimpl.training import train

TEMPLATE = "example.md.jinja"
INDEX = "README.md"
LONGEST_VALUE = 60
MOST_CURVES = 6
"""How many variants are drawn into one picture at the most."""


@dataclass(frozen=True)
class Rung:
    """A variant as a row of the table: what it says, whom it repeats, and its size."""

    name: str
    says: str
    same_as: str
    parameters: int | None


@dataclass(frozen=True)
class Table:
    """A layer table and the variants that it is of."""

    variants: tuple[str, ...]
    layers: tuple[Layer, ...]


def page(registered: Registered[Example], root: Path, curves: Path | None = None) -> str:
    """The page of an example as Markdown.

    ``root`` is the folder that the page will be in, from which links to the source and to the
    picture of the curves are made.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    example = registered.value
    environment = Environment(
        loader=PackageLoader("refimpl"), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["cell"] = _cell
    return environment.get_template(TEMPLATE).render(
        example=example,
        source=_source(registered, root),
        teaches=_teaches(registered),
        data=list(_data(example)),
        rungs=[_rung(example, variant) for variant in example.variants],
        tables=_tables(example),
        figures=list(_figures(example)),
        values=[(value.name, _short(value.expected)) for value in example.values],
        pair=_pair(example),
        curves=curves.name if curves is not None else None,
    )


def draw_curves(example: Example, path: Path) -> bool:
    """Train what there is to see of an example on its stand-in data and draw the curves.

    One of each ladder is drawn, and every variant that is on none. Gives whether there was
    anything to draw: a run of one epoch has no curve.
    """
    histories = {
        variant.name: train(variant, pose(variant))
        for variant in _different(example)[:MOST_CURVES]
        if _runs_here(variant)
    }
    histories = {name: h for name, h in histories.items() if len(h.epochs) > 1}
    if histories:
        plot_histories(histories, f"{example.name} on stand-in data", path)
    return bool(histories)


# --- what it says of itself ----------------------------------------------------------------------


def _teaches(registered: Registered[Example]) -> str:
    """The plugin's docstring; without a source to read, the example's title."""
    path = registered.source.path
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path else None
    return _markdown(text or registered.value.title)


def _markdown(text: str) -> str:
    """Text as docstrings have it, with code set as Markdown sets it."""
    return text.replace("``", "`").strip()


def _source(registered: Registered[Example], root: Path) -> str:
    """A link to the plugin where it is in the checkout that the page is in, else its origin."""
    path, home = registered.source.path, _checkout(root.resolve())
    if path is None or home is None or _checkout(path.parent) != home:
        return registered.origin
    return f"[{path.name}]({Path(os.path.relpath(path, root.resolve())).as_posix()})"


def _checkout(folder: Path) -> Path | None:
    """The nearest folder from here up that is a project's."""
    around = (folder, *folder.parents)
    return next((near for near in around if (near / "pyproject.toml").is_file()), None)


def _data(example: Example) -> Iterator[tuple[str, str, str]]:
    """Each data set: its name, what its stand-in is, and its shapes."""
    sets = {id(v.data): v.data for v in example.variants if v.data is not None}
    for data in sets.values():
        if missing_data(data, "stand-in") is None:
            says = (inspect.getdoc(data.stand_in) or "").partition("\n")[0]
            yield data.name, _markdown(says), _shapes(data)


def _shapes(data: DataSet) -> str:
    splits = data.load("stand-in")
    named = (("to train", splits.train), ("to validate", splits.valid))
    return "; ".join(
        f"{name} x {rows.x.shape} and y {rows.y.shape}" for name, rows in named if rows is not None
    )


# --- variants ------------------------------------------------------------------------------------


def _rung(example: Example, variant: Variant) -> Rung:
    first = first_of_ladder(example, variant) if variant.ladder else variant
    same = "" if first is variant else first.name
    if same and "gradients" in (variant.ladder_depth, first.ladder_depth):
        same += " (first gradients)"
    parameters = variant.facts.parameters if variant.facts else None
    return Rung(variant.name, _markdown(summary_of(variant)), same, parameters)


def _tables(example: Example) -> list[Table]:
    """The layer tables of the live modules, each once."""
    found: dict[tuple[Layer, ...], list[str]] = {}
    for variant in example.variants:
        layers = _layers(variant)
        if layers:
            found.setdefault(layers, []).append(variant.name)
    return [Table(tuple(names), layers) for layers, names in found.items()]


def _layers(variant: Variant) -> tuple[Layer, ...]:
    from torch import nn

    if variant.needs is not None:  # the page is the same where it is missing
        return variant.facts.layers if variant.facts else ()
    if variant.bare or variant.numpy:
        return ()
    if not isinstance(first_step(variant, "stand-in").step.model, nn.Module):
        return ()
    return tuple(row for row in live_summary(variant, "stand-in").layers if row.name)


def _different(example: Example) -> list[Variant]:
    """The variants whose runs differ: the first of each ladder, and those that part from it."""
    return [
        variant
        for variant in example.variants
        if variant.ladder is None
        or first_of_ladder(example, variant) is variant
        or variant.ladder_depth == "gradients"
    ]


def _runs_here(variant: Variant) -> bool:
    lacking = missing(variant.needs) or (variant.data and missing_data(variant.data, "stand-in"))
    return not lacking


def _pair(example: Example) -> tuple[str, str] | None:
    """Two variants that ``refimpl compare`` can hold against each other."""
    for variant in example.variants:
        if variant.ladder is not None:
            first = first_of_ladder(example, variant)
            if first is not variant:
                return first.name, variant.name
    return None


# --- what the document states --------------------------------------------------------------------


def _figures(example: Example) -> Iterator[tuple[str, Figure, str, str]]:
    """Variants, figure, and the ranges asserted of it on real and on stand-in data."""
    stated: dict[tuple[Figure, str, str], list[str]] = {}
    for variant in example.variants:
        for figure in variant.facts.figures if variant.facts else ():
            real = _range(figure.range_on(variant.figures_tier("real")))
            stand_in = _range(figure.range_on(variant.figures_tier("stand-in")))
            stated.setdefault((figure, real, stand_in), []).append(variant.name)
    for (figure, real, stand_in), names in stated.items():
        yield ", ".join(names), figure, real, stand_in


def _range(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else f"{limits[0]:.8g} … {limits[1]:.8g}"


def _short(value: Any) -> str:
    """A value as one line of a table has room for it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _cell(text: object) -> str:
    """Text for a cell of a table: on one line, without what would end the cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


# --- all of them ---------------------------------------------------------------------------------


def write(
    examples: Sequence[Registered[Example]], folder: Path, curves: bool, index: bool = False
) -> Iterator[Path]:
    """Write the page of each example under ``folder``, with its curves or beside those there.

    ``index`` adds a page that lists them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for registered in examples:
        name = registered.value.name
        picture = folder / f"{name}.svg"
        if curves and draw_curves(registered.value, picture):
            yield picture
        path = folder / f"{name}.md"
        text = page(registered, folder, picture if picture.is_file() else None)
        path.write_text(text, encoding="utf-8")
        yield path
    if index:
        path = folder / INDEX
        path.write_text(index_page([each.value for each in examples]), encoding="utf-8")
        yield path


def index_page(examples: Sequence[Example]) -> str:
    """The page that lists the pages."""
    rows = [
        f"| [{e.name}]({e.name}.md) | {_cell(e.title)} | {_cell(f'{e.document} {e.section}')} |"
        for e in examples
    ]
    head = ["# The examples", "", "Made by `refimpl docs`.", "", "| example | what | document |"]
    return "\n".join([*head, "| --- | --- | --- |", *rows, ""])
