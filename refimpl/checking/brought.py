"""Files of data that a plugin brings beside itself, in TOML."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refimpl.reading import plain_text, require_shallow

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from refimpl.loading.discovery import Source


def beside(source: Source, file: str) -> Path | None:
    """The ``file`` that a plugin brings, or ``None`` if it brings none."""
    return None if source.path is None else beside_module(source.path, file)


def beside_module(module: Path, file: str) -> Path | None:
    """The ``file`` that lies beside a plugin's module, or ``None`` if none does.

    It has that name in the folder of a plugin that is a package, and is ``NAME.file`` beside one
    that is a module ``NAME.py``.
    """
    name = file if module.name == "__init__.py" else f"{module.stem}.{file}"
    path = module.with_name(name)
    return path if path.is_file() else None


def content(path: Path) -> dict[str, Any]:
    """What the file says. Raises OSError, ValueError or RecursionError if that is not TOML."""
    found: dict[str, Any] = tomllib.loads(plain_text(path))
    require_shallow(found)
    return found


def strange_keys(raw: dict[str, Any], keys: Collection[str]) -> Iterator[str]:
    """For each key that an entry must not have, what is wrong, with the one that was meant."""
    for key in sorted(raw.keys() - set(keys)):
        near = difflib.get_close_matches(key, keys, n=1)
        yield f"unknown key {key!r}; " + (
            f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(keys)}"
        )
