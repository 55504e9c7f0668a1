"""What changed since an earlier run, check by check and figure by figure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from refimpl.checking.checks import Measurement, Result
from refimpl.report.columns import Column

Kind = Literal[
    "fail now",
    "no longer run",
    "fail as expected now",
    "skipped now",
    "pass now",
    "new",
]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""What can become of a check, the worst first."""

_BECOMES: Mapping[str, Kind] = {
    "failed": "fail now",
    "xfailed": "fail as expected now",
    "skipped": "skipped now",
    "passed": "pass now",
}


@dataclass(frozen=True)
class Change:
    """One check whose outcome changed, or that only one of the two runs has."""

    kind: Kind
    column: str
    before: Result | None
    after: Result | None

    @property
    def result(self) -> Result:
        """The newer of the two answers."""
        found = self.after or self.before
        assert found is not None
        return found


@dataclass(frozen=True)
class Moved:
    """One figure whose value changed."""

    column: str
    result: Result
    what: str
    before: float
    after: float
    limit: str

    @property
    def size(self) -> float:
        """The change over the larger of the two values."""
        return abs(self.after - self.before) / max(abs(self.after), abs(self.before))


@dataclass(frozen=True)
class Since:
    """What changed in one column since the earlier one that it is compared with.

    ``causes`` are the other seeds and versions that may be behind it.
    """

    column: str
    earlier: str
    causes: tuple[str, ...]
    changes: tuple[Change, ...]
    moved: tuple[Moved, ...]

    @property
    def counts(self) -> Counter[str]:
        """How many checks of each kind."""
        return Counter(change.kind for change in self.changes)


def since(now: Sequence[Column], then: Sequence[Column]) -> tuple[Since, ...]:
    """What changed in each column that has an earlier one to compare with."""
    pairs = ((column, counterpart(column, then)) for column in now if column.runs)
    return tuple(_since(new, old) for new, old in pairs if old is not None)


def counterpart(column: Column, earlier: Sequence[Column]) -> Column | None:
    """The earlier column most like this one: of its device and tier, then seeds, torch, Python.

    The latest of them where several are as like. ``None`` where none is of its device and tier.
    """
    candidates = [
        other
        for other in earlier
        if other.runs and all(_fact(other, k) == _fact(column, k) for k in ("device", "tier"))
    ]

    def likeness(other: Column) -> tuple[object, ...]:
        return (
            other.reseed == column.reseed,
            _torch(other) == _torch(column),
            _minor(other) == _minor(column),
            str(other.header.get("started", "")),
        )

    return max(candidates, key=likeness, default=None)


def _fact(column: Column, key: str) -> object:
    return column.header.get(key)


def _torch(column: Column) -> object:
    return column.environment.get("packages", {}).get("torch")


def _minor(column: Column) -> list[str]:
    return str(column.environment.get("python", "")).split(".")[:2]


def _since(new: Column, old: Column) -> Since:
    changes = sorted(
        _changes(new, old), key=lambda change: (KINDS.index(change.kind), change.result.id)
    )
    moved = sorted(_moved(new, old), key=lambda moved: -moved.size)
    return Since(new.label, old.label, tuple(_causes(new, old)), tuple(changes), tuple(moved))


def _changes(new: Column, old: Column) -> Iterator[Change]:
    for key in new.results.keys() | old.results.keys():
        before, after = old.results.get(key), new.results.get(key)
        kind = _kind(before, after)
        if kind == "no longer run" and not all(run.complete for run in new.runs):
            continue  # the run died, perhaps before it came to this check
        if kind is not None:
            yield Change(kind, new.label, before, after)


def _kind(before: Result | None, after: Result | None) -> Kind | None:
    if after is None:
        return "no longer run"
    if before is not None and before.outcome == after.outcome:
        return None
    if before is None and after.outcome != "failed":
        return "new"
    return _BECOMES[after.outcome]


def _moved(new: Column, old: Column) -> Iterator[Moved]:
    for key, after in new.results.items():
        before = _numbers(old.results[key].measurements) if key in old.results else {}
        for what, (value, limit) in _numbers(after.measurements).items():
            if what in before and before[what][0] != value:
                yield Moved(new.label, after, what, before[what][0], value, limit)


def _numbers(measurements: Sequence[Measurement]) -> Mapping[str, tuple[float, str]]:
    """The finite figures of a check that are no counts or statements, with their limits."""
    return {
        m.what: (m.measured, m.limit)
        for m in measurements
        if isinstance(m.measured, float) and math.isfinite(m.measured)
    }


def _causes(new: Column, old: Column) -> Iterator[str]:
    """``name before → after`` for the seeds and for each version, where they are others."""
    if new.reseed != old.reseed:
        yield f"reseed {old.reseed} → {new.reseed}"
    now, then = _all_versions(new), _all_versions(old)
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            yield f"{name} {then.get(name) or 'none'} → {now.get(name) or 'none'}"


def _all_versions(column: Column) -> dict[str, str | None]:
    environment = column.environment
    own = {name: environment.get(name) for name in ("python", "refimpl", "cuda")}
    return {**environment.get("packages", {}), **own}
