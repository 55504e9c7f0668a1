"""The first version of a package with which a check answers otherwise.

The versions between two are halved until two neighbours answer differently. Every answer is kept in
a file as soon as it is there, so that a bisection that was killed goes on where it ended. A version
that cannot be installed, or on which the check cannot run, is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import InvalidVersion, Version

from refimpl.checking.checks import Outcome, Result
from refimpl.errors import RefimplError
from refimpl.reading import ShapeError, decoded, plain_text, why
from refimpl.writing import append_line


class BisectionError(RefimplError):
    """The two ends answer the same, or one of them cannot be answered."""


@dataclass(frozen=True)
class Answer:
    """What a check answers with one version: its outcome, and what it found, by name.

    ``trouble`` says why there is no answer, if there is none.
    """

    outcome: str = ""
    found: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""


def answer_of(result: Result, figure: str | None = None) -> Answer:
    """The answer in a result: its outcome, and every finding that is no measured number.

    With a ``figure``, only whether that one holds and what it is, number or not.
    """
    if result.outcome == "skipped":
        return Answer(trouble=result.reason)
    if figure is None:
        found = {
            m.what: str(m.measured)
            for m in result.measurements
            if not isinstance(m.measured, float) and len(str(m.measured)) < 100
        }
        return Answer(result.outcome, found)
    own = [m for m in result.measurements if m.what == figure]
    if not own:
        return Answer(trouble=f"the check measures no {figure!r} there")
    return Answer("passed" if own[0].holds else "failed", {figure: str(own[0].measured)})


@dataclass(frozen=True)
class Known:
    """The shape of a line of the file of answers."""

    version: str
    outcome: Outcome
    found: dict[str, str]


class Memory:
    """The answers that are known, in a file of one line for each version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        try:
            content = plain_text(path).splitlines() if path.exists() else []
        except (OSError, ShapeError) as error:
            raise BisectionError(
                f"{path} cannot be read: {why(error)}; move it away to begin again"
            ) from error
        for line in content:
            try:
                record = decoded(line, Known)
            except ShapeError:
                continue  # cut short when it was written; that version is asked again
            self.answers[record.version] = Answer(record.outcome, record.found)

    def add(self, version: str, answer: Answer) -> None:
        """Keep an answer, unless it is that there is none: that may be another tomorrow."""
        self.answers[version] = answer
        if answer.trouble:
            return
        record = {"version": version, "outcome": answer.outcome, "found": dict(answer.found)}
        append_line(self.path, json.dumps(record))


@dataclass(frozen=True)
class Change:
    """Two neighbouring versions that answer differently, and those between that do not answer."""

    before: str
    after: str
    was: Answer
    now: Answer
    between: tuple[tuple[str, str], ...] = ()

    def lines(self, check: str) -> Iterator[str]:
        """What changed, in words: for each finding, else for the outcome."""
        names = [n for n in self.now.found if self.was.found.get(n) != self.now.found[n]]
        common = [name for name in names if name in self.was.found]
        outcomes = (self.was.outcome, self.now.outcome)
        for name in common:
            was, now = self.was.found[name], self.now.found[name]
            if (was, now) in WORDS:
                yield self._line(name, was, now)
            elif outcomes[0] != outcomes[1]:
                yield f"{self._line(name, *outcomes)} ({was} → {now})"
            else:
                yield self._line(name, was, now)
        if not common:
            yield self._line(check, *outcomes)
        for version, trouble in self.between:
            yield f"  {version} between them gave no answer: {trouble}"

    def _line(self, what: str, was: str, now: str) -> str:
        words = WORDS.get((was, now), (f"{was} up to", f"{now} since"))
        return f"{what}: {words[0]} {self.before}, {words[1]} {self.after}"


WORDS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("right", "wrong"): ("holds up to", "gone since"),
    ("wrong", "right"): ("wrong up to", "holds since"),
    ("passed", "failed"): ("holds up to", "fails since"),
    ("failed", "passed"): ("fails up to", "holds since"),
}
"""How an answer before and one after are told."""


def bisect(
    versions: Sequence[str],
    ask: Callable[[str], Answer],
    memory: Memory,
    told: Callable[[str, Answer], None] = lambda version, answer: None,
) -> Change:
    """The first change after the oldest of these versions, by halving.

    ``told`` is called with each answer as it comes. Raises :class:`BisectionError` if the oldest
    and the newest answer the same, or if one of them gives no answer.
    """
    ordered = sorted(set(versions), key=_version)
    if len(ordered) < 2:
        raise BisectionError(f"two versions are needed to bisect; there are: {ordered}")

    def answer(version: str) -> Answer:
        if version not in memory.answers:
            memory.add(version, ask(version))
        told(version, memory.answers[version])
        return memory.answers[version]

    low, high = 0, len(ordered) - 1
    was, now = answer(ordered[low]), answer(ordered[high])
    for version, end in ((ordered[low], was), (ordered[high], now)):
        if end.trouble:
            raise BisectionError(f"{version} gives no answer: {end.trouble}")
    if was == now:
        found = ", ".join(f"{name}: {what}" for name, what in was.found.items())
        raise BisectionError(
            f"{ordered[low]} and {ordered[high]} answer the same ({was.outcome}; {found}): "
            "there is no change to look for between them"
        )
    silent: dict[int, str] = {}
    while open_ := [n for n in range(low + 1, high) if n not in silent]:
        middle = min(open_, key=lambda n: abs(2 * n - low - high))
        found_here = answer(ordered[middle])
        if found_here.trouble:
            silent[middle] = found_here.trouble
        elif found_here == was:
            low = middle
        else:
            high, now = middle, found_here
    between = tuple((ordered[n], why) for n, why in sorted(silent.items()) if low < n < high)
    return Change(ordered[low], ordered[high], was, now, between)


def between(versions: Sequence[str], oldest: str, newest: str) -> list[str]:
    """The final releases from ``oldest`` to ``newest``, both included, oldest first."""
    low, high = sorted((_version(oldest), _version(newest)))
    inside = [v for v in versions if low <= _version(v) <= high and not _version(v).is_prerelease]
    return sorted({oldest, newest, *inside}, key=_version)


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise BisectionError(f"{text!r} is no version") from None
