"""Unpacks archives from elsewhere without trusting a member's name or kind.

Each member is examined before anything is written, and only plain files and folders are written:
no links, devices, owners or permission bits come out of an archive.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from refimpl.errors import DataError, printable
from refimpl.reading import open_plain, why

MAX_MEMBERS = 100_000
MAX_BYTES = 4 << 30

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_LONGEST_PART, _LONGEST_NAME = 255, 1024
_BLOCK = 1 << 20

_READ_WHOLE = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LARGEST_HEADER = 1 << 16

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    ValueError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold before it is refused."""

    members: int = MAX_MEMBERS
    bytes: int = MAX_BYTES


def unpack(archive: Path, folder: Path, limits: Limits | None = None) -> tuple[str, ...]:
    """Unpack a tar, tar.gz or zip into a folder that must not exist yet.

    Every member is examined before the first is written. The folder appears whole or not at all.
    Returns the paths of the files, relative to the folder. Raises
    :class:`~refimpl.errors.DataError` if the archive is damaged, exceeds the limits or has a
    member that is not a plain file or folder with a plain relative name.
    """
    limits = limits or Limits()
    if os.path.lexists(folder):
        raise DataError(f"{folder} exists already; {archive.name} is unpacked into a new folder")
    with _damage_named(archive):
        for _ in _admitted(archive, limits):
            pass
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with _damage_named(archive):
            written = [
                _write(archive, member, parts, scratch)
                for member, parts in _admitted(archive, limits)
            ]
        scratch.chmod(0o755)  # mkdtemp makes it private to the user
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return tuple(sorted(name for name in written if name))


def read_members(
    archive: Path, wanted: re.Pattern[str], limits: Limits | None = None
) -> Iterator[tuple[re.Match[str], bytes]]:
    """The match and content of each plain file whose whole name matches; writes nothing.

    Skips all other members, whatever their name and kind.
    """
    limits = limits or Limits()
    taken = 0
    with _damage_named(archive):
        for count, member in enumerate(_members(archive, limits), start=1):
            if count > limits.members:
                raise DataError(f"{archive}: holds more than {limits.members:,} members")
            match = wanted.fullmatch(member.name)
            if match is None or not member.is_file:
                continue
            taken += member.size
            if taken > limits.bytes:
                raise DataError(f"{archive}: holds more than {limits.bytes:,} bytes")
            with member.open() as stream:
                yield match, stream.read(member.size)


@dataclass(frozen=True)
class _Member:
    """One member as its archive describes it; ``refusal`` says why it is refused, if it is."""

    name: str
    size: int
    is_folder: bool
    refusal: str
    open: Callable[[], IO[bytes]]

    @property
    def is_file(self) -> bool:
        return not self.is_folder and not self.refusal


def _members(archive: Path, limits: Limits) -> Iterator[_Member]:
    with open_plain(archive, MAX_BYTES) as stream:
        magic = stream.read(4)
    return _zip_members(archive) if magic in _ZIP_MAGICS else _tar_members(archive, limits)


def _tar_members(archive: Path, limits: Limits) -> Iterator[_Member]:
    with open_plain(archive, MAX_BYTES) as packed:
        magic = packed.read(2)
        packed.seek(0)
        plain = cast("IO[bytes]", gzip.GzipFile(fileobj=packed) if magic == _GZIP_MAGIC else packed)
        bounded = cast("IO[bytes]", _Bounded(archive, plain, limits))
        with tarfile.open(fileobj=bounded, mode="r|", tarinfo=_SmallHeader) as tar:
            for info in tar:
                yield _Member(
                    info.name,
                    info.size,
                    info.isdir(),
                    _tar_refusal(info),
                    cast("Callable[[], IO[bytes]]", partial(tar.extractfile, info)),
                )


class _SmallHeader(tarfile.TarInfo):
    """A header whose parts are of a reasonable size: tarfile reads names and attributes whole."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        """Refuse what would be read into memory before anyone sees its size."""
        if self.type in _READ_WHOLE and self.size > _LARGEST_HEADER:
            raise ValueError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_gnusparse_10(self, *about: Any) -> None:
        """Refuse a list of holes that is as long as the file."""
        raise ValueError("a sparse file")


def _tar_refusal(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return f"a link to {info.linkname!r}"
    if info.issparse():
        return "a sparse file"
    return "" if info.isreg() or info.isdir() else "neither a file nor a folder"


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            yield _Member(
                # zipfile cuts the name at a NUL and replaces this system's separator by "/"
                info.orig_filename,
                info.file_size,
                info.orig_filename.endswith("/"),  # is_dir() fails on an empty name
                _zip_refusal(info),
                partial(packed.open, info),
            )


def _zip_refusal(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a link"
    if info.flag_bits & 0x1:
        return "encrypted"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "neither a file nor a folder"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "a compression other than deflate"
    return ""


class _Bounded(io.RawIOBase):
    """A stream that fails beyond a limit: headers are unpacked into memory, too."""

    def __init__(self, archive: Path, stream: IO[bytes], limits: Limits) -> None:
        self._archive = archive
        self._stream = stream
        self._limits = limits
        self._left = limits.bytes + 4096 * limits.members + _BLOCK

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        self._left -= len(block)
        if self._left < 0:
            raise DataError(
                f"{self._archive}: holds more than {self._limits.bytes:,} bytes with its headers"
            )
        buffer[: len(block)] = block
        return len(block)


def _admitted(archive: Path, limits: Limits) -> Iterator[tuple[_Member, tuple[str, ...]]]:
    """Each member and the parts of its name, once it is known to be harmless."""
    files: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = set()
    total = 0
    for count, member in enumerate(_members(archive, limits), start=1):
        if count > limits.members:
            raise DataError(f"{archive}: holds more than {limits.members:,} members")
        total += member.size
        if total > limits.bytes:
            raise DataError(f"{archive}: holds more than {limits.bytes:,} bytes")
        parts, refusal = _parts(member)
        if not refusal:
            # as a file system sees them that ignores case and Unicode composition
            key = tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)
            above = {key[:depth] for depth in range(1, len(key))}
            if key in files or files & above or (member.is_file and key in folders):
                refusal = "a name that is there twice"
            folders |= above
            (folders if member.is_folder else files).add(key)
        if refusal:
            raise DataError(
                f"{archive}: refused, nothing of it was unpacked: "
                f"its member {member.name!r} is or has {refusal}"
            )
        yield member, parts
    if not files:
        raise DataError(f"{archive}: holds no file")


def _parts(member: _Member) -> tuple[tuple[str, ...], str]:
    """The parts of a member's name, and why it is refused, if it is."""
    name = member.name
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    refusal = member.refusal
    if not refusal and name.startswith("/"):
        refusal = "an absolute name"
    if not refusal and ".." in parts:
        refusal = "a name that leaves the folder"
    # To Windows a colon marks a drive or a stream, and a backslash is a separator.
    if not refusal and re.search(r"[\\:\x00-\x1f\x7f]", name):
        refusal = "a character that no portable name has"
    if not refusal and not parts and not member.is_folder:
        refusal = "no name"
    if not refusal and not _fits(parts):
        refusal = "a name that no file system takes"
    return parts, refusal


def _fits(parts: tuple[str, ...]) -> bool:
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return False
    return max(lengths, default=0) <= _LONGEST_PART and sum(lengths) <= _LONGEST_NAME


def _write(archive: Path, member: _Member, parts: tuple[str, ...], folder: Path) -> str:
    """Write one member under ``folder``; returns its relative path, empty for a folder."""
    target = folder.joinpath(*parts)
    if member.is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return ""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with member.open() as source, target.open("xb") as out:
        while block := source.read(min(_BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                break
            out.write(block)
    if left:
        raise DataError(f"{archive}: damaged; {member.name!r} is not as long as its header says")
    return "/".join(parts)


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    """Turns whatever the readers raise for a broken archive into an error naming it."""
    try:
        yield
    except _DAMAGE as error:
        raise DataError(
            f"{archive}: damaged, or not a tar, tar.gz or zip: "
            f"{printable(error) or type(error).__name__}"
        ) from error
    except OSError as error:
        raise DataError(f"{archive}: cannot be read or unpacked: {why(error)}") from error
