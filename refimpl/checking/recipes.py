"""Recipes: how a document builds and trains a model, stated beside its claims and never measured.

A plugin's ledger has them (see :mod:`refimpl.checking.claims`), written from the document::

    [[recipe]]
    section = "1-1"
    variants = ["script"]
    layers = ["Linear(15, 20)", "Linear(20, 15)", "Linear(15, 1)"]
    calls = { linear = 3, relu = 2, sigmoid = 1 }
    start = "torch"
    loss = "BCELoss()"
    optimizer = { kind = "Adam", betas = [0.9, 0.999] }
    protocol = { epochs = 10, learning_rate = 0.01, batch_size = 8, shuffle = true }
    rows = [712, 179]

    [[recipe]]
    section = "3-1"
    law = { "hypot(x0, x1) | y == 1" = "N(5, 1)", "arctan2(x1, x0)" = "U(-pi, pi)" }

``layers`` are the layers of torch in their order, with what their constructors are given. ``calls``
counts what one forward pass calls, but for shapes and sums. ``start`` is ``"torch"``, or a table of
patterns of parameters' names, each with a distribution or ``"torch"``. What ``optimizer`` does not
name has torch's default; ``made_anew = true`` says that each update makes a new one. ``batch_size =
"none"`` means all rows in one batch. ``rows`` are how many there are to train on and to validate
with; ``law`` says how rows are drawn that the document makes itself (see
:mod:`refimpl.checking.laws`). No command writes a recipe, so that it stays what it was when the
plugin moves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from math import prod, sqrt
from typing import Any

from torch import nn

from refimpl.checking import laws
from refimpl.contract import Protocol
from refimpl.records.stated import made_of
from refimpl.training.starts import Distribution

WHERE = ("section", "variants", "example")

TORCH = "torch"
"""The start that torch's layers have by default."""

NONE = "none"
"""A setting of the protocol that is left out: no batches, no clipping. TOML has no word for it."""


@dataclass(frozen=True)
class Recipe:
    """What a document states of some variants, or of all if none is named."""

    section: str
    variants: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    calls: Mapping[str, int] = field(default_factory=dict)
    start: str | Mapping[str, str] = ""
    loss: str = ""
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[int, ...] = ()
    law: Mapping[str, str] = field(default_factory=dict)
    example: str = ""

    def is_of(self, variant: str) -> bool:
        """Whether it is about the variant of this name."""
        return not self.variants or variant in self.variants


def wrong(entry: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an entry of a file, whose keys are those of a recipe."""
    kinds: Mapping[str, Any] = {
        "section": str, "example": str, "loss": str, "start": (str, dict),
        "variants": list, "layers": list, "calls": dict, "optimizer": dict, "protocol": dict,
        "rows": list, "law": dict,
    }  # fmt: skip
    for key, kind in kinds.items():
        if key in entry and (not isinstance(entry[key], kind) or not entry[key]):
            yield f"{key} must not be empty, nor another kind of value; found {entry[key]!r}"
            return
    if not entry.keys() - set(WHERE):
        yield "it states nothing; give " + ", ".join(n for n in kinds if n not in WHERE)
    try:
        for text in (*entry.get("layers", ()), *filter(None, [entry.get("loss")])):
            built(text)
        start = entry.get("start", {})
        for text in start.values() if isinstance(start, dict) else ():
            if text != TORCH:
                distribution(text, (1, 1))
        for quantity, text in entry.get("law", {}).items():
            laws.law(text)
            laws.Quantity.of(quantity)
    except ValueError as error:
        yield str(error)
    if isinstance(entry.get("start"), str) and entry["start"] != TORCH:
        yield f"start = {entry['start']!r} is none; write 'torch', or a table of distributions"
    if "optimizer" in entry and "kind" not in entry["optimizer"]:
        yield "optimizer has no kind"
    known = {f.name for f in fields(Protocol)}
    if strange := sorted(entry.get("protocol", {}).keys() - known):
        yield f"protocol has {', '.join(strange)}; there are: {', '.join(sorted(known))}"


def built(text: str) -> nn.Module:
    """The layer or loss of torch that ``Conv2d(3, 32, 3)`` makes. Raises ValueError otherwise."""
    made: nn.Module = made_of(text, nn)
    return made


_DISTRIBUTION = re.compile(r"(?:N\(0, (?P<variance>[^)]+)\)|(?P<constant>-?[\d.]+))$")


def distribution(text: str, shape: tuple[int, ...]) -> Distribution:
    """``N(0, 1/784)`` or a constant, of a parameter of this shape. Raises ValueError otherwise.

    The second number is the variance; in it, ``fan_in`` is how many inputs a number of the output
    has, if the shape is (outputs, inputs, …).
    """
    found = _DISTRIBUTION.match(text)
    if found is None:
        raise ValueError(f"{text!r} is no start; write 'N(0, VARIANCE)' or a number")
    if found["constant"] is not None:
        return Distribution("constant", float(found["constant"]))
    try:
        variance = Fraction(found["variance"].replace("fan_in", str(prod(shape[1:]))))
    except ValueError as error:
        raise ValueError(f"{text!r} has no variance that is a number or a fraction") from error
    return Distribution("normal", sqrt(variance))
