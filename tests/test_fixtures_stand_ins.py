"""The stand-ins: of the right shape, the same every time, and hard enough to prove something."""

import sys

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score

from refimpl.errors import MissingExtraError
from refimpl.fixtures import cifar2, cifar10, covid, imdb, mnist, titanic

F32, I64 = "float32", "int64"
SHAPES = [
    (mnist.DIGITS, (1_500, 297), (784,), F32, (), I64),
    (mnist.DIGIT_IMAGES, (4_000, 1_000), (1, 28, 28), F32, (), I64),
    (titanic.PASSENGERS, (712, 179), (15,), F32, (1,), F32),
    (cifar2.AIRPLANE_OR_AUTOMOBILE, (3_000, 600), (3, 32, 32), F32, (1,), F32),
    (cifar10.CIFAR10, (3_000, 600), (3, 32, 32), F32, (), I64),
    (imdb.KEEP_FIRST, (2_000, 500), (200,), I64, (1,), F32),
    (imdb.KEEP_LAST, (2_000, 500), (200,), I64, (1,), F32),
    (covid.COVID, (38,), (8, 3), F32, (3,), F32),
    (covid.COVID_TOTALS, (47,), (), I64, (3,), F32),
]


@pytest.mark.parametrize(
    ("data_set", "counts", "x", "x_type", "y", "y_type"), SHAPES, ids=[s[0].name for s in SHAPES]
)
class TestEveryStandIn:
    def test_shapes_and_types(self, data_set, counts, x, x_type, y, y_type):
        splits = data_set.load("stand-in")
        parts = [part for part in (splits.train, splits.valid) if part is not None]
        assert tuple(map(len, parts)) == counts
        for part in parts:
            assert (part.x.shape[1:], part.x.dtype) == (x, x_type)
            assert (part.y.shape[1:], part.y.dtype) == (y, y_type)
            assert np.isfinite(part.x).all()

    def test_made_twice_it_is_the_same(self, data_set, counts, x, x_type, y, y_type):
        first, second = data_set.load("stand-in"), data_set.stand_in()
        assert np.array_equal(first.train.x, second.train.x)
        assert np.array_equal(first.train.y, second.train.y)


def flat(x):
    return x.reshape(len(x), -1)


class TestDigits:
    def test_a_linear_model_reads_the_columns(self):
        splits = mnist.DIGITS.load("stand-in")
        assert 0 <= splits.train.x.min() < splits.train.x.max() < 1
        model = RidgeClassifier().fit(splits.train.x, splits.train.y)
        assert model.score(splits.valid.x, splits.valid.y) > 0.8

    def test_a_linear_model_cannot_read_the_images(self):
        splits = mnist.DIGIT_IMAGES.load("stand-in")
        model = RidgeClassifier(alpha=10).fit(flat(splits.train.x), splits.train.y)
        assert model.score(flat(splits.valid.x), splits.valid.y) < 0.4

    def test_all_digits_occur_about_equally_often(self):
        for data_set in (mnist.DIGITS, mnist.DIGIT_IMAGES):
            for part in (data_set.load("stand-in").train, data_set.load("stand-in").valid):
                assert np.bincount(part.y, minlength=10).min() > 0.07 * len(part)


class TestPassengers:
    def test_columns_are_those_that_get_dummies_makes_in_the_documents_order(self):
        made = titanic._made_up_passengers(300)
        expected = pd.concat(
            [
                pd.get_dummies(made["Pclass"]).add_prefix("Pclass_"),
                pd.get_dummies(made["Sex"]).add_prefix("Sex_"),
                made["Age"].fillna(0),
                made["Age"].isna().rename("Age_null"),
                made[["SibSp", "Parch", "Fare"]],
                made["Cabin"].isna().rename("Cabin_null"),
                pd.get_dummies(made["Embarked"], dummy_na=True).add_prefix("Embarked_"),
            ],
            axis=1,
        ).astype("float32")
        assert tuple(expected.columns) == titanic.FEATURES
        assert np.array_equal(titanic.features(made, "made up"), expected.to_numpy())

    def test_every_gap_of_the_real_list_occurs(self):
        x = titanic.PASSENGERS.load("stand-in").train.x
        for gap in ("Age_null", "Cabin_null", "Embarked_nan"):
            assert 0 < x[:, titanic.FEATURES.index(gap)].mean() < 1

    def test_interactions_beat_columns_beat_the_majority(self):
        splits = titanic.PASSENGERS.load("stand-in")
        survived, found = splits.train.y[:, 0], splits.valid.y[:, 0]
        majority = 1 - found.mean()
        columns = LogisticRegression(max_iter=3_000).fit(splits.train.x, survived)
        forest = RandomForestClassifier(200, min_samples_leaf=3, random_state=0)
        forest.fit(splits.train.x, survived)
        assert majority < 0.7
        assert majority + 0.1 < columns.score(splits.valid.x, found)
        assert columns.score(splits.valid.x, found) < forest.score(splits.valid.x, found) < 0.9


class TestImages:
    def test_stripes_are_invisible_to_a_linear_model(self):
        splits = cifar2.AIRPLANE_OR_AUTOMOBILE.load("stand-in")
        assert splits.train.x.min() >= 0
        assert splits.train.x.max() <= 1
        assert splits.train.y.mean() == 0.5
        model = RidgeClassifier(alpha=100).fit(flat(splits.train.x), splits.train.y[:, 0])
        score = model.decision_function(flat(splits.valid.x))
        assert 0.4 < roc_auc_score(splits.valid.y[:, 0], score) < 0.6

    def test_patterns_of_either_sign_are_invisible_to_a_linear_model(self):
        splits = cifar10.CIFAR10.load("stand-in")
        assert set(splits.train.y) == set(range(10))
        model = RidgeClassifier(alpha=100).fit(flat(splits.train.x), splits.train.y)
        assert model.score(flat(splits.valid.x), splits.valid.y) < 0.2


def counted(rows):
    """How often each word occurs in each review, order forgotten."""
    row = np.repeat(np.arange(len(rows)), rows.x.shape[1])
    return csr_matrix((np.ones(rows.x.size), (row, rows.x.ravel())), (len(rows), imdb.WORDS))


class TestReviews:
    def test_counting_words_beats_a_coin_and_falls_short(self):
        splits = imdb.KEEP_FIRST.load("stand-in")
        model = LogisticRegression(C=0.01, max_iter=1_000)
        model.fit(counted(splits.train), splits.train.y[:, 0])
        assert splits.valid.y.mean() == 0.5
        assert 0.6 < model.score(counted(splits.valid), splits.valid.y[:, 0]) < 0.8

    @pytest.mark.parametrize("data_set", [imdb.KEEP_FIRST, imdb.KEEP_LAST], ids=lambda d: d.name)
    def test_unknown_words_and_padding_occur(self, data_set):
        splits = data_set.load("stand-in")
        for part in (splits.train, splits.valid):
            assert 0 < (part.x == imdb.UNKNOWN).mean() < 0.2
            assert 0 < (part.x == imdb.PADDING).mean() < 0.5
            assert part.x.min() >= 0
            assert part.x.max() < imdb.WORDS

    def test_padding_goes_where_the_pipeline_puts_it(self):
        ids = {"a": 2, "b": 3, "c": 10_000}
        words = ["a", "b", "c", "d"]
        assert imdb.encode_keeping_first(words, ids) == [2, 3, 0, 0] + [1] * 196
        assert imdb.encode_keeping_last(words, ids) == [1] * 196 + [2, 3, 0, 0]
        assert imdb.encode_keeping_first(["a"] * 199 + words, ids)[-2:] == [2, 2]
        assert imdb.encode_keeping_last(words + ["b"] * 199, ids)[:2] == [0, 3]

    def test_tokens(self):
        text = "It's <br /><br />GOOD \\ film."
        assert imdb.tokens_keeping_markup(text) == ["its", "br", "br", "good", "\\", "film"]
        assert imdb.tokens_without_markup(text) == ["its", "", "", "good", "", "film", ""]

    def test_words_are_ranked_by_frequency_then_by_spelling(self):
        reviews = [["b", "a", "z"], ["z", "a", "b", "z"], ["B"]]
        assert imdb.vocabulary(reviews) == {"z": 2, "a": 3, "b": 4, "B": 5}

    def test_torchtext_gives_the_same_ids(self):
        try:
            found = imdb.TORCHTEXT.load("stand-in")
        except MissingExtraError:
            pytest.skip("needs torchtext")
        expected = imdb.KEEP_FIRST.load("stand-in")
        assert np.array_equal(found.train.x, expected.train.x)
        assert np.array_equal(found.valid.x, expected.valid.x)

    def test_a_torchtext_that_does_not_load_is_told(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torchtext", None)
        with pytest.raises(MissingExtraError, match=r"refimpl\[text\]"):
            imdb.TORCHTEXT.stand_in()


class TestEpidemic:
    def test_windows(self):
        totals = np.cumsum(np.arange(33).reshape(11, 3) ** 2.0, axis=0)
        samples = covid.windows(totals)
        growth = np.diff(totals, axis=0)
        assert samples.x.shape == (2, 8, 3)
        assert np.array_equal(samples.x[1], growth[1:9])
        assert np.array_equal(samples.y[1], growth[9])
        assert np.array_equal(covid.growth(samples), growth)

    def test_totals_only_grow(self):
        totals = covid.COVID_TOTALS.load("stand-in").train.y
        growth = covid.growth(covid.COVID.load("stand-in").train)
        assert growth.shape == (46, 3)
        assert growth.min() >= 0
        assert np.array_equal(np.diff(totals, axis=0), growth)
