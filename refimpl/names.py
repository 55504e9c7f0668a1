"""Errors for unknown names, with the nearest match."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from refimpl.errors import UnknownNameError


def unknown(what: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """An error that says what is unknown, with the nearest match or else all known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return UnknownNameError(f"{what}; did you mean {near[0]!r}?")
    return UnknownNameError(f"{what}; there are: {', '.join(names)}" if names else what)
