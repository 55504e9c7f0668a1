"""The data: as recorded, read right, and divided without mixing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.checking.checks import Measurement, Subject, at_most, check, equal, true
from refimpl.data import DataSet, Rows, Splits, Tier, arrays_of
from refimpl.records import files, of_data
from refimpl.trees import is_ragged, named_leaves

PRINTED_DIGITS = 5e-5
"""Half a unit of the fourth decimal, to which documents print tensors."""

MOST_COLUMNS = 1000
"""A table of more columns is not searched for one that predicts the target."""

ENOUGH = 30
"""A split of fewer rows shows little about a column."""

DEVIATIONS = 6.0

FAR_SHARE, FAR_MEAN, FAR_SPREAD = 0.1, 2.0, 8.0
"""Splits are prepared differently if the commonest value of a column has a share that differs by
more than this; if means differ by so many spreads; if the one's spread is so many times the
other's."""

OWN = 1e-4
"""A column whose mean and spread are 0 and 1 to this was normalised by these very rows."""


def _rows(subject: Subject) -> DataSet | None:
    data = subject.trained.data
    return data if data is not None and data.stand_in is not None else None


def _is_witnessed(subject: Subject) -> bool:
    data = _rows(subject)
    if data is None:
        return False
    return _recorded(subject, data) is not None or _has_second_reading(subject, data)


def _has_second_reading(subject: Subject, data: DataSet) -> bool:
    return subject.tier == "real" and data.plain is not None


def _recorded(subject: Subject, data: DataSet) -> Any:
    return files.recorded("data", data.name, subject.example).get(subject.tier)


@check(
    "data-as-recorded",
    on_cpu=True,
    applies=_is_witnessed,
    reading="the reader, the recipe or the preparation gives other rows than it did, or than a "
    "plain reading of the same files; if that is meant, refimpl record NAME --because REASON keeps "
    "the new facts, and the reason",
)
def data_as_recorded(subject: Subject) -> Iterator[Measurement]:
    """Are digests, counts, means and shared rows of every split those that are committed?

    Real rows are also compared with a plain reading of the same files, by other means.
    """
    data = _rows(subject)
    assert data is not None
    recorded = _recorded(subject, data)
    if recorded is not None:
        moved = list(files.differences(of_data.record(data, subject.tier), recorded))
        message = f"{data.name} moved: {files.shown(moved)}"
        yield true(f"{data.name} is as recorded", not moved, message)
    if subject.tier == "real" and data.printed is not None:
        yield from _printed(data, data.printed())
    if _has_second_reading(subject, data):
        yield from _read_twice(data)


def _printed(data: DataSet, printed: Rows) -> Iterator[Measurement]:
    """The rows that the document prints are training rows, with their targets."""
    train = data.load("real").train
    lacking = [
        number
        for number in range(len(printed))
        if not _has(train, printed.x[number], printed.y[number])
    ]
    yield equal("rows that the document prints and the training set lacks", lacking, [])


def _has(rows: Rows, x: NDArray[Any], y: NDArray[Any]) -> bool:
    near = (np.abs(rows.x - x) <= PRINTED_DIGITS).reshape(len(rows), -1).all(axis=1)
    same = (rows.y == y).reshape(len(rows), -1).all(axis=1)
    return bool((near & same).any())


# --- a second reading ----------------------------------------------------------------------------


@cache
def _read_twice(data: DataSet) -> list[Measurement]:
    """Once in a process: variants of an example share a data set."""
    return list(_compared(data))


def _compared(data: DataSet) -> Iterator[Measurement]:
    first, second = data.load("real"), data.read_plainly()
    assert second is not None
    names = [[name for name, _ in of_data.named(splits)] for splits in (first, second)]
    yield equal(f"splits of {data.name}", *names)
    parts = zip(of_data.named(first), of_data.named(second), strict=False)
    for (split, own), (_, plain) in parts:
        for what in ("x", "y"):
            name, pairs = f"{what} of {split}", (getattr(own, what), getattr(plain, what))
            for (_, one), (_, other) in zip(*map(named_leaves, pairs), strict=True):
                yield equal(f"shape and dtype of {name}", _form(one), _form(other))
                if _form(one) == _form(other):
                    yield _same(name, _flat(one), _flat(other))


def _form(array: Any) -> str:
    if is_ragged(array):
        lengths = np.array([len(row) for row in array])
        return f"{len(array)} rows of {lengths.sum()} numbers, {of_data.digest(lengths)}"
    return f"{array.shape} {array.dtype}"


def _flat(array: Any) -> NDArray[Any]:
    return np.concatenate([np.ravel(row) for row in array]) if is_ragged(array) else array


def _same(name: str, one: NDArray[Any], other: NDArray[Any]) -> Measurement:
    apart = one != other
    count = int(apart.sum())
    message = ""
    if count:
        at = tuple(int(i) for i in np.argwhere(apart)[0])
        message = (
            f"{name} differs from a plain reading in {count} of {one.size} numbers, first at "
            f"{list(at)}: {one[at]:.6g}, plainly {other[at]:.6g}"
        )
    return true(f"{name} as read plainly", not count, message)


# --- how splits are related ----------------------------------------------------------------------


@check(
    "splits-do-not-mix",
    on_cpu=True,
    applies=lambda subject: _rows(subject) is not None,
    reading="validation rows are training rows, were prepared in another way, or a target can be "
    "read off one column; look at the reader and at what prepares each split",
)
def splits_do_not_mix(subject: Subject) -> Iterator[Measurement]:
    """Are training and validation rows different rows, prepared alike, and no answer among them?"""
    data = _rows(subject)
    assert data is not None
    yield from _relations(data, subject.tier)


@cache
def _relations(data: DataSet, tier: Tier) -> list[Measurement]:
    """Once in a process: variants of an example share a data set."""
    return list(_related(data, tier))


def _related(data: DataSet, tier: Tier) -> Iterator[Measurement]:
    splits = data.load(tier)
    for split, rows in of_data.named(splits):
        wrong = sum(int((~np.isfinite(array)).sum()) for array in _floats(rows))
        yield equal(f"numbers of {split} that are not finite", wrong, 0)
    yield from _targets(splits)
    yield from _giveaways(splits.train)
    if splits.valid is None:
        return
    yield _shared(data, tier)
    for what in ("x", "y"):
        pairs = (getattr(splits.train, what), getattr(splits.valid, what))
        for (path, train), (_, valid) in zip(*map(named_leaves, pairs), strict=True):
            if isinstance(train, np.ndarray) and isinstance(valid, np.ndarray):
                yield from _prepared_alike(f"{what}.{path}".rstrip("."), train, valid)


def _floats(rows: Rows) -> list[NDArray[Any]]:
    return [array for array in arrays_of(rows) if array.dtype.kind == "f"]


def _shared(data: DataSet, tier: Tier) -> Measurement:
    """No more validation rows are training rows than the training rows have twins by chance."""
    splits = data.load(tier)
    assert splits.valid is not None
    found, count = len(of_data.shared(data, tier)), len(splits.valid)
    share = (of_data.twins(data, tier) + 1) / (len(splits.train) + 1)
    most = count * share + 4 * sqrt(count * share * max(1 - share, 0))
    measured = at_most("validation rows that are training rows too", found, float(int(most)))
    message = (
        f"{found} of {count} validation rows are training rows too, where chance explains "
        f"{int(most)}: the splits overlap"
    )
    return true(measured.what, measured.holds, message)


def _targets(splits: Splits) -> Iterator[Measurement]:
    """Classes are numbered from 0, and validation has no class that training lacks."""
    for path, y in named_leaves(splits.train.y):
        if not isinstance(y, np.ndarray) or not y.size or y.dtype.kind not in "iuf":
            continue
        values = np.unique(y)
        whole = bool((values == np.round(values)).all())
        named = f"y.{path}".rstrip(".")
        if whole and len(values) == 2:
            yield true(
                f"the two values of {named}",
                values.tolist() in ([0, 1], [-1, 1]),
                f"the two values of {named} are {values.tolist()}, expected 0 and 1",
            )
        elif y.dtype.kind in "iu" and y.ndim == 1 and 2 < len(values) <= of_data.FEW_VALUES:
            yield equal(f"classes of {named}", values.tolist(), list(range(len(values))))
        if splits.valid is None or not whole or len(values) > of_data.FEW_VALUES:
            continue
        there = dict(named_leaves(splits.valid.y))[path]
        unknown = sorted(set(np.unique(there).tolist()) - set(values.tolist()))
        yield equal(f"values of {named} in validation that training lacks", unknown, [])


def _giveaways(rows: Rows) -> Iterator[Measurement]:
    """No single column of a table is the target in another form."""
    x, y = rows.x, rows.y
    if not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray)) or len(x) < ENOUGH:
        return
    if x.ndim != 2 or not 1 < x.shape[1] <= MOST_COLUMNS or y.reshape(len(y), -1).shape[1] != 1:
        return
    target = y.reshape(-1).astype(np.float64)
    values = x.astype(np.float64)
    spread = values.std(axis=0) * target.std()
    with np.errstate(divide="ignore", invalid="ignore"):
        linear = (
            np.abs(
                ((values - values.mean(axis=0)) * (target - target.mean())[:, None]).mean(axis=0)
            )
            / spread
        )
    told = np.flatnonzero(linear > 1 - 1e-6).tolist()
    told += [
        number
        for number in range(values.shape[1])
        if number not in told and _decides(values[:, number], target)
    ]
    yield true(
        "columns that alone give the target",
        not told,
        f"column {', '.join(map(str, told))} of x alone gives the target: it is the answer",
    )


def _decides(column: NDArray[Any], target: NDArray[Any]) -> bool:
    """Whether each of a few values of a column goes with one target only."""
    classes = np.unique(target)
    if not 1 < len(classes) <= of_data.FEW_VALUES:
        return False
    values, place = np.unique(column, return_inverse=True)
    if not 1 < len(values) <= of_data.FEW_VALUES:
        return False
    return all(len(np.unique(target[place == number])) == 1 for number in range(len(values)))


def _prepared_alike(name: str, train: NDArray[Any], valid: NDArray[Any]) -> Iterator[Measurement]:
    yield equal(f"dtype and shape of {name} in validation", *(
        f"{a.dtype} {a.shape[1:]}" for a in (valid, train)
    ))  # fmt: skip
    if train.shape[1:] != valid.shape[1:] or min(len(train), len(valid)) < ENOUGH:
        return
    own, other = (of_data.columns_of(a.astype(np.float64)) for a in (train, valid))
    if own is None or other is None or len(own) > of_data.MOST_COLUMNS:
        own, other = ([a.astype(np.float64).ravel()] for a in (train, valid))
    odd = [text for n, pair in enumerate(zip(own, other, strict=True)) if (text := _odd(n, *pair))]
    yield true(f"{name} of both splits prepared alike", not odd, f"{name}: {'; '.join(odd[:3])}")
    if name == "x":
        yield from _normalised(own, other)


def _odd(number: int, train: NDArray[Any], valid: NDArray[Any]) -> str:
    """How a column of the one split differs from that of the other beyond chance, or nothing."""
    values, counts = np.unique(train, return_counts=True)
    common = values[np.argmax(counts)]
    shares = float((train == common).mean()), float((valid == common).mean())
    spread = DEVIATIONS * sqrt(shares[0] * (1 - shares[0]) / len(valid))
    if abs(shares[0] - shares[1]) > FAR_SHARE + spread:
        return (
            f"column {number} is {common:.4g} in {shares[0]:.0%} of the training rows and in "
            f"{shares[1]:.0%} of the validation rows"
        )
    spreads = float(train.std()), float(valid.std())
    if min(spreads) > 0 and max(spreads) > FAR_SPREAD * min(spreads):
        return f"column {number} has the spread {spreads[0]:.4g}, in validation {spreads[1]:.4g}"
    means = float(train.mean()), float(valid.mean())
    if spreads[0] > 0 and abs(means[0] - means[1]) > FAR_MEAN * spreads[0]:
        return f"column {number} has the mean {means[0]:.4g}, in validation {means[1]:.4g}"
    return ""


def _normalised(train: list[NDArray[Any]], valid: list[NDArray[Any]]) -> Iterator[Measurement]:
    """If columns are normalised, it is by the training rows alone."""
    together = [np.concatenate(pair) for pair in zip(train, valid, strict=True)]
    if _standard(valid):
        message = (
            "each validation column has mean 0 and spread 1: they were normalised by their own"
        )
        yield true("normalised by the training rows alone", False, message)
    elif _standard(together) and not _standard(train):
        message = "mean and spread are 0 and 1 over the rows of both splits: the normalisation has "
        yield true("normalised by the training rows alone", False, message + "seen validation rows")
    elif _standard(train):
        yield true("normalised by the training rows alone", True, "")


def _standard(columns: list[NDArray[Any]]) -> bool:
    return all(abs(c.mean()) < OWN and abs(c.std() - 1) < OWN for c in columns)
