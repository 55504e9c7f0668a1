"""The readers of real files: what is sound comes back whole, what is not is named and refused."""

import gzip
import hashlib
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from refimpl.errors import DataError
from refimpl.fixtures import cifar10, covid, idx, imdb, integrity, mnist, tables, titanic
from refimpl.store import digests

byte_arrays = hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3, max_side=6))


class TestIdx:
    @given(byte_arrays)
    def test_reads_back_what_was_written(self, values):
        content = idx.format_idx(values)
        assert np.array_equal(idx.parse_idx(content, "some.idx", values.shape), values)

    @given(byte_arrays, st.data())
    def test_any_truncation_names_the_file(self, values, data):
        content = idx.format_idx(values)
        kept = data.draw(st.integers(0, len(content) - 1))
        with pytest.raises(DataError, match=r"some\.idx: .*found"):
            idx.parse_idx(content[:kept], "some.idx", values.shape)

    @given(byte_arrays, st.binary(min_size=1, max_size=5))
    def test_anything_appended_names_the_file(self, values, extra):
        with pytest.raises(DataError, match=r"some\.idx: expected \d+ bytes"):
            idx.parse_idx(idx.format_idx(values) + extra, "some.idx", values.shape)

    @given(byte_arrays, st.data())
    def test_any_bit_flipped_in_the_header_names_the_file(self, values, data):
        content = bytearray(idx.format_idx(values))
        bit = data.draw(st.integers(0, 8 * (4 + 4 * values.ndim) - 1))
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataError, match=r"some\.idx: expected"):
            idx.parse_idx(bytes(content), "some.idx", values.shape)

    def test_labels_in_place_of_images_say_so(self):
        labels = idx.format_idx(np.zeros(5, np.uint8))
        with pytest.raises(DataError, match=r"magic 00000803\), found magic 00000801"):
            idx.parse_idx(labels, "images", (5, 28, 28))

    def test_another_shape_is_told(self):
        content = idx.format_idx(np.zeros((3, 2), np.uint8))
        with pytest.raises(DataError, match=r"expected the shape \(2, 3\), found \(3, 2\)"):
            idx.parse_idx(content, "x", (2, 3))


def content_or_refusal(packed):
    try:
        return integrity.gunzip(packed, "a.gz")
    except DataError as error:
        return str(error)


class TestGzip:
    content = bytes(range(200))
    packed = gzip.compress(content, mtime=0)

    @given(st.integers(1, len(packed) - 1))
    def test_any_truncation_names_the_file(self, kept):
        with pytest.raises(DataError, match=r"^a\.gz: "):
            integrity.gunzip(self.packed[:kept], "a.gz")

    @given(st.integers(0, 8 * len(packed) - 1))
    def test_a_flipped_bit_is_noticed_or_does_no_harm(self, bit):
        flipped = bytearray(self.packed)
        flipped[bit // 8] ^= 1 << bit % 8
        outcome = content_or_refusal(bytes(flipped))
        # Harmless in the wrapper's time stamp, say.
        assert outcome == self.content or outcome.startswith("a.gz: ")


def as_is(content, _path):
    return content


class TestIntegrity:
    @pytest.fixture
    def listed(self, monkeypatch):
        """Lists the digest of "right" for the file "data"."""
        listing = {"data": hashlib.sha256(b"right").hexdigest()}
        monkeypatch.setattr(integrity, "registry", lambda: listing)
        return listing["data"]

    @pytest.mark.usefixtures("listed")
    def test_sound_content_is_parsed(self, tmp_path):
        (tmp_path / "data").write_bytes(b"right")
        assert integrity.read(tmp_path, "data", as_is) == b"right"

    def test_damaged_content_is_named_with_both_digests(self, tmp_path, listed):
        (tmp_path / "data").write_bytes(b"wrong")
        found = hashlib.sha256(b"wrong").hexdigest()
        with pytest.raises(DataError) as error:
            integrity.read(tmp_path, "data", as_is)
        assert all(word in str(error.value) for word in (str(tmp_path / "data"), listed, found))

    def test_a_parse_error_comes_first_and_carries_the_digests(self, tmp_path, listed):
        def parse(_content, path):
            raise DataError(f"{path}: three columns missing")

        (tmp_path / "data").write_bytes(b"wrong")
        with pytest.raises(DataError, match=rf"data: three columns missing; .*{listed}"):
            integrity.read(tmp_path, "data", parse)

    def test_a_truncated_wrapper_tells_the_digest_expected(self, tmp_path, listed):
        (tmp_path / "data").write_bytes(gzip.compress(b"right")[:-3])
        with pytest.raises(DataError, match=rf"data: truncated.*{listed}"):
            integrity.read(tmp_path, "data", as_is, unzip=True)

    @pytest.mark.usefixtures("listed")
    def test_the_wrapper_does_not_matter_where_the_content_counts(self, tmp_path):
        for level in (1, 9):
            (tmp_path / "data").write_bytes(gzip.compress(b"right", level))
            assert integrity.read(tmp_path, "data", as_is, unzip=True) == b"right"

    @pytest.mark.usefixtures("listed")
    def test_a_digest_beside_a_listed_file_counts_for_nothing(self, tmp_path):
        path = tmp_path / "data"
        path.write_bytes(b"changed")
        digests.record(path)
        with pytest.raises(DataError, match="damaged, or not the documents' file"):
            integrity.read(tmp_path, "data", as_is)

    @pytest.mark.usefixtures("listed")
    def test_a_file_made_here_is_held_against_its_own_record(self, tmp_path, monkeypatch):
        monkeypatch.setattr(integrity, "made_here", lambda: {"data"})
        path = tmp_path / "data"
        path.write_bytes(b"made here")
        digests.record(path)
        assert integrity.read(tmp_path, "data", as_is) == b"made here"
        assert integrity.require_sound(tmp_path, "data") == digests.of_file(path)
        path.write_bytes(b"rotten")
        with pytest.raises(DataError, match="damaged"):
            integrity.require_sound(tmp_path, "data")

    def test_a_bomb_is_refused_before_it_fills_the_memory(self, tmp_path, monkeypatch):
        monkeypatch.setattr(digests.unzipped, "__defaults__", (1 << 20,))
        (tmp_path / "data").write_bytes(gzip.compress(bytes(5 << 20)))
        with pytest.raises(DataError, match=r"data: .* holds more than 1,048,576 bytes"):
            integrity.read(tmp_path, "data", as_is, unzip=True)

    def test_only_a_plain_file_is_read(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for name in ("pipe", "/dev/zero"):
            with pytest.raises(DataError, match=r"a pipe or a device, and only plain files are"):
                integrity.read(tmp_path, name, as_is)

    def test_a_file_that_is_not_there_is_a_data_error(self, tmp_path):
        with pytest.raises(DataError, match="gone"):
            integrity.read(tmp_path, "gone", as_is)

    def test_every_listed_digest_is_one(self):
        assert integrity.registry()
        for digest in integrity.registry().values():
            assert len(bytes.fromhex(digest)) == 32

    @pytest.mark.parametrize(
        "data_set",
        [mnist.DIGITS, mnist.DIGIT_IMAGES, titanic.PASSENGERS, covid.COVID, imdb.KEEP_FIRST],
        ids=lambda data_set: data_set.name,
    )
    def test_every_file_of_the_documents_is_listed(self, data_set):
        assert set(data_set.files) <= set(integrity.registry())

    def test_digits_of_the_right_shape_but_not_mnist_are_refused(self, tmp_path):
        (tmp_path / "mnist").mkdir()
        for name, shape in zip(mnist.TRAIN_FILES, [(60_000, 28, 28), (60_000,)], strict=True):
            packed = gzip.compress(idx.format_idx(np.zeros(shape, np.uint8)), 1)
            (tmp_path / name).write_bytes(packed)
        with pytest.raises(DataError, match=r"train-images.*damaged.*expected sha256.*found"):
            mnist.DIGITS.real(tmp_path)


PASSENGER = "0,3,male,,1,0,7.25,,S\n"
HEADER = ",".join(titanic.READ_COLUMNS) + "\n"


def passengers(text):
    table = tables.parse_table(text.encode(), "p.csv", titanic.READ_COLUMNS, 1)
    return titanic.rows(table, "p.csv")


class TestTables:
    def test_one_passenger_gets_every_column(self):
        rows = passengers(HEADER + PASSENGER)
        assert rows.x.tolist() == [[0, 0, 1, 0, 1, 0, 1, 1, 0, 7.25, 1, 0, 0, 1, 0]]
        assert rows.y.tolist() == [[0]]
        assert rows.x.dtype == rows.y.dtype == np.float32

    @pytest.mark.parametrize("column", titanic.READ_COLUMNS)
    def test_a_missing_column_is_told(self, column):
        with pytest.raises(DataError, match=rf"p\.csv: .*{column} missing"):
            passengers(HEADER.replace(column, "other") + PASSENGER)

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ("0,3", "2,3", "Survived; found 2"),
            ("0,3", "0,4", "Pclass; found 4"),
            ("male", "mole", "Sex; found mole"),
            (",S\n", ",X\n", "Embarked; found X"),
            ("7.25", "-1", "Fare; found -1"),
            ("7.25", "inf", "Fare; found inf"),
            ("7.25", "", "Fare; found nan"),
            ("7.25", "much", "numbers in column Fare"),
            ("male,,", "male,-3,", "Age; found -3"),
        ],
    )
    def test_a_value_that_cannot_be_is_told(self, old, new, told):
        with pytest.raises(DataError, match=rf"p\.csv: .*{told}"):
            passengers(HEADER + PASSENGER.replace(old, new))

    def test_another_number_of_rows_is_told(self):
        with pytest.raises(DataError, match="expected 1 rows, found 2"):
            passengers(HEADER + 2 * PASSENGER)

    @given(st.binary(max_size=200))
    def test_nothing_but_a_data_error_comes_of_noise(self, content):
        with pytest.raises(DataError, match=r"p\.csv"):
            tables.parse_table(content, "p.csv", titanic.READ_COLUMNS, 1)


class TestCifar10:
    @given(st.integers(1, 3), st.data())
    def test_reads_back_what_was_written(self, count, data):
        labels = data.draw(hnp.arrays(np.uint8, count, elements=st.integers(0, 9)))
        images = np.random.default_rng(count).integers(0, 256, (count, 3, 32, 32), np.uint8)
        content = b"".join(
            bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True)
        )
        found = cifar10.parse_records(content, "c.bin", count)
        assert np.array_equal(found[0], images)
        assert np.array_equal(found[1], labels)

    @given(st.integers(0, 2 * cifar10.RECORD_BYTES).filter(lambda n: n != cifar10.RECORD_BYTES))
    def test_another_size_is_told(self, size):
        with pytest.raises(DataError, match=rf"c\.bin: .*found {size} bytes"):
            cifar10.parse_records(bytes(size), "c.bin", 1)

    def test_an_eleventh_class_is_told(self):
        with pytest.raises(DataError, match=r"c\.bin: .*found 10 in record 0"):
            cifar10.parse_records(b"\x0a" + bytes(3072), "c.bin", 1)


class TestReviews:
    def test_reads_labels_and_texts(self):
        content = gzip.compress("1\tfine\u2028film\n0\tbad\n".encode())
        found = imdb.parse_reviews(content, "r.tsv.gz", 2)
        assert found == imdb.Reviews(("fine\u2028film", "bad"), (1, 0))

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            (b"1\tfine\n", "expected 2 reviews, one a line; found 1"),
            (b"1\tfine\n2\tbad\n", "in line 2; found '2"),
            (b"1 fine\n0\tbad\n", "in line 1; found '1 fine'"),
            (b"1\tfine\n0\t\xff\n", "UTF-8"),
        ],
    )
    def test_what_is_no_review_is_told(self, text, told):
        with pytest.raises(DataError, match=rf"r\.tsv\.gz: .*{told}"):
            imdb.parse_reviews(gzip.compress(text), "r.tsv.gz", 2)
