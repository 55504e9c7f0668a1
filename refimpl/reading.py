"""What is read from outside: plain files of a bounded size, and data of a stated shape.

Readers turn :class:`OSError` and :class:`ShapeError` into an error of their own, which names the
file, or its line.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

Shape = TypeVar("Shape")

LARGEST = 1 << 30
"""The most bytes that a file may have; the largest that belongs to a document has 50 MB."""

DEEPEST = 60
"""How deep lists and objects may be nested."""


class ShapeError(ValueError):
    """Some data are not what they should be; the message says what is where, and what should be."""


def open_plain(path: Path, largest: int = LARGEST) -> IO[bytes]:
    """A plain file, opened to be read.

    Raises :class:`OSError` for a pipe, a device or a folder, which is not even opened, and for a
    file of more than ``largest`` bytes.
    """
    # Not blocking, for who swaps a file for a pipe between the question and the opening.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    about = os.stat(path)
    if stat.S_ISREG(about.st_mode):
        stream = os.fdopen(os.open(path, flags), "rb")
        about = os.fstat(stream.fileno())
    if not stat.S_ISREG(about.st_mode):
        kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
        raise OSError(errno.EINVAL, f"it is {kind}, and only plain files are read", str(path))
    if about.st_size > largest:
        stream.close()
        size = f"it has {about.st_size:,} bytes, and at most {largest:,} are read"
        raise OSError(errno.EFBIG, size, str(path))
    return stream


def plain_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """The content of a plain file; raises as :func:`open_plain`."""
    content = bytearray()
    with open_plain(path, largest) as stream:
        while block := stream.read(1 << 20):
            content += block
            if len(content) > largest:  # it grew, or its file system does not know its size
                raise OSError(errno.EFBIG, f"it has more than {largest:,} bytes", str(path))
    return bytes(content)


def plain_text(path: Path, largest: int = LARGEST) -> str:
    """The same, as text in UTF-8; :class:`ShapeError` if it is none."""
    try:
        return plain_bytes(path, largest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ShapeError(f"byte {error.start} is no UTF-8") from error


def why(error: Exception) -> str:
    """What went wrong, without the file's name, which the caller puts before it."""
    return str(getattr(error, "strerror", None) or error)


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text; :class:`ShapeError` if it is none, or nested too deeply."""
    return decoded(text, Any)


def decoded(text: str | bytes, shape: type[Shape]) -> Shape:
    """The value of a JSON text of this shape: a type of Python's, in which dataclasses may be."""
    try:
        content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        value = msgspec.json.decode(content)
    except RecursionError as error:
        raise ShapeError(f"lists or objects in it are more than {DEEPEST} deep") from error
    except (msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise ShapeError(f"not JSON ({error})") from error
    return shaped(value, shape)


def shaped(value: Any, shape: type[Shape]) -> Shape:
    """A value of plain data as this shape, without any conversion but of lists and objects."""
    try:
        require_shallow(value)
        return msgspec.convert(value, shape)
    except (msgspec.ValidationError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ShapeError(_plainly(str(error))) from error


def require_shallow(value: Any, depth: int = 0) -> None:
    """Raise :class:`ShapeError` for lists and objects nested too deeply, or numbers too long."""
    if depth > DEEPEST:
        raise ShapeError(f"lists or objects in it are more than {DEEPEST} deep")
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, int) and not -sys.maxsize <= value <= sys.maxsize:
        raise ShapeError("a whole number in it has more than 64 bits")
    elif not isinstance(value, (list, tuple)):
        return
    for own in value:
        require_shallow(own, depth + 1)


_WORDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text",
    "array": "a list", "object": "an object", "null": "null",
}  # fmt: skip


def _plainly(message: str) -> str:
    """msgspec's message in plain words: ``measurements[0].holds: expected …, found …``."""
    said, _, place = message.partition(" - at ")
    place = place.strip("`").removeprefix("$").removeprefix(".")
    words = re.sub(r"`([\w| ]+)`", lambda m: _named(m[1]), said)
    words = words.replace("Expected", "expected").replace(", got", ", found")
    words = re.sub(r"[Ii]nvalid enum value (.+)", r"\1 is not one of the values it may have", words)
    words = words.replace("Object missing required field", "it lacks the field")
    words = words[:1].lower() + words[1:] if words[:2].istitle() else words
    return f"{place}: {words}" if place else words


def _named(kinds: str) -> str:
    return " or ".join(_WORDS.get(kind.strip(), kind.strip()) for kind in kinds.split("|"))
