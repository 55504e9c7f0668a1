"""What is wrong with a plugin, in one line for its author."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Refusal:
    """A plugin, or one of its examples, that was refused.

    ``origin`` says where the plugin came from; ``plugin`` is its short name. ``code`` is a stable
    word for the kind of problem, ``reason`` says what is wrong, and ``hint`` what to do about it.
    ``file`` and ``line`` (from 1) point at the cause, if known. ``examples`` are the names that are
    missing because of it, as far as they are known. ``trace`` is the traceback, if the plugin
    raised an exception.
    """

    origin: str
    plugin: str
    code: str
    reason: str
    hint: str = ""
    file: Path | None = None
    line: int | None = None
    examples: tuple[str, ...] = ()
    trace: str = field(default="", repr=False, compare=False)

    @property
    def message(self) -> str:
        """What is wrong and what to do, without the place."""
        return f"{self.reason}; {self.hint}" if self.hint else self.reason

    def __str__(self) -> str:
        place = ""
        if self.file is not None and self.line is not None:
            place = f" at {from_here(self.file)}:{self.line}"
        return f"plugin {self.plugin} ({self.origin}){place}: {self.message}"


def from_here(file: Path) -> str:
    """``file`` relative to the working folder, if it lies below it."""
    try:
        return str(file.relative_to(Path(os.getcwd())))
    except (ValueError, OSError):
        return str(file)
