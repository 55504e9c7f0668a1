"""The documents' own files, where they are at hand."""

import os
import shutil

import numpy as np
import pytest

from refimpl.data import DATA_VARIABLE, data_root
from refimpl.errors import DataError, DataMissingError
from refimpl.fixtures import cifar2, covid, imdb, mnist, titanic

needs_real_data = pytest.mark.skipif(
    not os.environ.get(DATA_VARIABLE), reason=f"needs real data: {DATA_VARIABLE}"
)


def test_files_that_are_not_there_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(DataMissingError, match=r"titanic/train\.csv, titanic/test\.csv"):
        titanic.PASSENGERS.load("real")


@needs_real_data
class TestRealData:
    def test_digits(self):
        columns, images = mnist.DIGITS.load("real"), mnist.DIGIT_IMAGES.load("real")
        assert columns.train.x.shape == (50_000, 784)
        assert columns.valid.x.shape == (10_000, 784)
        assert columns.train.x.max() == np.float32(255 / 256)
        assert columns.train.y[:5].tolist() == [5, 0, 4, 1, 9]
        assert images.train.x.shape == (60_000, 1, 28, 28)
        assert images.valid.x.shape == (10_000, 1, 28, 28)
        assert images.train.x.mean() == pytest.approx(0.1307, abs=5e-5)
        assert images.train.x.std(dtype=np.float64) == pytest.approx(0.3081, abs=5e-5)
        assert np.array_equal(columns.valid.y, images.train.y[50_000:])

    def test_passengers(self):
        splits = titanic.PASSENGERS.load("real")
        assert splits.train.x.shape == (712, 15)
        assert splits.valid.x.shape == (179, 15)
        assert splits.train.y.mean() == pytest.approx(0.392, abs=1e-3)
        # The first of the file: first class, male, 55 years, fare 30.5, a cabin, Southampton.
        first = [1, 0, 0, 0, 1, 55, 0, 0, 0, 30.5, 0, 0, 0, 1, 0]
        assert splits.train.x[0].tolist() == first

    def test_aeroplanes_and_automobiles(self, tmp_path, monkeypatch):
        pytest.importorskip("torchvision", reason="needs torchvision")
        monkeypatch.setattr(cifar2, "cache_root", lambda: tmp_path)
        root = data_root()
        decoded = cifar2.AIRPLANE_OR_AUTOMOBILE.real(root)
        assert decoded.train.x.shape == (10_000, 3, 32, 32)
        assert decoded.valid.y.shape == (2_000, 1)
        assert decoded.train.y.mean() == decoded.valid.y.mean() == 0.5
        (cached,) = tmp_path.iterdir()
        again = cifar2.AIRPLANE_OR_AUTOMOBILE.real(root)
        assert np.array_equal(again.train.x, decoded.train.x)
        cached.write_bytes(cached.read_bytes()[:-1_000])
        assert cifar2._load(cached) is None  # and is decoded anew

    def test_reviews(self):
        first, last = imdb.KEEP_FIRST.load("real"), imdb.KEEP_LAST.load("real")
        for splits in (first, last):
            assert splits.train.x.shape == (20_000, 200)
            assert splits.valid.x.shape == (5_000, 200)
            assert splits.train.x.max() == imdb.WORDS - 1
        assert np.array_equal(first.train.y, last.train.y)

    def test_epidemic(self):
        samples = covid.COVID.load("real").train
        totals = covid.COVID_TOTALS.load("real").train.y
        assert samples.x.shape == (38, 8, 3)
        assert covid.growth(samples)[0].tolist() == [457, 4, 16]
        assert totals[-1].tolist() == [80_754, 59_897, 3_136]

    @pytest.mark.parametrize(
        ("data_set", "name"),
        [
            (mnist.DIGITS, mnist.TRAIN_FILES[1]),
            (titanic.PASSENGERS, titanic.TRAIN_FILE),
            (covid.COVID, covid.FILE),
            (imdb.KEEP_FIRST, imdb.TEST_FILE),
            (cifar2.AIRPLANE_OR_AUTOMOBILE, cifar2.FILE),
        ],
        ids=lambda value: getattr(value, "name", None),
    )
    def test_a_damaged_file_is_named_and_not_used(self, data_set, name, tmp_path):
        for file in data_set.files:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(data_root() / file, tmp_path / file)
        content = bytearray((tmp_path / name).read_bytes())
        content[len(content) // 2] ^= 0x04
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}.*expected .*sha256 [0-9a-f]{{64}}"):
            data_set.real(tmp_path)
