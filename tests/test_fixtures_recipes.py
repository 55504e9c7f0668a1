"""Data that the documents generate by recipe."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

from refimpl.data import DATA_VARIABLE
from refimpl.fixtures import iris, line, plane, ring


class TestLine:
    def test_the_least_squares_line_is_the_documented_one(self):
        train = line.LINE.load("real").train
        fitted = LinearRegression().fit(train.x, train.y)
        assert fitted.intercept_[0] == pytest.approx(1.02354075, abs=5e-9)
        assert fitted.coef_[0, 0] == pytest.approx(1.96896447, abs=5e-9)

    def test_shapes(self):
        splits = line.LINE.load("stand-in")
        assert splits.train.x.shape == splits.train.y.shape == (80, 1)
        assert splits.valid.x.shape == splits.valid.y.shape == (20, 1)
        assert splits.train.x.dtype == np.float64

    def test_the_random_split_divides_the_same_points_otherwise(self):
        documented, random = line.LINE.load("real"), line.RANDOM_SPLIT.load("real")
        assert (len(random.train), len(random.valid)) == (80, 20)
        points = [np.concatenate([s.train.x, s.valid.x]) for s in (documented, random)]
        assert np.array_equal(np.sort(points[0], axis=0), np.sort(points[1], axis=0))
        assert not np.array_equal(*points)


class TestPlane:
    @pytest.mark.parametrize("data_set", [plane.PLANE, plane.LARGE], ids=lambda d: d.name)
    def test_least_squares_finds_the_plane(self, data_set):
        rows = data_set.load("stand-in").train
        fitted = LinearRegression().fit(rows.x, rows.y)
        error = 5 * plane.NOISE / np.sqrt(len(rows))
        assert fitted.coef_[0] == pytest.approx(plane.WEIGHTS, abs=error)
        assert fitted.intercept_[0] == pytest.approx(plane.BIAS, abs=error)
        residual = np.var(rows.y - fitted.predict(rows.x))
        assert residual == pytest.approx(4, rel=5 * np.sqrt(2 / len(rows)))

    def test_the_split_has_the_same_points(self):
        whole, parts = plane.PLANE.load("real").train, plane.PLANE_SPLIT.load("real")
        assert (len(parts.train), len(parts.valid)) == (280, 120)
        assert np.array_equal(np.concatenate([parts.train.x, parts.valid.x]), whole.x)

    def test_a_million_points_need_no_folder(self, monkeypatch):
        monkeypatch.setenv(DATA_VARIABLE, "/no/such/folder")
        rows = plane.LARGE.load("real").train
        assert rows.x.shape == (1_000_000, 2)
        assert rows.y.shape == (1_000_000, 1)
        assert rows.x.dtype == rows.y.dtype == np.float32


class TestRing:
    def test_shapes(self):
        rows = ring.RING.load("real").train
        assert rows.x.shape == (4_000, 2)
        assert rows.y.shape == (4_000, 1)
        assert rows.x.dtype == rows.y.dtype == np.float32

    def test_radii_and_balance(self):
        rows = ring.RING.load("real").train
        radius, positive = np.hypot(*rows.x.T), rows.y[:, 0] == 1
        assert positive.sum() == 2_000
        for group, mean in ((positive, 5), (~positive, 8)):
            assert radius[group].mean() == pytest.approx(mean, abs=0.12)
            assert radius[group].std() == pytest.approx(1, abs=0.08)

    def test_the_best_classifier_is_where_the_document_has_it(self):
        rows = ring.RING.load("real").train
        inside = np.hypot(*rows.x.T) < 6.5
        assert np.mean(inside == (rows.y[:, 0] == 1)) == pytest.approx(0.933, abs=0.02)

    def test_the_loss_of_the_true_probabilities_is_what_ring_dnn_says(self):
        def loss(radius, inside):
            odds = ((radius - 5) ** 2 - (radius - 8) ** 2) / 2  # of lying on the outer ring, log
            return np.mean(np.logaddexp(0, np.where(inside, odds, -odds)))

        rows = ring.RING.load("real").train
        assert loss(np.hypot(*rows.x.T), rows.y[:, 0] == 1) == pytest.approx(0.162, abs=5e-4)
        inside, stream = np.arange(4_000) < 2_000, np.random.default_rng(0)
        centre = np.where(inside, 5, 8)
        others = [loss(centre + stream.standard_normal(4_000), inside) for _ in range(500)]
        assert np.mean(others) == pytest.approx(0.166, abs=1e-3)
        assert np.std(others) == pytest.approx(0.008, abs=1e-3)

    def test_a_linear_model_is_no_better_than_a_coin(self):
        splits = ring.RING_SPLIT.load("real")
        model = LogisticRegression().fit(splits.train.x, splits.train.y[:, 0])
        assert model.score(splits.valid.x, splits.valid.y[:, 0]) < 0.6

    def test_the_split_has_the_same_points(self):
        whole, parts = ring.RING.load("real").train, ring.RING_SPLIT.load("real")
        assert (len(parts.train), len(parts.valid)) == (2_800, 1_200)
        assert np.array_equal(np.concatenate([parts.train.x, parts.valid.x]), whole.x)

    def test_the_unbalanced_ring(self):
        parts = ring.UNBALANCED_RING.load("real")
        assert (len(parts.train), len(parts.valid)) == (4_340, 1_860)
        assert parts.train.y.sum() + parts.valid.y.sum() == 200
        assert parts.valid.y.sum() > 30


def test_iris():
    rows = iris.IRIS.load("real").train
    assert (rows.x.shape, rows.y.shape) == ((150, 4), (150,))
    assert np.array_equal(rows.x, load_iris().data.astype(np.float32))
