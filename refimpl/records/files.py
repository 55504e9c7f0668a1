"""Files of records, how a record is compared with what is there today, and why one was changed.

A record is plain data: dicts, lists, texts and numbers. ``refimpl record`` makes it; a check
compares it with today's. A file that exists is only changed with a reason, which it keeps beside
what moved, so that nobody can make a fault the new standard without a word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

from refimpl.contract import Example
from refimpl.errors import RefimplError
from refimpl.reading import ShapeError, decoded, plain_text, why
from refimpl.writing import MOVES_KEPT, Change, plain, write_text

Kind: TypeAlias = Literal["data", "models", "runs", "values"]

KINDS: tuple[Kind, ...] = ("data", "models", "runs", "values")


class RecordError(RefimplError):
    """A record cannot be read, or is to be changed without a reason."""


@dataclass(frozen=True)
class Records:
    """The records of one file by their keys, and why they changed."""

    records: dict[str, Any] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()


def path_of(kind: Kind, name: str, example: Example | None = None) -> Path:
    """The file of one example or data set: among refimpl's own, or with what the plugin brings."""
    if example is not None and example.baselines is not None:
        return example.baselines / "records" / kind / f"{name}.json"
    return folder() / kind / f"{name}.json"


def folder() -> Path:
    """Where refimpl's own records are: in the package that contains them."""
    return Path(str(files("refimpl.fixtures"))) / "records"


def read(path: Path) -> Records:
    """What a file holds; nothing if it does not exist. Raises :class:`RecordError`."""
    if not path.exists():
        return Records()
    try:
        return decoded(plain_text(path), Records)
    except (OSError, ShapeError) as error:
        raise RecordError(
            f"{path.name} cannot be read ({why(error)}); restore it from version control"
        ) from error


def recorded(kind: Kind, name: str, example: Example) -> dict[str, Any]:
    """The records of one example or data set by their keys; none if nobody has made them."""
    return read(path_of(kind, name, example)).records


def update(path: Path, found: Mapping[str, Any], because: str = "") -> list[str]:
    """Write these records to a file; returns what moved.

    What is new is added. Where a record that exists moves, :class:`RecordError` is raised unless
    ``because`` says why.
    """
    there = read(path)
    found = {key: plain(own) for key, own in found.items()}
    moved = [
        f"{key}: {move}"
        for key, own in found.items()
        if key in there.records
        for move in differences(own, there.records[key])
    ]
    if moved and not because:
        shown = "; ".join(moved[:3]) + (f" and {len(moved) - 3} more" if len(moved) > 3 else "")
        raise RecordError(
            f"{path.name} would move: {shown}. If that is meant, say why: --because REASON"
        )
    kept = {**there.records, **{k: own for k, own in found.items() if k not in there.records}}
    kept |= {
        key: own
        for key, own in found.items()
        if key in there.records and any(differences(own, there.records[key]))
    }
    if kept == there.records:
        return []
    changes = there.changes
    if moved:
        changes = (*changes, Change(because, tuple(moved[:MOVES_KEPT])))
    _write(replace(there, records=kept, changes=changes), path)
    return moved


def _write(records: Records, path: Path) -> None:
    """One line for each part of a record, or row of numbers, so that a diff shows what moved."""
    about = {
        "changes": [{"because": c.because, "moved": list(c.moved)} for c in records.changes],
        "records": records.records,
    }
    write_text(path, _pretty(about, 0, 4) + "\n")


def _pretty(value: Any, depth: int, deepest: int) -> str:
    inline = json.dumps(value, ensure_ascii=False)
    numbers = isinstance(value, list) and all(isinstance(own, (int, float)) for own in value)
    if not isinstance(value, (dict, list)) or numbers or depth >= deepest or len(inline) < 60:
        return inline
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(key, ensure_ascii=False)}: {_pretty(own, depth + 1, deepest)}"
            for key, own in value.items()
        ]
    else:
        parts = [_pretty(own, depth + 1, deepest) for own in value]
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    body = ",\n".join(pad + part for part in parts)
    return f"{opening}\n{body}\n{' ' * depth}{closing}"


# --- comparing -----------------------------------------------------------------------------------

RELATIVE = 1e-5
"""How far two numbers may be apart: statistics are sums, whose order libraries choose."""


def differences(found: Any, recorded: Any, where: str = "") -> Iterator[str]:
    """Each place where today's record is another than the committed one, in words."""
    if isinstance(found, dict) and isinstance(recorded, dict):
        for key in [*recorded, *(key for key in found if key not in recorded)]:
            place = f"{where}.{key}" if where else str(key)
            if key not in found:
                yield f"{place} is gone, recorded {_said(recorded[key])}"
            elif key not in recorded:
                yield f"{place} is {_said(found[key])}, which is not recorded"
            else:
                yield from differences(found[key], recorded[key], place)
    elif _lists(found, recorded) and len(found) == len(recorded):
        for number, (own, other) in enumerate(zip(found, recorded, strict=True)):
            yield from differences(own, other, f"{where}[{number}]")
    elif not _same(found, recorded):
        yield f"{where or 'it'} is {_said(found)}, recorded {_said(recorded)}"


def _lists(found: Any, recorded: Any) -> bool:
    return isinstance(found, (list, tuple)) and isinstance(recorded, (list, tuple))


def _same(found: Any, recorded: Any) -> bool:
    if isinstance(found, (int, float)) and isinstance(recorded, (int, float)):
        return math.isclose(found, recorded, rel_tol=RELATIVE, abs_tol=1e-9)
    return bool(found == recorded)


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (dict, list, tuple)):
        text = json.dumps(plain(value), ensure_ascii=False)
        return text if len(text) <= 80 else f"{text[:77]}…"
    return str(value)


def shown(moves: Sequence[str]) -> str:
    """The first few of what moved, in a sentence."""
    more = f" (and {len(moves) - 4} more)" if len(moves) > 4 else ""
    return "; ".join(moves[:4]) + more
