"""Values of the contract as the Python source that makes them, laid out to be pasted."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass

WIDTH = 100
INDENT = "    "


def source_of(value: object, indent: str = "", taken: int = 0) -> str:
    """The source of a dataclass, tuple or plain value, without fields that have their default.

    A line that would be longer than :data:`WIDTH` is broken as a formatter would break it: one
    part a line, with a comma after the last. ``indent`` is that of the line it begins on, of
    which ``taken`` characters are in use.
    """
    on_one_line = _flat(value)
    if len(indent) + taken + len(on_one_line) <= WIDTH or not _parts(value):
        return on_one_line
    opening, closing = _brackets(value)
    inner = indent + INDENT
    lines = [
        f"{inner}{key}{source_of(part, inner, len(key) + 1)},\n" for key, part in _parts(value)
    ]
    return f"{opening}\n{''.join(lines)}{indent}{closing}"


def _flat(value: object) -> str:
    parts = _parts(value)
    if parts is None:
        return repr(value)
    opening, closing = _brackets(value)
    inside = ", ".join(f"{key}{_flat(part)}" for key, part in parts)
    comma = "," if isinstance(value, tuple) and len(parts) == 1 else ""
    return f"{opening}{inside}{comma}{closing}"


def _brackets(value: object) -> tuple[str, str]:
    return ("(", ")") if isinstance(value, tuple) else (f"{type(value).__name__}(", ")")


def _parts(value: object) -> list[tuple[str, object]] | None:
    """What a value is made of, each with what stands before it; ``None`` where it is plain."""
    if isinstance(value, tuple):
        return [("", part) for part in value]
    if not is_dataclass(value) or isinstance(value, type):
        return None
    given = [(field, getattr(value, field.name)) for field in fields(value)]
    return [
        (_key(field), own) for field, own in given if not (_has_default(field) and own == _default(field))
    ]


def _key(field: Field[object]) -> str:
    """Required fields stand by their place, as in the contract; the others by their name."""
    return f"{field.name}=" if _has_default(field) else ""


def _has_default(field: Field[object]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _default(field: Field[object]) -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default
