"""Laws of rows: what the rows of a data set are drawn from, as its document says.

A law names a quantity of each row and its distribution: ``"y - 2 * x0 - 1" = "N(0, 0.01)"``, with
the variance as the second number, or ``"x0" = "U(-5, 5)"``. ``x0``, ``x1``, … are the columns,
``y`` the target; what follows ``|`` chooses rows: ``"hypot(x0, x1) | y == 1"``.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FUNCTIONS = {name: getattr(np, name) for name in ("hypot", "arctan2", "abs", "log", "exp", "sqrt")}
NUMBERS = {"pi": np.pi}

ALLOWED = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Name, ast.Constant,
    ast.Load, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """A number of each row, of all rows or of those that are chosen."""

    number: CodeType
    chosen: CodeType | None

    @classmethod
    def of(cls, text: str) -> Quantity:
        """Read it. Raises ValueError if it is no such expression."""
        number, bar, chosen = text.partition("|")
        return cls(_compiled(number), _compiled(chosen) if bar else None)

    def of_rows(self, x: Array, y: Array) -> Array:
        """Its values, for x (N, columns) and y (N,)."""
        names = {**FUNCTIONS, **NUMBERS, "y": y, **{f"x{n}": own for n, own in enumerate(x.T)}}
        values = _evaluated(self.number, names)
        if self.chosen is not None:
            values = values[_evaluated(self.chosen, names)]
        return np.asarray(values, np.float64)


def _evaluated(code: CodeType, names: dict[str, Any]) -> Any:
    return eval(code, {"__builtins__": {}}, names)


def _compiled(text: str) -> CodeType:
    try:
        parsed = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{text.strip()!r} is no expression of x0, x1, … and y") from error
    for part in ast.walk(parsed):
        name = part.id if isinstance(part, ast.Name) else ""
        known = name in FUNCTIONS or name in NUMBERS or re.fullmatch(r"y|x\d+", name)
        if not isinstance(part, ALLOWED) or (name and not known):
            what = name or type(part).__name__
            known_ones = ", ".join((*FUNCTIONS, *NUMBERS))
            raise ValueError(f"{text.strip()!r} has {what}; there are x0, x1, …, y, {known_ones}")
    return compile(parsed, "a law", "eval")


_LAW = re.compile(r"(?P<kind>[NU])\((?P<first>[^,]+), (?P<second>[^)]+)\)$")


def law(text: str) -> Any:
    """The distribution of SciPy that ``N(MEAN, VARIANCE)`` or ``U(LOW, HIGH)`` names.

    Raises ValueError if it is neither.
    """
    from scipy import stats

    found = _LAW.match(text)
    if found is None:
        raise ValueError(f"{text!r} is no law; write 'N(MEAN, VARIANCE)' or 'U(LOW, HIGH)'")
    first, second = (
        float(_evaluated(_compiled(found[part]), NUMBERS)) for part in ("first", "second")
    )
    if found["kind"] == "N":
        return stats.norm(first, np.sqrt(second))
    return stats.uniform(first, second - first)
