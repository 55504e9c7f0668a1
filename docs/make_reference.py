"""Writes ``reference.md`` from the docstrings: run it after a change to one of them.

python docs/make_reference.py
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from refimpl import (
    conformance,
    contract,
    data,
    hookspecs,
    metrics,
)
from refimpl.authoring.sourcecode import source_of
from refimpl.checking import checks, expectations
from refimpl.checking.requests import DEFAULT_PARTS
from refimpl.conformance.checks import ALL
from refimpl.executions.built_in import refimpl_executions
from refimpl.training import checkpoint
from refimpl.training.keras_like import Model
from refimpl.training.problem import Problem
from refimpl.training.starts import torch_default

PAGE = Path(__file__).with_name("reference.md")

HEAD = """\
# Reference

Made from the docstrings by `python docs/make_reference.py`; a test checks that it is up to date.

In types, `Tensor` is torch's and `NDArray` NumPy's. `Arrays` are arrays by parameter name; a
`Start` draws them from a `numpy.random.Generator`. A `Loss` gives a scalar tensor for (output,
target), a `Metric` a score for each row or one for the batch. A `Tier` is `"stand-in"` or `"real"`.
"""

CHECKPOINTS = """\
`refimpl run NAME --save FILE` writes where the run ended: its parameters, buffers and optimizer
state, and how many updates it made. `load` of `refimpl.training.checkpoint` reads the file. A
problem with that checkpoint begins where the run stopped.

```sh
refimpl run titanic-dnn --epochs 2 --save run.pt
```

```python
from pathlib import Path

from refimpl.loading import registry
from refimpl.training.checkpoint import load
from refimpl.training.problem import pose
from refimpl.training.loop import train

variant = registry.load().example("titanic-dnn").variant("script")
problem = pose(variant, checkpoint=load(Path("run.pt")))

module = problem.load(variant.build())  # the module as it was trained
history = train(variant, problem)  # the rest of the ten epochs that the document trains for
assert [record.epoch for record in history.epochs] == [3, 4, 5, 6, 7, 8, 9, 10]
```

Pose the problem as the run did: `pose(variant, "real", seed=3)` if that had `--data real --seed 3`,
and `execution=on_device("cuda")`, from `refimpl.composition`, if it had `--device cuda`.
The rest of the run is then what it would have been without the stop. A run that made all its epochs
has no rest; only its module can be loaded.\
"""

EXECUTIONS = """\
## Executions

The parts that refimpl brings; [more can be added](new-execution.md). They are composed by name:
`cuda+bf16+compile` is the module, compiled, under autocast to bfloat16, on the GPU. The order does
not matter; two parts that set the same thing are refused. Any device that torch has a name for is a
part too (`mps`, `xpu`, `cuda:1`).

`check` compares the device of the run, and its combinations with the default parts, with the
oracle. `--execution NAME` (repeatable) selects others instead, on the device of the run unless they
name another, and `--execution all` selects every part.\
"""

GIVEN = [
    contract.Example,
    contract.Variant,
    contract.Protocol,
    contract.Schedule,
    contract.Stop,
    data.DataSet,
    data.Splits,
    data.Rows,
    contract.Facts,
    contract.Layer,
    contract.Sizes,
    contract.Figure,
    contract.Exact,
    contract.Failure,
    contract.Erratum,
    contract.Execution,
]

PARTS: list[tuple[str, str, list[Any]]] = [
    (
        "Hooks",
        "What refimpl calls in a plugin: functions without arguments, marked with `@hookimpl`.",
        [hookspecs.refimpl_examples, hookspecs.refimpl_executions],
    ),
    ("What a plugin gives", "All of it is imported from `refimpl`.", GIVEN),
    (
        "What a loop is given, and yields",
        "`steps(problem)` yields a `Step` after each update, and may yield an `Epoch`.",
        [Problem, contract.Step, contract.Epoch],
    ),
    (
        "Checkpoints",
        CHECKPOINTS,
        [checkpoint.Checkpoint, checkpoint.load, checkpoint.take, checkpoint.save],
    ),
    (
        "Helpers",
        "From `refimpl`.",
        [
            data.philox,
            torch_default,
            *(own for _, own in inspect.getmembers(metrics, inspect.isfunction)),
            Model,
        ],
    ),
    (
        "Asking",
        "From `refimpl.conformance`; the types are in `refimpl.checking`.",
        [
            conformance.check_example,
            conformance.parametrize_with_checks,
            checks.Result,
            checks.Measurement,
            expectations.ExpectedFailure,
        ],
    ),
]


def reference() -> str:
    """The whole page."""
    parts = [HEAD, *(part for each in PARTS for part in _part(*each)), *_checks(), *_executions()]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _part(title: str, says: str, things: list[Any]) -> Iterator[str]:
    yield f"## {title}\n\n{says}"
    for thing in things:
        yield from _class(thing) if inspect.isclass(thing) else _function(thing)


def _class(kind: type) -> Iterator[str]:
    yield f"### {kind.__name__}\n\n{_markdown(inspect.cleandoc(kind.__doc__ or ''))}"
    if is_dataclass(kind):
        yield from _fields(kind)
    members = [(name, own) for name, own in vars(kind).items() if not name.startswith("_")]
    lines = [
        f"- `.{name if isinstance(own, property) else _signature(name, own)}`: {_line(own.__doc__)}"
        for name, own in members
        if isinstance(own, property) or inspect.isfunction(own)
    ]
    if lines:
        yield "\n".join(lines)


def _function(function: Callable[..., object]) -> Iterator[str]:
    name = function.__name__
    yield f"### {name}\n\n```text\n{_signature(name, function)}\n```"
    yield _markdown(inspect.getdoc(function) or "")


def _fields(kind: Any) -> Iterator[str]:
    inherited = {
        field.name for base in kind.__mro__[1:] if is_dataclass(base) for field in fields(base)
    }
    own = [f for f in fields(kind) if f.name not in inherited and not f.name.startswith("_")]
    if not own:
        return
    rows = [f"| `{f.name}` | `{_escaped(str(f.type))}` | {_default(f)} |" for f in own]
    yield "\n".join(["| field | type | default |", "| --- | --- | --- |", *rows, ""])


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return f"`{source_of(field.default_factory())}`"
    if field.default is MISSING:
        return ""
    name = getattr(field.default, "__name__", None) or getattr(field.default, "name", None)
    if isinstance(name, str):
        return name.strip("_").replace("_", " ")
    return f"`{_escaped(repr(field.default))}`"


def _checks() -> Iterator[str]:
    yield "## Checks\n\nEvery question of the suite, cheapest first."
    rows = [f"| `{check.name}` | {check.about} | {_line(check.question)} |" for check in ALL]
    yield "\n".join(["| check | subject | question |", "| --- | --- | --- |", *rows, ""])
    yield "### How to read a failure"
    yield "\n".join([f"- `{check.name}`: {_line(check.reading)}." for check in ALL] + [""])


def _executions() -> Iterator[str]:
    yield EXECUTIONS
    rows = [
        f"| `{own.name}` | {_escaped(own.summary)} | {'yes' if own.name in DEFAULT_PARTS else ''} |"
        for own in refimpl_executions()
    ]
    head = ["| part | what | by default |", "| --- | --- | --- |"]
    yield "\n".join([*head, *rows, ""])


# --- docstrings as Markdown ----------------------------------------------------------------------


class _Written(str):
    """An annotation as it is written, without the quotes of a string."""

    __repr__ = str.__str__


def _signature(name: str, function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=_Written(parameter.annotation))
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    gives = _Written(signature.return_annotation)
    return f"{name}{signature.replace(parameters=parameters, return_annotation=gives)}"


def _line(text: str | None) -> str:
    return _escaped(" ".join(_markdown(inspect.cleandoc(text or "")).split()))


def _markdown(text: str) -> str:
    """Text as docstrings write it: roles and doubled backticks as code, ``::`` as a block."""
    text = re.sub(r":\w+:`~?(?:[^`<]*<)?([\w.]*?\.)?(\w+)>?`", r"`\2`", text)
    text = text.replace("``", "`")
    return re.sub(r"(\.?) ?::\n\n((?:    .*\n?|\n)+)", _block, text).strip()


def _block(found: re.Match[str]) -> str:
    code = textwrap.dedent(found[2]).strip()
    return f"{found[1] or ':'}\n\n```text\n{code}\n```\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"wrote {PAGE}")
