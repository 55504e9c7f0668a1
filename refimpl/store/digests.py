"""Digests of data files: the one place that computes, compares and records them."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from refimpl.reading import open_plain

ALGORITHM = "sha256"
RECORD_SUFFIX = ".sha256"

MOST_UNZIPPED = 256 << 20
"""The most bytes that a gzip stream may hold; the largest of the documents' holds 47 MB."""

_BLOCK = 1 << 20


def of_bytes(content: bytes) -> str:
    """The sha256 of ``content``, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def of_file(path: Path, *, unzip: bool = False) -> str:
    """The sha256 of a file; with ``unzip``, of its content without the gzip wrapper.

    Raises what :mod:`gzip` raises if the wrapper is damaged, and :class:`OSError` if this is no
    plain file or holds too much.
    """
    hasher = hashlib.sha256()
    with open_plain(path) as packed:
        for block in unzipped(packed, path) if unzip else iter(lambda: packed.read(_BLOCK), b""):
            hasher.update(block)
    return hasher.hexdigest()


def files_of(path: Path) -> Iterator[Path]:
    """A file, or the files of a folder, but for what Python compiles."""
    found = path.rglob("*") if path.is_dir() else [path]
    return (file for file in found if file.is_file() and file.suffix != ".pyc")


def unzipped(packed: IO[bytes], path: Path, most: int = MOST_UNZIPPED) -> Iterator[bytes]:
    """The content of a gzip stream, block by block.

    Raises what :mod:`gzip` raises if it is damaged, and :class:`OSError` as soon as it holds more
    than ``most`` bytes: a small file can hold more than any memory.
    """
    stream = cast("IO[bytes]", gzip.GzipFile(fileobj=packed))
    left = most
    while block := stream.read(_BLOCK):
        left -= len(block)
        if left < 0:
            raise OSError(errno.EFBIG, f"its gzip stream holds more than {most:,} bytes", str(path))
        yield block


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
