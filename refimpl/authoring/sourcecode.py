"""Values of the contract as the Python source that makes them, formatted for pasting."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from decimal import Decimal
from math import isfinite

WIDTH = 100
INDENT = "    "

BY_PLACE = {"Layer": 4, "Figure": 2}
"""How many of a class's fields are written without their names, as the plugins write them."""


def source_of(value: object, indent: str = "", taken: int = 0) -> str:
    """The source of a dataclass, tuple or plain value, without fields that have their default.

    A line that would be longer than :data:`WIDTH` is broken as a formatter would break it: one
    part per line, with a comma after the last. ``indent`` is that of the line it begins on, after
    which ``taken`` characters are in use already.
    """
    on_one_line, parts = _flat(value), _parts(value)
    if len(indent) + taken + len(on_one_line) <= WIDTH or not parts:
        return on_one_line
    opening, closing = _brackets(value)
    inner = indent + INDENT
    lines = [f"{inner}{key}{source_of(part, inner, len(key) + 1)},\n" for key, part in parts]
    return f"{opening}\n{''.join(lines)}{indent}{closing}"


def _flat(value: object) -> str:
    parts = _parts(value)
    if parts is None:
        return _plain(value)
    opening, closing = _brackets(value)
    inside = ", ".join(f"{key}{_flat(part)}" for key, part in parts)
    comma = "," if isinstance(value, tuple) and len(parts) == 1 else ""
    return f"{opening}{inside}{comma}{closing}"


def _plain(value: object) -> str:
    if isinstance(value, str) and not {'"', "\\"} & set(value) and value.isprintable():
        return f'"{value}"'
    if isinstance(value, float) and isfinite(value):
        return _decimal(value)
    return repr(value)


def _decimal(value: float) -> str:
    """The number with all its digits and no exponent, as documents print it."""
    written = format(Decimal(repr(value)), "f")
    return written if "." in written else f"{written}.0"


def _brackets(value: object) -> tuple[str, str]:
    return ("(", ")") if isinstance(value, tuple) else (f"{type(value).__name__}(", ")")


def _parts(value: object) -> list[tuple[str, object]] | None:
    """The parts of a value, each with the text before it; ``None`` if it is a plain value."""
    if isinstance(value, tuple):
        return [("", part) for part in value]
    if not is_dataclass(value) or isinstance(value, type):
        return None
    placed = BY_PLACE.get(type(value).__name__, 0)
    given = [(field, getattr(value, field.name)) for field in fields(value)]
    return [
        ("" if place < placed else f"{field.name}=", own)
        for place, (field, own) in enumerate(given)
        if place < placed or own != _default(field)
    ]


def _default(field: Field[object]) -> object:
    """The default of a field; for a required one, an object that equals no value."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default
