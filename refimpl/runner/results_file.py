"""The results file of a run: locked, written beside its place, put there when it is complete."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from refimpl.runner import pytest_workers
from refimpl.writing import AloneError, alone, is_stream, plain

if TYPE_CHECKING:
    from refimpl.checking.checks import Result
    from refimpl.checking.results import Results

OUTCOMES = ("passed", "failed", "skipped", "xfailed")
KEY = ("example", "variant", "check", "execution", "tier")


_EARLIER: pytest.StashKey[Results] = pytest.StashKey()
_UNCHANGED: pytest.StashKey[list[Result]] = pytest.StashKey()


def unchanged_answers(config: pytest.Config, header: dict[str, Any]) -> list[Result]:
    """What an earlier, complete run answered that nothing can have changed since; found once.

    A usage error if the file of ``--results`` cannot be used.
    """
    from refimpl.checking.contents import unchanged

    if _UNCHANGED not in config.stash:
        found = earlier_results(config)
        now = json.loads(json.dumps(plain(header)))
        by = found.header["run"]
        kept = unchanged(found.checks, found.header, now)
        config.stash[_UNCHANGED] = [replace(check, earlier=check.earlier or by) for check in kept]
    return config.stash[_UNCHANGED]


def earlier_results(config: pytest.Config) -> Results:
    """What is in the file of ``--results`` before this run; read once."""
    from refimpl.checking.results import ResultsError, read

    if _EARLIER not in config.stash:
        try:
            config.stash[_EARLIER] = read(config.option.results)
        except ResultsError as error:
            raise pytest.UsageError(f"--changed: nothing can be kept: {error}") from error
    return config.stash[_EARLIER]


def seconds_left(config: pytest.Config, header: dict[str, Any]) -> float:
    """How long the checks took that ``--changed`` runs again; infinite if some were never run."""
    took = {check.id: check.seconds for check in earlier_results(config).checks}
    kept = {check.id for check in unchanged_answers(config, header)}
    return sum(took.get(cell, math.inf) for cell in header["cells"] or () if cell not in kept)


class ResultsFile:
    """Writes the records of a run to ``FILE.part`` as they come, and names it ``FILE`` at the end.

    If the run dies or is interrupted, what it has checked is in the part, and an earlier file is
    as it was. With ``resume``, the run goes on with the checks that the part lacks; with
    ``changed``, it keeps what the file has and nothing can have changed since.
    """

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.config = config
        self.path = path
        self.run: str = config.option.run_id or uuid.uuid4().hex
        self.began = time.monotonic()
        self.peak = 0
        self.outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.recorded: set[str] = set()
        self.deviations: set[str] = set()
        self.earlier: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.interrupted = False
        self.digest = hashlib.sha256()
        self.stream: IO[str] | None = None
        self.held = ExitStack()
        if not is_stream(path):
            try:
                self.held.enter_context(alone(path))
            except AloneError as error:
                raise pytest.UsageError(f"--results {path}: {error}{self._holder()}") from error

    @property
    def part(self) -> Path:
        """Where the records are until the run has come to its end."""
        from refimpl.checking.results import part_of

        return self.path if is_stream(self.path) else part_of(self.path)

    def _holder(self) -> str:
        """What the run that writes this file says about itself."""
        from refimpl.checking.results import ResultsError, read

        try:
            header = read(self.part).header
        except ResultsError:
            return ""
        return f" (process {header.get('process')}, begun {header.get('started')})"

    def begin(self, header: dict[str, Any]) -> None:
        """Write the header, and with it the records of the run that this one resumes."""
        from refimpl.checking.results import CHECK

        if self.config.option.resume:
            resumed = self._resumed(header)
            self._keep(resumed.checks)
        elif self.config.option.changed:
            self._keep(unchanged_answers(self.config, header))
        direct = self.path == self.part
        draft = self.part if direct else self.part.with_name(self.part.name + ".new")
        try:
            with self._naming_errors():
                self.part.parent.mkdir(parents=True, exist_ok=True)
                self.stream = draft.open("w", encoding="utf-8")
            self._write(header)
            for record in self.earlier:
                self._count(record)
                self._write({"$report_type": CHECK, **record})
            if not direct:
                os.replace(draft, self.part)
        except BaseException:
            if not direct:
                draft.unlink(missing_ok=True)
            raise

    def _keep(self, checks: Iterable[Result]) -> None:
        """Take these answers as those of this run."""
        self.earlier = [check.record() for check in checks]
        done = {"/".join(record[part] for part in KEY) for record in self.earlier}
        self.config.stash[pytest_workers.DONE] = done

    def _resumed(self, header: dict[str, Any]) -> Results:
        """The unfinished run; a usage error if there is none, or if it is of something else."""
        from refimpl.checking.results import ResultsError, read

        if self.path.exists() and not self.part.exists():
            raise pytest.UsageError(f"--resume: {self.path} is complete; leave --resume out")
        try:
            found = read(self.part)
        except ResultsError as error:
            raise pytest.UsageError(f"--resume: nothing can be resumed: {error}") from error
        for key in ("tier", "device", "reseed", "examples", "cells", "environment", "data"):
            ours = json.loads(json.dumps(header[key]))
            if found.header.get(key) != ours:
                raise pytest.UsageError(
                    f"--resume: {self.part} is of a run with another {key}; repeat its command, "
                    "or leave --resume out to begin anew"
                )
        return found

    def add(self, record: dict[str, Any]) -> None:
        """Write the record of a check, unless there is one: a worker can die of one it answered."""
        from refimpl.checking.results import CHECK

        if self._count(record):
            self._write({"$report_type": CHECK, **record})

    def _count(self, record: dict[str, Any]) -> bool:
        key = "/".join(record[part] for part in KEY)
        if key in self.recorded:
            return False
        self.recorded.add(key)
        self.outcomes[record["outcome"]] += 1
        self.deviations.update(record.get("deviations") or ())
        return True

    def _write(self, record: dict[str, Any]) -> None:
        if self.stream is not None:
            with self._naming_errors():
                line = json.dumps(plain(record)) + "\n"
                self.stream.write(line)
                self.stream.flush()
                self.digest.update(line.encode())

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """End the run, with the name of the file, if something cannot be written."""
        try:
            yield
        except OSError as error:
            self.stream = None
            reason = f"cannot write {self.part}: {error.strerror or error}"
            raise pytest.exit.Exception(reason, returncode=1) from error

    def end(self, exitstatus: int) -> None:
        """Write the footer and put the file in its place, if the run has come to its end."""
        from refimpl.checking.results import FOOTER

        if self.stream is None or self.interrupted:
            return
        footer = {
            "$report_type": FOOTER,
            "run": self.run,
            "exit_status": int(exitstatus),
            "seconds": round(time.monotonic() - self.began, 3),
            "peak_mib": self.peak,
            **self.outcomes,
            "digest": self.digest.hexdigest(),
        }
        self._write({**footer, "cells": self.keys} if self.keys else footer)
        if self.stream is not None:
            with self._naming_errors():
                if self.path != self.part:
                    os.fsync(self.stream.fileno())
                    os.replace(self.part, self.path)
                self.stream.close()
            self.stream = None

    def close(self) -> None:
        """Leave the file to others."""
        if self.stream is not None:
            self.stream.close()
        self.held.close()
