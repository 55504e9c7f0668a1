"""The documents' own data: what can be downloaded, the download, and whether it is still intact.

The table is ``sources.toml`` of the fixtures. A file must have the digest that the readers of the
fixtures use, or the one that was recorded when it was made on this machine.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from refimpl.data import data_root
from refimpl.errors import DataError, DataMissingError, UnknownNameError
from refimpl.reading import require_shallow, shaped, why
from refimpl.store import archives, digests
from refimpl.store.downloads import LARGEST, ResumingDownloader

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from rich.progress import Progress

TABLE = "sources.toml"

SCHEMES = ("https://", "http://")

DIGEST = re.compile("md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}")

FIXTURES = "refimpl.fixtures"
"""Used by name only: fixtures import the framework, never the other way round."""

State = Literal["ok", "missing", "damaged", "unknown"]
Action = Literal["kept", "downloaded", "made"]


@dataclass(frozen=True)
class Download:
    """One file as its publisher offers it.

    ``file`` is its place under the data root, ``urls`` are the places to try in turn, and
    ``digest`` is its published digest as ``algorithm:hex``, empty if nobody publishes one. A file
    without a digest is only used to make other files, whose digests are known. No more than
    ``largest`` bytes are received.
    """

    file: str
    urls: tuple[str, ...]
    digest: str
    largest: int = LARGEST


@dataclass(frozen=True)
class Entry:
    """One data set of the table, by the name that ``refimpl data fetch`` takes.

    ``files`` are under the data root once it is fetched. They are the downloads themselves, or
    they are made from the only download: unpacked into the folder ``unpack``, or written by the
    function ``prepare`` (``module:name``; it takes the archive and the folder to write to).
    ``aliases`` are the names of data sets that read the same files. With ``zipped``, the files are
    gzipped and the listed digests are those of their content.
    """

    name: str
    about: str
    downloads: tuple[Download, ...]
    files: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    unpack: str = ""
    prepare: str = ""
    zipped: bool = False

    @property
    def made(self) -> bool:
        """Whether the files are made from the download, instead of being it."""
        return bool(self.unpack or self.prepare)


@dataclass(frozen=True)
class FileStatus:
    """The state of one file of the data root.

    ``expected`` are the digests that are accepted; ``found`` is the file's own, or why it has none.
    A file is ``unknown`` if there is no digest to check it against.
    """

    entry: str
    file: str
    path: Path
    state: State
    expected: tuple[str, ...] = ()
    found: str = ""

    def __str__(self) -> str:
        if self.state == "damaged":
            return f"{self.path}: damaged; {digests.difference(self.found, self.expected)}"
        if self.state == "unknown":
            return f"{self.path}: there is no digest to check it against"
        return f"{self.path}: {self.state}"


@dataclass(frozen=True)
class Fetched:
    """One file that is now in the data root, and how it got there."""

    entry: str
    file: str
    path: Path
    action: Action


def entries() -> dict[str, Entry]:
    """What can be downloaded, by name."""
    return parse_table(files(FIXTURES).joinpath(TABLE).read_text("utf-8"))


def parse_table(text: str, file: str = TABLE) -> dict[str, Entry]:
    """The entries that a text in the format of ``sources.toml`` describes.

    Raises :class:`~refimpl.errors.DataError`, which names ``file`` and the entry, if the text does
    not have that format, or would leave a file unchecked or write outside the data root.
    """
    try:
        content = tomllib.loads(text)
        require_shallow(content)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise DataError(f"{file} cannot be read as TOML: {why(error)}") from error
    made = {}
    for name, item in content.items():
        try:
            made[name] = _entry(name, shaped(item, _Item))
        except ValueError as error:
            raise DataError(f"{file}: {name}: {error}") from error
    return made


def fetch(
    names: Iterable[str] | None = None,
    *,
    root: Path | None = None,
    table: Mapping[str, Entry] | None = None,
    progress: Progress | None = None,
    attempts: int = 5,
    pause: float = 1.0,
) -> list[Fetched]:
    """Bring the files of these data sets, or of all of them, into the data root.

    Files that are there and intact are kept. Missing or damaged ones are downloaded, continuing
    where an earlier download was cut short, and checked before they get their names. Several
    processes may fetch at once: one downloads, the others wait for it. Raises
    :class:`~refimpl.errors.DataError` at the first file that cannot be fetched.
    """
    root = data_root() if root is None else root

    def download(source: Download) -> Path:
        return _download(
            source,
            root,
            lambda part: ResumingDownloader(
                part, progress, attempts, pause, largest=source.largest
            ),
        )

    return [done for entry in chosen(names, table) for done in _fetch(entry, root, download)]


def verify(
    names: Iterable[str] | None = None,
    *,
    root: Path | None = None,
    table: Mapping[str, Entry] | None = None,
) -> list[FileStatus]:
    """The state of every file of these data sets, or of all of them; changes nothing."""
    root = data_root() if root is None else root
    return [status for entry in chosen(names, table) for status in _statuses(entry, root)]


def files_held_to() -> dict[str, str]:
    """The sha256 that every real file here must have, by path.

    Nothing is hashed here: readers refuse a file with another digest. Files without a digest are
    left out.
    """
    try:
        root = data_root()
    except DataMissingError:
        return {}
    files = [file for entry in entries().values() for file in entry.files]
    # Of a file that may be the documents' or made here, the record is of the one that is here.
    held_to = {file: _accepted(root / file, file)[-1:] for file in files}
    return {file: held[0] for file, held in held_to.items() if held and (root / file).exists()}


class _Source(msgspec.Struct, forbid_unknown_fields=True):
    """The shape of one download in the table."""

    urls: list[str]
    digest: str = ""
    largest: int = LARGEST


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    """The shape of one data set in the table."""

    about: str
    downloads: dict[str, _Source]
    files: list[str] = []
    aliases: list[str] = []
    unpack: str = ""
    prepare: str = ""
    zipped: bool = False


def _entry(name: str, item: _Item) -> Entry:
    """An entry of the table; raises ``ValueError`` with what is wrong about it."""
    downloads = tuple(
        Download(file, tuple(source.urls), source.digest, source.largest)
        for file, source in item.downloads.items()
    )
    names = tuple(item.files or item.downloads)
    entry = Entry(
        name, item.about, downloads, names, tuple(item.aliases), item.unpack, item.prepare,
        item.zipped,
    )  # fmt: skip
    if entry.made and len(downloads) != 1:
        raise ValueError(f"files are made from one download, not from {len(downloads)}")
    if not downloads or not all(download.urls for download in downloads):
        raise ValueError("it has nothing to download, or no URL to download it from")
    if not entry.made and not all(download.digest for download in downloads):
        raise ValueError("a download that is used as it is needs a digest")
    for file in (*names, *item.downloads, entry.unpack or "."):
        if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or "\\" in file:
            raise ValueError(f"{file!r} is not below the folder of the data")
    for download in downloads:
        if download.digest and not DIGEST.fullmatch(download.digest):
            raise ValueError(f"{download.digest!r} is no digest like sha256:hex")
        if strange := [url for url in download.urls if not url.startswith(SCHEMES)]:
            raise ValueError(f"{strange[0]!r} is no address of HTTP")
        if not 0 < download.largest <= LARGEST:
            raise ValueError(f"largest is {download.largest}, and may be 1 to {LARGEST:,}")
    return entry


def chosen(
    names: Iterable[str] | None = None, table: Mapping[str, Entry] | None = None
) -> list[Entry]:
    """The data sets with these names or aliases, each once; all of them without names.

    Raises :class:`~refimpl.errors.UnknownNameError` for another name.
    """
    table = entries() if table is None else table
    if names is None:
        return list(table.values())
    known = {alias: entry for entry in table.values() for alias in (entry.name, *entry.aliases)}
    found: dict[str, Entry] = {}
    for name in names:
        if name not in known:
            raise UnknownNameError(
                f"there is no data set {name!r} to download; there are: {', '.join(table)}"
            )
        found[known[name].name] = known[name]
    return list(found.values())


def _listed() -> Mapping[str, str]:
    """The digests that the fixtures check their files against, by path under the data root."""
    return cast("Callable[[], Mapping[str, str]]", resolve_name(f"{FIXTURES}.integrity:registry"))()


def _accepted(path: Path, file: str) -> Sequence[str]:
    """The digests that this file may have; empty if there is none to check it against."""
    judge = resolve_name(f"{FIXTURES}.integrity:accepted")
    return cast("Callable[[Path, str], Sequence[str]]", judge)(path, file)


def _statuses(entry: Entry, root: Path) -> list[FileStatus]:
    return [_status(entry, file, root / file) for file in entry.files]


def _status(entry: Entry, file: str, path: Path) -> FileStatus:
    expected = tuple(_accepted(path, file))
    if not path.exists():
        return FileStatus(entry.name, file, path, "missing", expected)
    try:
        found = digests.of_file(path, unzip=entry.zipped)
    except (OSError, EOFError, zlib.error) as error:
        found = f"no readable file ({why(error)})"
        return FileStatus(entry.name, file, path, "damaged", expected, found)
    state: State = "unknown" if not expected else "ok" if found in expected else "damaged"
    return FileStatus(entry.name, file, path, state, expected, found)


def _fetch(entry: Entry, root: Path, download: Callable[[Download], Path]) -> list[Fetched]:
    before = _statuses(entry, root)
    if any(status.state != "ok" for status in before):
        try:
            before = _fetch_alone(entry, root, download)
        except OSError as error:
            raise DataError(f"{entry.name}: {root} cannot be written to: {error}") from error
    action: Action = "made" if entry.made else "downloaded"
    return [
        Fetched(entry.name, status.file, status.path, "kept" if status.state == "ok" else action)
        for status in before
    ]


def _fetch_alone(
    entry: Entry, root: Path, download: Callable[[Download], Path]
) -> list[FileStatus]:
    """Fetch while every other process that wants the same entry waits.

    Returns the state after the wait, when another process may have fetched everything already.
    """
    from filelock import FileLock

    locks = root / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{entry.name}.lock"):
        before = _statuses(entry, root)
        wanted = {status.file for status in before if status.state != "ok"}
        if wanted and entry.made:
            _make(entry, root, download(entry.downloads[0]))
        elif wanted:
            for source in entry.downloads:
                if source.file in wanted:
                    path = download(source)
                    if source.file not in _listed():
                        digests.record(path)
        for status in _statuses(entry, root):
            _require_sound(status)
    return before


def _require_sound(status: FileStatus) -> None:
    """Delete a fetched file that is not the expected one, and raise."""
    if status.state != "ok":
        status.path.unlink(missing_ok=True)
        raise DataError(f"{status}; it was fetched just now and has been deleted")


def _download(source: Download, root: Path, downloader: Callable[[Path], Any]) -> Path:
    """Download one file from the first of its URLs that delivers it; pooch checks the digest."""
    import pooch

    target = root / source.file
    target.parent.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel(logging.WARNING)  # the progress bar shows what is going on
    failures = []
    for url in source.urls:
        part = target.with_name(target.name + ".part")
        try:
            pooch.retrieve(
                url,
                source.digest or None,
                fname=target.name,
                path=target.parent,
                downloader=downloader(part),
            )
            return target
        except DataError as error:
            failures.append(str(error))
        except ValueError as error:  # what pooch raises for a wrong digest
            failures.append(f"{source.file}: {url} delivered another file; {error}")
    raise DataError("; ".join(failures))


def _make(entry: Entry, root: Path, archive: Path) -> None:
    """Make the files of an entry from its archive, and put them in place together at the end."""
    with tempfile.TemporaryDirectory(prefix=f".{entry.name}.", dir=root) as scratch:
        folder = Path(scratch)
        try:
            _maker(entry)(archive, folder)
            for file in entry.files:
                if not (folder / file).is_file():
                    raise DataError(f"{archive}: held nothing to make {file} from")
        except DataError:
            archive.unlink()  # so that the next attempt downloads it again
            raise
        for file in entry.files:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            if not entry.zipped:  # whose listed digest is that of what is in the wrapper
                digests.record(folder / file)
                record = digests.record_path(Path(file))
                os.replace(folder / record, root / record)
            os.replace(folder / file, root / file)
    archive.unlink()
    if not any(archive.parent.iterdir()):
        archive.parent.rmdir()


def _maker(entry: Entry) -> Callable[[Path, Path], object]:
    if entry.prepare:
        return cast("Callable[[Path, Path], object]", resolve_name(entry.prepare))
    return lambda archive, folder: archives.unpack(archive, folder / entry.unpack)
