"""Downloads that resume after an interruption."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from refimpl.errors import DataError, one_line, printable

if TYPE_CHECKING:
    from requests import Response
    from rich.progress import Progress, TaskID

_BLOCK = 1 << 16

LARGEST = 1 << 30
"""The most bytes of a download, if its table states no other number."""

WINDOW, SLOWEST = 60.0, 512
"""A download that brings fewer bytes a second than this, over so many seconds, is broken off."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes that may well change a moment later."""


class _Interrupted(Exception):
    """The download did not finish this time; the next attempt may succeed."""


@dataclass
class ResumingDownloader:
    """A downloader for pooch that keeps what it has received.

    The bytes are collected in ``part``, which survives a failed attempt and a killed process; the
    next attempt asks the server only for the rest. If the server sends everything again, or says
    that the file has changed, the download starts over. Only a complete file is handed to pooch,
    which checks its digest. No two processes may write to the same ``part`` at once.

    ``attempts`` is how many requests are made in total; ``pause`` is the number of seconds
    before the second attempt, and doubles after that. ``timeout`` is for the server's first answer
    and for each silence, ``window`` for slowness, and ``seconds`` for the whole, all attempts
    together. More than ``largest`` bytes are never received.
    """

    part: Path
    progress: Progress | None = None
    attempts: int = 5
    pause: float = 1.0
    timeout: float = 30.0
    largest: int = LARGEST
    window: float = WINDOW
    seconds: float = 4 * 3600.0
    _task: TaskID | None = field(default=None, init=False, repr=False)
    _deadline: float = field(default=float("inf"), init=False, repr=False)

    def __call__(
        self, url: str, output_file: str | os.PathLike[str], pooch: Any, check_only: bool = False
    ) -> bool | None:
        """Download ``url`` into ``output_file``; pooch calls this.

        Raises :class:`~refimpl.errors.DataError` if the server refuses or all attempts fail.
        """
        if check_only:
            import requests

            return requests.head(url, timeout=self.timeout, allow_redirects=True).ok
        self._deadline = time.monotonic() + self.seconds
        for attempt in range(1, self.attempts + 1):
            try:
                self._receive(url)
            except _Interrupted as interruption:
                if attempt == self.attempts or time.monotonic() > self._deadline:
                    raise DataError(self._given_up(url, interruption)) from interruption
                time.sleep(self.pause * 2 ** (attempt - 1))
            else:
                break
        self._origin.unlink(missing_ok=True)
        os.replace(self.part, output_file)
        return None

    @property
    def _name(self) -> str:
        return self.part.name.removesuffix(".part")

    @property
    def _origin(self) -> Path:
        """The file that says where the part's bytes are from: address, and version if known."""
        return self.part.with_name(self.part.name + ".origin")

    def _receive(self, url: str) -> None:
        """One attempt; returns once ``part`` is the whole file."""
        import requests
        import urllib3

        start, version = self._so_far(url)
        # With compression, the server's byte positions would differ from ours.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if version:
                headers["If-Range"] = version
        try:
            with self._answer(url, headers) as response:
                if not self._complete(response, start):
                    self._append(response, url, start)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _Interrupted(_innermost(error)) from error

    def _answer(self, url: str, headers: dict[str, str]) -> Response:
        """The head of the server's answer, within the time for it as a whole.

        A timeout of a connection begins anew with every byte, and a server may send heads without
        end, so a thread waits for it, which nobody waits for.
        """
        import requests

        answers: Queue[Response | Exception] = Queue()

        def ask() -> None:
            try:
                answers.put(requests.get(url, headers=headers, stream=True, timeout=self.timeout))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True, name="download").start()
        try:
            answer = answers.get(timeout=min(3 * self.timeout, self.seconds))
        except Empty:
            raise _Interrupted("the server's answer has no end") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _complete(self, response: Response, start: int) -> bool:
        """Whether ``part`` needs nothing more; raises if the response brings no bytes for it."""
        status = response.status_code
        if start and status == 416:
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return True
            self._discard()
            raise _Interrupted(f"the {start:,} bytes received before are not a beginning of it")
        if status in _PASSING:
            raise _Interrupted(f"HTTP {status} {printable(response.reason)}")
        if status not in (200, 206):
            raise DataError(
                f"{self._name}: could not be downloaded; {printable(response.url)} answered "
                f"HTTP {status} {printable(response.reason)}"
            )
        if status == 206 and _first_byte(response) != start:
            self._discard()
            raise _Interrupted("the server sent another part than requested")
        return False

    def _append(self, response: Response, url: str, start: int) -> None:
        """Write the body where it belongs: after the bytes in ``part``, or from the beginning."""
        if response.status_code == 200:
            start = 0
            self._discard()
            self._origin.write_text(json.dumps({"url": url, "version": _version(response)}))
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if re.fullmatch(r"[0-9]{1,15}", length) else None
        if total is not None and total > self.largest:
            raise self._too_large(url, f"{total:,} bytes")
        self._show(start, total)
        with self.part.open("ab") as out:
            for block in self._blocks(response):
                out.write(block)
                if out.tell() > self.largest:
                    self._discard()
                    raise self._too_large(url, "more")
                self._show(out.tell(), total)
        # Before version 2, urllib3 mistakes a broken connection for the end of the body.
        size = self.part.stat().st_size
        if total is not None and size != total:
            raise _Interrupted(f"cut short after {size:,} of {total:,} bytes")

    def _blocks(self, response: Response) -> Iterator[bytes]:
        """The body as it arrives; :class:`_Interrupted` if it arrives too slowly."""
        # Raw, so that a .gz file that a server declares as encoded is kept as it is.
        raw = response.raw
        read = getattr(raw, "read1", None)
        if read is None:  # urllib3 before 2.3: waits until it has all of what it is asked for
            blocks = raw.stream(1024, decode_content=False)
        else:
            blocks = iter(lambda: read(_BLOCK, decode_content=False), b"")
        began, arrived = time.monotonic(), 0
        for block in blocks:
            yield block
            arrived += len(block)
            now = time.monotonic()
            if now > self._deadline:
                raise _Interrupted(f"it takes longer than {self.seconds:g} s")
            if now - began >= self.window:
                if arrived < SLOWEST * (now - began):
                    raise _Interrupted(f"{arrived:,} bytes in {now - began:.0f} s are too few")
                began, arrived = now, 0

    def _too_large(self, url: str, found: str) -> DataError:
        return DataError(
            f"{self._name}: not downloaded from {url}; "
            f"at most {self.largest:,} bytes were expected, and it has {found}"
        )

    def _so_far(self, url: str) -> tuple[int, str]:
        """How many bytes of ``url`` are here already, and the version that they belong to."""
        try:
            origin = json.loads(self._origin.read_text())
            size, version = self.part.stat().st_size, origin["version"]
            if origin["url"] == url and isinstance(version, str) and size <= self.largest:
                return size, version
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        self._discard()
        return 0, ""

    def _discard(self) -> None:
        """Forget what was received."""
        self.part.unlink(missing_ok=True)
        self._origin.unlink(missing_ok=True)

    def _show(self, completed: int, total: int | None) -> None:
        if self.progress is None:
            return
        if self._task is None:
            self._task = self.progress.add_task(self._name, total=total)
        self.progress.update(self._task, completed=completed, total=total)

    def _given_up(self, url: str, reason: Exception) -> str:
        kept = self.part.stat().st_size if self.part.exists() else 0
        advice = f"the {kept:,} bytes received are kept, and the next fetch continues from there"
        return (
            f"{self._name}: could not be downloaded from {url} in {self.attempts} attempts, "
            f"the last one: {reason}" + (f"; {advice}" if kept else "")
        )


def _innermost(error: BaseException) -> str:
    """What went wrong, without what requests and urllib3 put around it."""
    around = (getattr(error, "reason", None), *error.args)
    within = next((part for part in around if isinstance(part, BaseException)), None)
    if within is not None:
        return _innermost(within)
    if not str(error).strip():
        return type(error).__name__
    # urllib3 begins with the connection: HTTPSConnection(host='…', port=443): Failed to …
    connection = r"^(HTTPS?Connection\w*\(.*?\)|<urllib3\S+ object at \w+>): "
    return printable(re.sub(connection, "", one_line(error)))


def _version(response: Response) -> str:
    """The server's name for this version of the file, if it guarantees every byte."""
    tag = response.headers.get("ETag", "")
    return tag if re.fullmatch(r'"[!-~]{1,200}"', tag) else ""


def _first_byte(response: Response) -> int | None:
    match = re.match(r"bytes ([0-9]{1,15})-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None
