"""A page for learners about each example, made from its plugin.

The text comes from the plugin itself and from one step of each variant. It needs no training and is
the same on every machine, so that a test can tell whether a page is up to date. Curves are drawn
separately, since they need a whole run, and so is what the rungs of a ladder were measured to agree
to: it is kept in the page until it is measured again.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from refimpl.authoring.info import summary_of
from refimpl.authoring.listings import expressions, listings, rung_before
from refimpl.authoring.pictures import predicted_by
from refimpl.authoring.plotting import plot_histories
from refimpl.contract import Example, Figure, Layer, Variant
from refimpl.data import DataSet
from refimpl.errors import one_line
from refimpl.loading.registry import Registered
from refimpl.parity.lockstep import compare_in_ladder
from refimpl.requirements import missing, missing_data
from refimpl.training.ladder import first_of_ladder
from refimpl.training.live_model import first_step, live_summary
from refimpl.training.loop import train
from refimpl.training.problem import pose
from refimpl.writing import write_text

TEMPLATE = "example.md.jinja"
INDEX = "README.md"
LONGEST_VALUE = 60
MOST_CURVES = 6
"""The most variants that are drawn into one picture."""

STEPS = 20
"""How many steps two rungs of a ladder are compared over."""

MUTANTS = Path("..") / "mutants.md"
"""From the folder of the pages, the table of planted bugs and of the checks that catch them."""

AGREEMENT = re.compile(r"^\*`([^`]+)` (.+)\*$", re.MULTILINE)


@dataclass(frozen=True)
class Rung:
    """A variant as a table row: its summary, the variant that it repeats, and its size."""

    name: str
    says: str
    same_as: str
    parameters: int | None


@dataclass(frozen=True)
class Bug:
    """A known bug: its name, what it is, and the check that catches it."""

    name: str
    what: str
    caught_by: str


@dataclass(frozen=True)
class Table:
    """A layer table, and the variants that have it."""

    variants: tuple[str, ...]
    layers: tuple[Layer, ...]


def page(
    registered: Registered[Example],
    root: Path,
    curves: Path | None = None,
    agreements: Mapping[str, str] | None = None,
) -> str:
    """The page of an example as Markdown.

    ``root`` is the folder that the page will be in: links to the source and to the picture of the
    curves are relative to it. ``agreements`` are what :func:`agreements_of` measured.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    example = registered.value
    environment = Environment(
        loader=PackageLoader("refimpl.authoring"), undefined=StrictUndefined, trim_blocks=True,
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
        left_out=_left_out(example),
        listings=list(listings(example)),
        agreements=agreements or {},
        values=list(_values(registered)),
        bug=_bug(example, root / MUTANTS),
        pair=_pair(example),
        curves=curves.name if curves is not None else None,
    )


def draw_curves(example: Example, path: Path) -> bool:
    """Train variants of an example on its stand-in data and draw their learning curves.

    Variants that repeat the first of their ladder are left out. What the last of them predicts for
    the first rows is drawn below. Returns ``False`` if there is nothing to draw: a run of one epoch
    has no curve.
    """
    histories, rows = {}, None
    for variant in _different(example)[:MOST_CURVES]:
        if not _runs_here(variant):
            continue
        problem = pose(variant)
        history = train(variant, problem)
        if len(history.epochs) > 1:
            histories[variant.name] = history
        if history.last is not None:
            rows = predicted_by(variant, problem, history.last) or rows
    if histories or rows:
        plot_histories(histories, f"{example.name} on stand-in data", path, rows=rows)
    return bool(histories or rows)


def agreements_of(example: Example) -> dict[str, str]:
    """By the name of each rung of a ladder, how closely it was measured to agree with the last."""
    found = {}
    for variant in example.variants:
        before = rung_before(example, variant)
        if before is None or not (_runs_here(variant) and _runs_here(before)):
            continue
        seen = compare_in_ladder(before, variant, "stand-in", STEPS, "float64")
        off = f"off by at most {seen.worst_ratio:.2g} of what rounding explains"
        steps = "the first step" if seen.steps == 1 else f"{seen.steps} steps"
        found[variant.name] = (
            f"against `{before.name}`: {seen.judged} tensors of {steps} in float64, "
            f"{off if seen.worst_ratio else 'all equal to the last bit'}"
            if seen.agrees
            else f"against `{before.name}`: {seen.divergence or 'nothing could be compared'}"
        )
    return found


def agreements_in(path: Path) -> dict[str, str]:
    """What a page says was measured; nothing if there is no such page."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return dict(AGREEMENT.findall(text))


# --- what it says of itself ----------------------------------------------------------------------


def _teaches(registered: Registered[Example]) -> str:
    """The plugin's docstring, or the example's title if there is none to read."""
    path = registered.source.path
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path else None
    return _markdown(text or registered.value.title)


def _markdown(text: str) -> str:
    """The text of a docstring, with its code marked as in Markdown."""
    return text.replace("``", "`").strip()


def _source(registered: Registered[Example], root: Path) -> str:
    """A link to the plugin if it is in the same checkout as the page, else its origin."""
    path, home = registered.source.path, _checkout(root.resolve())
    if path is None or home is None or _checkout(path.parent) != home:
        return registered.origin
    return f"[{path.name}]({Path(os.path.relpath(path, root.resolve())).as_posix()})"


def _checkout(folder: Path) -> Path | None:
    """The nearest folder, from this one upwards, that contains a project."""
    around = (folder, *folder.parents)
    return next((near for near in around if (near / "pyproject.toml").is_file()), None)


def _data(example: Example) -> Iterator[tuple[str, str, str]]:
    """Each data set: its name, what its stand-in is, and its shapes."""
    sets = {id(v.data): v.data for v in example.variants if v.data is not None}
    for data in sets.values():
        if missing_data(data, "stand-in") is None:
            maker = data.stand_in.func if isinstance(data.stand_in, partial) else data.stand_in
            says = (inspect.getdoc(maker) or "").partition("\n")[0]
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

    if variant.needs is not None:  # the page must be the same on machines that lack it
        return variant.facts.layers if variant.facts else ()
    if variant.bare or variant.numpy:
        return ()
    if first_step(variant, "stand-in").step.module is None:
        return ()
    return tuple(row for row in live_summary(variant, "stand-in").layers if row.name)


def _different(example: Example) -> list[Variant]:
    """The variants whose runs differ: all but those that repeat the first of their ladder."""
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
    """Two variants that ``refimpl compare`` can compare with each other."""
    for variant in example.variants:
        if variant.ladder is not None:
            first = first_of_ladder(example, variant)
            if first is not variant:
                return first.name, variant.name
    return None


def _values(registered: Registered[Example]) -> Iterator[tuple[str, str, str]]:
    """Each exact value: its name, the expression that computes it, and the value."""
    computed = expressions(registered.source.path)
    for value in registered.value.values:
        yield value.name, _short(computed.get(value.name, ""), quoted=False), _short(value.expected)


def _bug(example: Example, table: Path) -> Bug | None:
    """A bug that one check catches in every example that was tried, another for each page."""
    if not table.is_file():
        return None
    tried, _, by_mutant = table.read_text(encoding="utf-8").partition("## By mutant")
    names = re.findall(r"^\| ([\w-]+) \| \d", tried, re.MULTILINE)
    everywhere = rf"^\| ([\w-]+) \| (.+) \| ([\w-]+) \({len(names)}\) \|  \|$"
    bugs = re.findall(everywhere, by_mutant, re.MULTILINE)
    if example.name not in names or not bugs:
        return None
    name, what, caught_by = bugs[names.index(example.name) % len(bugs)]
    return Bug(name, _markdown(what), caught_by)


# --- what the document states --------------------------------------------------------------------


def _figures(example: Example) -> Iterator[tuple[str, Figure, str, str]]:
    """Each figure: its variants, the figure itself, and its ranges on real and stand-in data.

    Those between the first epoch and the end are left out: they may be many, and the ledger lists
    them.
    """
    stated: dict[tuple[Figure, str, str], list[str]] = {}
    for variant in example.variants:
        for figure in variant.facts.figures if variant.facts else ():
            if _between(figure):
                continue
            real = _range(figure.range_on(variant.figures_tier("real")))
            stand_in = _range(figure.range_on(variant.figures_tier("stand-in")))
            stated.setdefault((figure, real, stand_in), []).append(variant.name)
    for (figure, real, stand_in), names in stated.items():
        yield ", ".join(names), figure, real, stand_in


def _between(figure: Figure) -> bool:
    """Whether it is of a step of an epoch, or of an epoch between the first and the last."""
    return figure.step is not None or (figure.epoch or 0) > 1


def _left_out(example: Example) -> int:
    """How many figures the page leaves to the ledger."""
    facts = [variant.facts for variant in example.variants if variant.facts]
    return sum(_between(figure) for each in facts for figure in each.figures)


def _range(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else f"{limits[0]:.8g} … {limits[1]:.8g}"


def _short(value: Any, quoted: bool = True) -> str:
    """A value as text, shortened to fit on one line of a table."""
    text = one_line(repr(value) if quoted else value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _cell(text: object) -> str:
    """Text for a table cell: on one line, with the character that would end the cell escaped."""
    return one_line(text).replace("|", "\\|")


# --- all of them ---------------------------------------------------------------------------------


def write(
    examples: Sequence[Registered[Example]], folder: Path, curves: bool, index: bool = False
) -> Iterator[Path]:
    """Write the page of each example into ``folder`` and yield every path that is written.

    Without ``curves``, pictures and measured agreements are kept. ``index`` adds a page of them
    all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for registered in examples:
        name = registered.value.name
        picture = folder / f"{name}.svg"
        if curves and draw_curves(registered.value, picture):
            yield picture
        path = folder / f"{name}.md"
        agreements = agreements_of(registered.value) if curves else agreements_in(path)
        text = page(registered, folder, picture if picture.is_file() else None, agreements)
        write_text(path, text)
        yield path
    if index:
        path = folder / INDEX
        write_text(path, index_page([each.value for each in examples]))
        yield path


def index_page(examples: Sequence[Example]) -> str:
    """The page that lists the pages."""
    rows = [
        f"| [{e.name}]({e.name}.md) | {_cell(e.title)} | {_cell(f'{e.document} {e.section}')} |"
        for e in examples
    ]
    head = ["# The examples", "", "Made by `refimpl docs`.", "", "| example | what | document |"]
    return "\n".join([*head, "| --- | --- | --- |", *rows, ""])
