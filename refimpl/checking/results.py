"""The results file: JSON Lines with a header, a record for each check, and a footer.

Schema 1. Every line is an object with ``"$report_type"``:

``header``
    ``schema``, ``run`` (an id), ``started`` (UTC), ``tier``, ``device``, ``reseed``, ``examples``
    selected, ``environment``, ``workers``, ``data`` (digests), ``documents``, ``plugins`` (origin
    of each example) and ``problems`` of plugins.
``check``
    the fields of :class:`refimpl.checking.checks.Result`; its key is example, variant, check,
    execution and tier, never pytest's node id, which differs between a checkout and a wheel.
``footer``
    ``run``, ``exit_status``, ``seconds``, ``peak_mib`` and the counts of outcomes.

A file without a footer is from a run that died: :func:`read` reads it as incomplete, and nothing
takes it for a pass.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from refimpl.checking.checks import VERDICTS, Measurement, Outcome, Result
from refimpl.errors import RefimplError
from refimpl.training.curves import Curve

SCHEMA = 1
HEADER, CHECK, FOOTER = "header", "check", "footer"


class ResultsError(RefimplError):
    """The file is not a results file, is damaged, or has another schema."""


@dataclass(frozen=True)
class Results:
    """A run, as read from its results file."""

    path: Path
    header: Mapping[str, Any]
    checks: tuple[Result, ...]
    footer: Mapping[str, Any] | None

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return self.footer is not None

    @property
    def outcomes(self) -> Counter[str]:
        """How many checks there are of each outcome."""
        return Counter(result.outcome for result in self.checks)

    @property
    def passed(self) -> bool:
        """Whether the run is complete, some check was answered, and nothing failed."""
        return (
            self.footer is not None
            and self.footer.get("exit_status") == 0
            and self.answered > 0
            and self.outcomes["failed"] == 0
        )

    @property
    def answered(self) -> int:
        """How many checks passed, without those that only judge a plugin as a whole."""
        return sum(
            result.outcome == "passed" and result.check not in VERDICTS for result in self.checks
        )


def result_from(record: Mapping[str, Any]) -> Result:
    """A result from its record. Fields that this version does not know are ignored."""
    known = _known(Result, record)
    if record["outcome"] not in get_args(Outcome):
        raise ValueError(f"{record['outcome']!r} is not an outcome")
    known["measurements"] = tuple(
        Measurement(**_known(Measurement, m)) for m in record["measurements"]
    )
    known["curves"] = tuple(_curve(c) for c in record.get("curves", ()))
    return Result(**known)


def _known(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in record.items() if name in names}


def _curve(record: Mapping[str, Any]) -> Curve:
    # NaN and the infinities are text in the file, which float() reads.
    numbers = {
        name: tuple(float(value) for value in record.get(name, ()))
        for name in ("values", "low", "high")
    }
    return Curve(**{**_known(Curve, record), **numbers, "at": tuple(record["at"])})


def read(path: Path) -> Results:
    """Read a results file; one without a footer is read as incomplete.

    Raises :class:`ResultsError` if a line does not follow the schema (except for a last line that
    was cut short), if a check is recorded twice, if there is more than one run, or if the footer's
    counts are not those of the checks.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} cannot be read as a results file: {error}") from error
    records = list(_records(path, lines))
    if not records or records[0].get("$report_type") != HEADER:
        raise ResultsError(f"{path} is not a results file of refimpl: it begins with no header")
    header = records[0]
    if header.get("schema") != SCHEMA:
        raise ResultsError(
            f"{path} has results schema {header.get('schema')}, this refimpl reads {SCHEMA}"
        )
    try:
        checks = tuple(result_from(r) for r in records if r.get("$report_type") == CHECK)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(f"{path} has a damaged check record: {error!r}") from error
    _require_unique(path, checks)
    return Results(path, header, checks, _footer(path, records, checks))


def _footer(
    path: Path, records: Sequence[Mapping[str, Any]], checks: Iterable[Result]
) -> Mapping[str, Any] | None:
    kinds = [record.get("$report_type") for record in records]
    if kinds.count(HEADER) > 1 or FOOTER in kinds[:-1]:
        raise ResultsError(f"{path} has more than one run in it, or something after its end")
    if kinds[-1] != FOOTER:
        return None
    footer = records[-1]
    if footer.get("run") != records[0].get("run"):
        raise ResultsError(f"{path} begins with one run and ends with another")
    found = Counter(result.outcome for result in checks)
    for outcome in get_args(Outcome):
        if footer.get(outcome, 0) != found[outcome]:
            raise ResultsError(
                f"{path} counts {footer.get(outcome, 0)} {outcome} but has {found[outcome]}: "
                "lines of it are lost"
            )
    return footer


def _records(path: Path, lines: list[str]) -> Iterable[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                return  # cut short while it was written, as the missing footer shows
            raise ResultsError(f"{path}, line {number}: not JSON ({error.msg})") from error
        if not isinstance(record, dict):
            raise ResultsError(f"{path}, line {number}: not an object")
        yield record


def _require_unique(path: Path, checks: Iterable[Result]) -> None:
    twice = [key for key, count in Counter(c.id for c in checks).items() if count > 1]
    if twice:
        raise ResultsError(f"{path} has {twice[0]} more than once")
