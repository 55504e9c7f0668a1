"""The warnings that a check raises: each once, with its category and where it came from."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2].as_posix() + "/"

LONGEST = 300
"""So many characters of a warning's text are kept."""


@dataclass(frozen=True, order=True)
class Warned:
    """One warning: its category, the file that it was raised for, and its text in one line."""

    category: str
    origin: str
    text: str


@contextmanager
def collected() -> Iterator[list[Warned]]:
    """Collect the warnings of the code inside, each once, and print none of them.

    Deprecations are collected too, which Python leaves out by default. A filter that turns
    warnings into errors stays in force.
    """
    found: dict[Warned, None] = {}
    kept: list[Warned] = []

    def collect(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: object = None,
        line: object = None,
    ) -> None:
        text = " ".join(str(message).split())[:LONGEST]
        found[Warned(category.__name__, _origin(filename), text)] = None

    with warnings.catch_warnings():
        if not any(action == "error" for action, *_ in warnings.filters):
            for category in (DeprecationWarning, PendingDeprecationWarning):
                warnings.simplefilter("default", category)
        warnings.showwarning = collect
        try:
            yield kept
        finally:
            kept += found


def _origin(filename: str) -> str:
    """A file by its path from the package on: the same wherever the package is installed."""
    path = filename.replace("\\", "/")
    for installed in ("site-packages/", "dist-packages/"):
        _, found, rest = path.rpartition(installed)
        if found:
            return rest
    if path.startswith(CHECKOUT):  # whatever folder it is cloned into
        return path.removeprefix(CHECKOUT)
    for folder in ("/plugins/", "/refimpl/"):
        _, found, rest = path.rpartition(folder)
        if found:
            return found.strip("/") + "/" + rest
    return re.sub(r"^python3\.\d+/", "", "/".join(Path(path).parts[-2:]))
