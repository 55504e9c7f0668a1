"""Digests of data files: the one place that computes, compares and records them."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

ALGORITHM = "sha256"
RECORD_SUFFIX = ".sha256"

_BLOCK = 1 << 20


def of_bytes(content: bytes) -> str:
    """The sha256 of ``content``, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def of_file(path: Path, *, unzip: bool = False) -> str:
    """The sha256 of a file; with ``unzip``, of its content without the gzip wrapper.

    Raises what :mod:`gzip` raises if the wrapper is damaged.
    """
    hasher = hashlib.sha256()
    with gzip.open(path) if unzip else path.open("rb") as stream:
        for block in iter(lambda: cast("IO[bytes]", stream).read(_BLOCK), b""):
            hasher.update(block)
    return hasher.hexdigest()


def difference(found: str, accepted: Sequence[str]) -> str:
    """The message for a digest that is none of the accepted ones; empty if it is one."""
    if found in accepted:
        return ""
    return f"expected {ALGORITHM} {' or '.join(accepted)}, found {found}"


def record_path(path: Path) -> Path:
    """Where the digest of a file made on this machine is kept: beside it."""
    return path.with_name(path.name + RECORD_SUFFIX)


def record(path: Path) -> None:
    """Keep the digest of a file just made, in the format of ``sha256sum``.

    A file made here from a published archive is not byte for byte the one made elsewhere, so no
    listed digest matches it; its own digest shows later damage.
    """
    target = record_path(path)
    draft = target.with_name(target.name + f".{os.getpid()}")
    draft.write_text(f"{of_file(path)}  {path.name}\n", "utf-8")
    draft.replace(target)


def recorded(path: Path) -> str | None:
    """The digest that :func:`record` kept for this file, or ``None`` if there is none."""
    try:
        words = record_path(path).read_text("utf-8").split()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    return words[0] if words else None
