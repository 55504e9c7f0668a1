"""What a learner's page shows of a plugin's source: variants, rungs of a ladder, expressions."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from refimpl.contract import Example, Variant

CONTEXT = 2
"""How many lines that are the same stand around a difference."""

OWN_LOOP = "# The loop is refimpl's: for each batch forward, loss, backward and an optimizer step."


@dataclass(frozen=True)
class Listing:
    """A variant's source: in full, or as its difference from the rung of the ladder before it."""

    name: str
    text: str
    before: str = ""

    @property
    def language(self) -> str:
        """What it is to be highlighted as."""
        return "diff" if self.before else "python"


def listings(example: Example) -> Iterator[Listing]:
    """The source of each variant whose source there is, each text once."""
    seen: set[str] = set()
    for variant in example.variants:
        own = source(variant)
        below = rung_before(example, variant)
        before = source(below) if below is not None else ""
        if not own or (own in seen and own != before):
            continue
        seen.add(own)
        if below is None or not before:
            yield Listing(variant.name, own)
        else:
            yield Listing(variant.name, difference(before, own), below.name)


def rung_before(example: Example, variant: Variant) -> Variant | None:
    """The variant of the same ladder that stands before it, or ``None``."""
    rungs = [v for v in example.variants if v.ladder == variant.ladder and v.ladder is not None]
    place = next((n for n, rung in enumerate(rungs) if rung is variant), 0)
    return rungs[place - 1] if place else None


def difference(before: str, after: str) -> str:
    """The lines that differ, as a diff with a little of what stands around them."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=CONTEXT)
    kept = [line for line in lines if not line.startswith(("---", "+++"))]
    return "\n".join("…" if line.startswith("@@") else line for line in kept).removeprefix("…\n")


def source(variant: Variant) -> str:
    """The source of the variant's net and of its loop, as far as they are the plugin's own."""
    parts = list(dict.fromkeys(filter(None, map(_source, (variant.build, variant.steps)))))
    if parts and variant.trains and variant.steps is None:
        parts.append(OWN_LOOP)
    return "\n\n\n".join(parts)


def _source(value: Any) -> str:
    while isinstance(value, partial):
        value = value.func
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return ""
    if value.__name__ == "<lambda>" or value.__module__.split(".")[0] == "torch":
        return ""
    if value.__module__.startswith("refimpl.") and ".plugins." not in value.__module__:
        return ""
    try:
        return textwrap.dedent(inspect.getsource(value)).rstrip()
    except (OSError, TypeError):
        return ""


def expressions(path: Path | None) -> dict[str, str]:
    """By the name of each exact value, the expression of the plugin that computes it."""
    if path is None:
        return {}
    text = path.read_text(encoding="utf-8")
    found = {}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or len(node.args) < 2:
            continue
        if not isinstance(node.func, ast.Name) or node.func.id != "Exact":
            continue
        name, compute = node.args[:2]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            found[name.value] = _called(compute)
    return found


def _called(compute: ast.expr) -> str:
    """What is computed: the body of a lambda, or the call of a function."""
    if isinstance(compute, ast.Lambda):
        return ast.unparse(compute.body)
    return f"{ast.unparse(compute)}()"
