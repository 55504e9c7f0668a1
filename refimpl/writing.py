"""Files that are written whole or not at all; devices and pipes are written to as they are."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from refimpl.errors import RefimplError

MOVES_KEPT = 12
"""The most moves that a file keeps of one change."""


@dataclass(frozen=True)
class Change:
    """A change of a file that checks compare with: why it was made, and what moved."""

    because: str
    moved: tuple[str, ...] = ()


class WriteError(RefimplError):
    """A file cannot be written; what was there before is unchanged."""


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content replaces ``path``, on the disk, if the block ends without an error.

    A device, a pipe or this process's own output is opened and written to. Raises
    :class:`WriteError`, which names ``path``, if the disk is full or nothing can be written there.
    """
    with _naming(path):
        if is_stream(path):
            with path.open("wb") as stream:
                yield stream
            return
        target = Path(os.path.realpath(path))  # the file that a link names, not the link
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(part, 0o644)
            os.replace(part, target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise


def is_stream(path: Path) -> bool:
    """Whether this is a device, a pipe or a descriptor of this process, not a file of its own."""
    if os.path.exists(path) and not path.is_file():
        return not path.is_dir()
    folder = os.path.realpath(path.absolute().parent)
    return folder.startswith("/proc/") or (folder == "/dev" and path.name in ("stdout", "stderr"))


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all.

    What UTF-8 cannot express (half of a surrogate pair, as in a file name of another encoding) is
    written as an escape.
    """
    with whole_file(path) as stream:
        stream.write(text.encode(errors="backslashreplace"))


def write_lines(path: Path, lines: list[str]) -> None:
    """Write lines of text, each followed by a newline."""
    write_text(path, "".join(line + "\n" for line in lines))


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, on the disk before anything else happens.

    Raises :class:`WriteError`, which names ``path``; what cannot be written whole is taken back.
    """
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            before = stream.tell()
            try:
                stream.write(f"{line}\n".encode(errors="backslashreplace"))
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                with suppress(OSError):
                    os.truncate(path, before)
                raise


def plain(value: Any) -> Any:
    """A value as data that every reader of JSON takes.

    NaN, the infinities, whole numbers of more than 64 bits and values of other types become text;
    half of a surrogate pair becomes an escape.
    """
    if isinstance(value, dict):
        return {_text(key): plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(own) for own in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, int) and -sys.maxsize <= value <= sys.maxsize:
        return int(value)
    return _text(value)


def _text(value: Any) -> str:
    return str(value).encode(errors="backslashreplace").decode()


class AloneError(RefimplError):
    """Another process is writing this file."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else writes ``path`` inside the block; raises :class:`AloneError` if someone does."""
    from filelock import FileLock, Timeout

    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise AloneError("another process is writing it") from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: else another's might go
        lock.release()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name ``path`` in an error of the file system that is about writing to it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if error.filename else None
        target = Path(os.path.realpath(path))
        # An error of write() names no file; one that names another file is the block's own.
        if named and not named.name.startswith(target.name) and named not in target.parents:
            raise
        raise WriteError(
            f"cannot write {path}: {error.strerror or error}; what was there is unchanged"
        ) from error
