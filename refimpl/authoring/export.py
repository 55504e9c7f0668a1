"""An example as a program that needs no refimpl: its own source, and what refimpl does around it.

The program is written from the plugin's source, and a file beside it has the rows and the start
values. It makes the same run as ``refimpl run`` on the CPU, and prints the same figures.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from refimpl.authoring.excerpt import Excerpt, ExcerptError
from refimpl.contract import Example, Step, Variant
from refimpl.data import Splits, Tier
from refimpl.errors import RefimplError
from refimpl.requirements import missing
from refimpl.training.ladder import shared_name
from refimpl.training.loop import steps_of, swiftly
from refimpl.training.problem import Problem, pose
from refimpl.whereabouts import unwrapped
from refimpl.writing import whole_file, write_text

Form = Literal["script", "notebook"]

TEMPLATE = "program.py.jinja"

PROVIDED = (
    "Step", "Epoch", "Rows", "Problem", "SAVED", "SEED", "DROPOUT_SEED", "LOSS", "METRICS", "NAMES",
    "mean", "figures_on", "figures_of", "parameters_of", "line_of", "without_graph", "ends",
    "show_epoch", "main", "train_module",
)  # fmt: skip
"""The names that the program itself defines."""


class ExportError(RefimplError):
    """This variant cannot be written as a program without refimpl; the message says why."""


@dataclass(frozen=True)
class Program:
    """The text of the program, and the arrays that it reads."""

    text: str
    arrays: dict[str, NDArray[Any]]


def export(
    example: Example, variant: Variant, form: Form, folder: Path, tier: Tier = "stand-in"
) -> list[Path]:
    """Write the program and its arrays into ``folder``; returns both paths.

    Raises :class:`ExportError` if the variant cannot be written so, or if a file is in the way.
    """
    stem = f"{example.name}-{variant.name}".replace("-", "_")
    path = folder / f"{stem}{'.py' if form == 'script' else '.ipynb'}"
    saved = folder / f"{stem}.npz"
    for each in (path, saved):
        if each.exists():
            raise ExportError(f"{each} exists already; nothing was written")
    made = program(example, variant, form, saved.name, tier)
    stream = io.BytesIO()
    np.savez_compressed(stream, **made.arrays)  # type: ignore[arg-type]
    with whole_file(saved) as out:
        out.write(stream.getvalue())
    try:
        write_text(path, made.text if form == "script" else _notebook(made.text))
    except BaseException:
        saved.unlink()
        raise
    return [path, saved]


def program(
    example: Example, variant: Variant, form: Form, saved: str, tier: Tier = "stand-in"
) -> Program:
    """The program of a variant. Raises :class:`ExportError` as :func:`export` does."""
    if reasons := list(_beyond(variant)):
        raise ExportError(
            f"{example.name} {variant.name} cannot be exported: {', and '.join(reasons)}; "
            "refimpl run trains it"
        )
    problem = swiftly(pose(variant, tier))
    try:
        text = _text(example, variant, problem, form, saved)
    except ExcerptError as error:
        raise ExportError(
            f"{example.name} {variant.name} cannot be exported: {error}; refimpl run trains it"
        ) from error
    return Program(text, _arrays(problem))


def _beyond(variant: Variant) -> Iterator[str]:
    """What of a variant the program has no words for."""
    protocol, data = variant.protocol, variant.data
    if lacking := missing(variant.needs):
        yield lacking
    if protocol is None or data is None:
        yield "it trains nothing"
        return
    if data.batches is not None:
        yield "its data is a stream"
    elif variant.collate is not None:
        yield "its rows are collated"
    elif not all(isinstance(part, np.ndarray) for part in _parts(data.load("stand-in"))):
        yield "its rows are tuples or dicts"
    if variant.loss is None:
        yield "it states no loss"


def _parts(splits: Splits) -> Iterator[Any]:
    for rows in (splits.train, splits.valid):
        if rows is not None:
            yield from (rows.x, rows.y)


def _text(example: Example, variant: Variant, problem: Problem, form: Form, saved: str) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    module = _module(variant)
    excerpt = Excerpt(PROVIDED)
    protocol = problem.protocol

    def source(value: object) -> str:
        return excerpt.expression(value, module)

    metrics = ", ".join(f"{name!r}: {source(m)}" for name, m in (variant.metrics or {}).items())
    parts = {
        "steps": source(variant.steps) if variant.steps else "",
        "build": source(variant.build) if variant.steps is None else "",
        "optimizer": source(variant.optimizer) if variant.steps is None else "",
        "loss": source(variant.loss),
        "metrics": f"{{{metrics}}}",
        "prepared": f"{source(variant.prepare)}(x)" if variant.prepare else "x",
        "schedule": source(protocol.schedule.factor) if protocol.schedule else "",
    }
    lacking = excerpt.attributes_of("problem") - _offered()
    if lacking:
        used = ", ".join(f"problem.{name}" for name in sorted(lacking))
        raise ExcerptError(f"its loop uses {used}")
    own = steps_of(variant, problem, 1)
    first = next(own)
    environment = Environment(
        loader=PackageLoader("refimpl.authoring"), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    imports = {"np": "import numpy as np", "torch": "import torch", **excerpt.imports}
    if form == "script":
        imports["Path"] = "from pathlib import Path"
    where = f'Path(__file__).with_name("{saved}")' if form == "script" else f'"{saved}"'
    text = environment.get_template(TEMPLATE).render(
        **parts,
        example=example.name,
        variant=variant.name,
        tier=problem.tier,
        teaches=(ast.get_docstring(ast.parse(inspect.getsource(module))) or example.title),
        imports=sorted(set(imports.values()), key=_import_order),
        definitions=excerpt.text(),
        saved=saved,
        where=where,
        seed=problem.seed,
        dropout_seed=problem.dropout_seed,
        dtype=str(problem.dtype),
        learning_rate=protocol.learning_rate,
        batch_size=protocol.batch_size,
        valid_batch_size=protocol.valid_batch_size,
        epochs=protocol.epochs_on(problem.tier),
        shuffle=protocol.shuffle,
        plainly=protocol.clip is None and protocol.schedule is None and protocol.accumulate == 1,
        accumulate=protocol.accumulate,
        clip=protocol.clip or 'float("inf")',
        per_step=protocol.schedule is not None and protocol.schedule.per == "step",
        stop=protocol.stop,
        report=protocol.report,
        weighted=protocol.average == "samples",
        names={n: s for n in first.parameters if (s := shared_name(variant, n)[0]) != n},
        convolutions=_convolves(first),
        fused=any(g.get("fused") for o in first.optimizers.values() for g in o.param_groups),
    )
    return re.sub(r"\n{4,}", "\n\n\n", text)


def _module(variant: Variant) -> ModuleType:
    """The plugin that the variant's loop or module is from."""
    return sys.modules[unwrapped(variant.steps or variant.build).__module__]


def _offered() -> set[str]:
    """What the program's problem has."""
    from importlib.resources import files

    text = files("refimpl.authoring").joinpath("templates").joinpath(TEMPLATE).read_text("utf-8")
    own = text.partition("\nclass Problem:")[2].partition("\n# --- ")[0]
    return set(re.findall(r"\n    def (\w+)\(", own)) | set(re.findall(r"self\.(\w+) =", own)) | {
        "device", "dtype", "lr", "seed", "first_step", "clip",
    }  # fmt: skip


def _convolves(step: Step) -> bool:
    kinds = (nn.Conv1d, nn.Conv2d)
    return step.module is not None and any(isinstance(m, kinds) for m in step.module.modules())


def _arrays(problem: Problem) -> dict[str, NDArray[Any]]:
    """The rows of each split, and the start values, by their names in the file."""
    arrays = {f"start.{name}": np.asarray(value) for name, value in problem.values.items()}
    for name, rows in (("train", problem.train), ("valid", problem.valid)):
        if rows is None:
            continue
        for part in ("x", "y"):
            arrays[f"{name}.{part}"] = getattr(rows, part).numpy()
    return arrays


def _import_order(line: str) -> tuple[bool, str]:
    """Those of the standard library first, and then by name."""
    name = line.split()[1]
    return name.partition(".")[0] not in sys.stdlib_module_names, name


def _notebook(text: str) -> str:
    """The program as a notebook, with a cell for each of its sections."""
    head, *sections = re.split(r"^# --- (.*?) -+\n", text, flags=re.MULTILINE)
    docstring = ast.get_docstring(ast.parse(head)) or ""
    code = head.partition('"""')[2].partition('"""')[2]
    cells = [_cell("markdown", docstring), _cell("code", code)]
    for title, section in zip(sections[::2], sections[1::2], strict=True):
        cells += [_cell("markdown", f"## {title.capitalize()}"), _cell("code", section)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}}
    cell["source"] = text.strip().splitlines(keepends=True)
    return {**cell, "outputs": [], "execution_count": None} if kind == "code" else cell
