"""Faults of the data are seen: in readers, in preparation, in how rows are divided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.checks_of import failing
from numpy.typing import NDArray

from refimpl import Example, Rows, Splits
from refimpl.loading import registry
from refimpl.records import files, of_data

LOADED = registry.load()

Fault = Callable[[Splits], Splits]


def changed(rows: Rows | None, x: Callable[[NDArray[Any]], Any] = np.copy) -> Rows:
    assert rows is not None
    return Rows(x(rows.x.copy()), rows.y)


def without(example: str, fault: Fault) -> Example:
    """An example whose data are read with a fault, in every variant."""
    own = LOADED.example(example)
    data = own.variants[0].data
    assert data is not None
    stand_in = data.stand_in
    assert stand_in is not None
    wrong = replace(data, stand_in=lambda: fault(stand_in()))
    return replace(own, variants=(replace(own.variants[0], data=wrong),))


def column(number: int, change: Callable[[NDArray[Any]], Any]) -> Callable[[NDArray[Any]], Any]:
    def of(x: NDArray[Any]) -> NDArray[Any]:
        x[:, number] = change(x[:, number])
        return x

    return of


FAULTS: dict[str, tuple[str, Fault, tuple[str, ...]]] = {
    "training rows as validation rows": (
        "titanic-dnn", lambda s: Splits(s.train, Rows(s.train.x[:179], s.train.y[:179])),
        ("data-as-recorded", "splits-do-not-mix"),
    ),
    "Fare divided by 100": (
        "titanic-dnn",
        lambda s: Splits(changed(s.train, column(9, lambda c: c / 100)),
                         changed(s.valid, column(9, lambda c: c / 100))),
        ("data-as-recorded",),
    ),
    "Fare divided by 100 in the test rows": (
        "titanic-dnn", lambda s: Splits(s.train, changed(s.valid, column(9, lambda c: c / 100))),
        ("data-as-recorded", "splits-do-not-mix"),
    ),
    "images transposed": (
        "mnist-cnn",
        lambda s: Splits(changed(s.train, lambda x: x.swapaxes(2, 3)),
                         changed(s.valid, lambda x: x.swapaxes(2, 3))),
        ("data-as-recorded",),
    ),
    "validation rows begin 50 too early": (
        "mnist-logistic",
        lambda s: Splits(s.train, Rows(np.concatenate([s.train.x[-50:], s.valid.x[:-50]]),
                                       np.concatenate([s.train.y[-50:], s.valid.y[:-50]]))),
        ("data-as-recorded", "splits-do-not-mix"),
    ),
    "1 % of the test rows are training rows": (
        "mnist-cnn",
        lambda s: Splits(s.train, Rows(np.concatenate([s.train.x[:10], s.valid.x[10:]]),
                                       np.concatenate([s.train.y[:10], s.valid.y[10:]]))),
        ("data-as-recorded", "splits-do-not-mix"),
    ),
    "blue first in the test images": (
        "cifar2-cnn", lambda s: Splits(s.train, changed(s.valid, lambda x: x[:, ::-1])),
        ("data-as-recorded",),
    ),
    "gaps filled only in the test rows": (
        "titanic-dnn",
        lambda s: Splits(s.train, changed(
            s.valid, column(5, lambda c: np.where(c == 0, c[c > 0].mean(), c)))),
        ("data-as-recorded",),
    ),
    "validation images normalised by their own mean": (
        "cifar10-two-layer",
        lambda s: Splits(s.train, changed(
            s.valid, lambda x: (x - x.mean((0, 2, 3), keepdims=True))
            / x.std((0, 2, 3), keepdims=True))),
        ("data-as-recorded", "splits-do-not-mix"),
    ),
    "test reviews cut at the other end": (
        "imdb-cnn", lambda s: Splits(s.train, changed(s.valid, lambda x: x[:, ::-1])),
        ("data-as-recorded",),
    ),
    "vocabulary one word short": (
        "imdb-cnn",
        lambda s: Splits(changed(s.train, lambda x: np.where(x == 9_999, 0, x)),
                         changed(s.valid, lambda x: np.where(x == 9_999, 0, x))),
        ("data-as-recorded",),
    ),
    "labels 1 and 2": (
        "titanic-dnn",
        lambda s: Splits(Rows(s.train.x, s.train.y + 1), Rows(s.valid.x, s.valid.y + 1)),
        ("data-as-recorded", "splits-do-not-mix"),
    ),
    "the answer is a column": (
        "titanic-dnn",
        lambda s: Splits(changed(s.train, column(10, lambda c: 0 * c + s.train.y[:, 0])), s.valid),
        ("data-as-recorded", "splits-do-not-mix"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_data_fails_these_checks(name: str) -> None:
    example, fault, expected = FAULTS[name]
    checks = ("data-as-recorded", "splits-do-not-mix")
    found = failing(without(example, fault), checks)
    assert tuple(found) == expected, found


def test_what_moved_is_said_in_words() -> None:
    _, fault, _ = FAULTS["Fare divided by 100"]
    found = failing(without("titanic-dnn", fault), ("data-as-recorded",))
    assert "titanic moved: train.x.digest is" in found["data-as-recorded"]
    assert "train.x.mean is 1.84" in found["data-as-recorded"]


def test_normalisation_that_has_seen_validation_rows_is_seen() -> None:
    def together(s: Splits) -> Splits:
        assert s.valid is not None
        x = np.concatenate([s.train.x, s.valid.x]).astype(np.float64)
        mean, spread = x.mean(0), x.std(0)
        return Splits(*(Rows((p.x - mean) / spread, p.y) for p in (s.train, s.valid)))

    found = failing(without("titanic-dnn", together), ("splits-do-not-mix",))
    assert "seen validation rows" in found["splits-do-not-mix"]


class TestAFileOfRecords:
    def test_what_is_new_is_added_without_a_reason(self, tmp_path: Path) -> None:
        path = tmp_path / "own.json"
        assert files.update(path, {"stand-in": {"mean": 1.0}}) == []
        assert files.update(path, {"real": {"mean": 2.0}}) == []
        assert files.read(path).records == {"stand-in": {"mean": 1.0}, "real": {"mean": 2.0}}

    def test_what_moves_needs_a_reason_and_is_not_written_without(self, tmp_path: Path) -> None:
        path = tmp_path / "own.json"
        files.update(path, {"stand-in": {"mean": 1.0}})
        with pytest.raises(files.RecordError, match=r"mean is 3, recorded 1.*--because REASON"):
            files.update(path, {"stand-in": {"mean": 3.0}})
        assert files.read(path).records == {"stand-in": {"mean": 1.0}}

    def test_the_reason_is_kept_beside_what_moved(self, tmp_path: Path) -> None:
        path = tmp_path / "own.json"
        files.update(path, {"stand-in": {"mean": 1.0}})
        files.update(path, {"stand-in": {"mean": 3.0}}, because="the file has a new row")
        (change,) = files.read(path).changes
        assert change.because == "the file has a new row"
        assert change.moved == ("stand-in: mean is 3, recorded 1",)

    def test_a_key_may_have_a_colon(self, tmp_path: Path) -> None:
        path = tmp_path / "own.json"
        files.update(path, {"failure: a sampler": {"calls": 1}})
        files.update(path, {"failure: a sampler": {"calls": 2}}, because="it is seen now")
        assert files.read(path).records == {"failure: a sampler": {"calls": 2}}

    def test_sums_may_differ_by_their_rounding(self) -> None:
        assert not list(files.differences({"mean": 1.0}, {"mean": 1.000001}))
        assert list(files.differences({"mean": 1.0}, {"mean": 1.0001}))

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "own.json"
        path.write_text("{", encoding="utf-8")
        with pytest.raises(files.RecordError, match=r"own\.json cannot be read"):
            files.read(path)


def test_digests_do_not_see_the_last_bits_of_float64() -> None:
    numbers = np.linspace(0, 1, 100)
    assert of_data.digest(numbers) == of_data.digest(numbers * (1 + 1e-15))
    assert of_data.digest(numbers) != of_data.digest(numbers * (1 + 1e-6))
