"""What the arrays of a data set are, as a record: digests, counts, means, and what splits share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from refimpl.data import DataSet, Rows, Splits, Tier
from refimpl.trees import is_ragged, leaves, named_leaves

Array: TypeAlias = "NDArray[Any]"

FEW_VALUES = 20
"""An array with at most so many values is counted value by value."""

MOST_COLUMNS = 32
"""Columns, or channels, are described one by one if there are at most so many."""

DIGITS = 6


@cache
def record(data: DataSet, tier: Tier) -> dict[str, Any]:
    """The record of a data set that has rows; made once in a process."""
    splits = data.load(tier)
    own = {name: _of_rows(rows) for name, rows in named(splits)}
    if splits.valid is not None:
        own["valid"]["rows that are training rows too"] = len(shared(data, tier))
    return own


def named(splits: Splits) -> Iterator[tuple[str, Rows]]:
    """Each split that is there, with its name."""
    yield "train", splits.train
    if splits.valid is not None:
        yield "valid", splits.valid


def _of_rows(rows: Rows) -> dict[str, Any]:
    return {
        f"{what}.{path}".rstrip("."): _of_array(array)
        for what, tree in (("x", rows.x), ("y", rows.y))
        for path, array in named_leaves(tree)
    }


def _of_array(array: Any) -> dict[str, Any]:
    if is_ragged(array):
        joined = np.concatenate([np.ravel(row) for row in array])
        return {"rows": len(array), "values": len(joined), **_of_array(joined)}
    own: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    own["digest"] = digest(array)
    if not array.size or array.dtype.kind not in "fiub":
        return own
    values = array.astype(np.float64)
    own["mean"], own["spread"] = _rounded(values.mean()), _rounded(values.std())
    distinct = np.unique(values)
    if len(distinct) <= FEW_VALUES:
        own["counts"] = {f"{value:g}": int((values == value).sum()) for value in distinct}
    by_column = columns_of(values)
    if by_column is not None and 1 < len(by_column) <= MOST_COLUMNS:
        own["columns"] = [[_rounded(c.mean()), _rounded(c.std())] for c in by_column]
    return own


def _rounded(value: float) -> float:
    return float(f"{float(value):.{DIGITS}g}")


def digest(array: Array) -> str:
    """Sixteen hexadecimal digits of an array's numbers, to the digits of float32.

    So a sum that another machine rounds otherwise in float64 leaves them as they are.
    """
    numbers = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
    return hashlib.blake2b(np.ascontiguousarray(numbers).data, digest_size=8).hexdigest()


def columns_of(values: Array) -> list[Array] | None:
    """The columns of a table, or the channels of images or series; ``None`` of anything else."""
    if values.ndim == 2:
        return list(values.T)
    if values.ndim == 3:
        return [values[:, :, number] for number in range(values.shape[2])]
    if values.ndim == 4:
        return [values[:, number] for number in range(values.shape[1])]
    return None


# --- rows that are the same ----------------------------------------------------------------------


def row_keys(rows: Rows) -> list[bytes]:
    """The bytes of every row, inputs and targets, by which rows are compared."""
    trees = leaves((rows.x, rows.y))
    return [
        b"|".join(np.ascontiguousarray(leaf[number]).tobytes() for leaf in trees)
        for number in range(len(rows))
    ]


@cache
def shared(data: DataSet, tier: Tier) -> Sequence[int]:
    """The numbers of the validation rows that are training rows too."""
    splits = data.load(tier)
    if splits.valid is None:
        return []
    there = set(row_keys(splits.train))
    return [number for number, key in enumerate(row_keys(splits.valid)) if key in there]


@cache
def twins(data: DataSet, tier: Tier) -> int:
    """How many training rows are the same as another training row."""
    keys = row_keys(data.load(tier).train)
    counts: dict[bytes, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return sum(count for count in counts.values() if count > 1)
