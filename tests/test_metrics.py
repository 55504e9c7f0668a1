"""Metrics give what scikit-learn gives, ties and batches of one class included."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from refimpl import metrics

few_levels = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
probabilities = st.floats(0, 1, width=32) | few_levels
labels = st.integers(0, 1)
batches = st.lists(st.tuples(probabilities, labels), min_size=1, max_size=40)


def columns(pairs):
    """Outputs and targets as a model with one output has them, (N, 1) each."""
    output, target = (
        torch.tensor(column, dtype=torch.float32) for column in zip(*pairs, strict=True)
    )
    return output[:, None], target[:, None]


def both_classes(pairs):
    return len({label for _, label in pairs}) == 2


@given(batches)
@example([(0.5, 0), (0.5, 1)])
@example([(0.5, 0), (0.5, 1), (0.5, 1), (0.25, 0), (0.75, 0)])
def test_roc_auc(pairs):
    assume(both_classes(pairs))
    output, target = columns(pairs)
    expected = sklearn.roc_auc_score(target.flatten(), output.flatten())
    assert float(metrics.roc_auc(output, target)) == pytest.approx(expected, abs=1e-12)


def test_roc_auc_of_a_large_batch_is_exact():
    rng = np.random.default_rng(0)
    output, target = rng.random(50_000), rng.integers(0, 2, 50_000)
    found = metrics.roc_auc(torch.from_numpy(output), torch.from_numpy(target))
    assert float(found) == pytest.approx(sklearn.roc_auc_score(target, output), abs=1e-12)


@given(batches)
def test_roc_auc_of_opposite_scores_is_what_is_missing_to_one(pairs):
    assume(both_classes(pairs))
    output, target = columns(pairs)
    one, other = metrics.roc_auc(output, target), metrics.roc_auc(-output, target)
    assert float(one + other) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_roc_auc_of_one_class_is_undefined(label):
    output = torch.tensor([[0.1], [0.9], [0.9]])
    assert metrics.roc_auc(output, torch.full((3, 1), label)).isnan()


def test_roc_auc_ranks_scores_that_only_float64_tells_apart():
    output = torch.tensor([0.5, 0.5 + 1e-12], dtype=torch.float64)
    assert float(metrics.roc_auc(output, torch.tensor([0.0, 1.0]))) == 1.0


@given(batches)
def test_recall(pairs):
    output, target = columns(pairs)
    expected = sklearn.recall_score(target, output > 0.5, zero_division=np.nan)
    found = float(metrics.recall(output, target))
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


@given(batches)
@example([(0.5, 0), (0.5, 1)])
def test_binary_accuracy(pairs):
    output, target = columns(pairs)
    found = metrics.binary_accuracy(output, target)
    assert found.shape == (len(pairs),)
    assert float(found.mean()) == pytest.approx(sklearn.accuracy_score(target, output > 0.5))


scores = st.lists(
    st.tuples(st.lists(few_levels, min_size=4, max_size=4), st.integers(0, 3)),
    min_size=1,
    max_size=30,
)


@given(scores)
def test_accuracy(pairs):
    output, target = (torch.tensor(column) for column in zip(*pairs, strict=True))
    found = metrics.accuracy(output, target)
    assert found.shape == (len(pairs),)
    expected = sklearn.accuracy_score(target, output.numpy().argmax(axis=1))
    assert float(found.mean()) == pytest.approx(expected)


values = st.floats(-1e3, 1e3)
pairs_of_values = st.lists(st.tuples(values, values), min_size=1, max_size=30)


@given(pairs_of_values)
def test_absolute_error(pairs):
    output, target = (
        torch.tensor(c, dtype=torch.float64)[:, None] for c in zip(*pairs, strict=True)
    )
    expected = sklearn.mean_absolute_error(target, output)
    found = metrics.absolute_error(output, target)
    assert found.shape == (len(pairs),)
    assert float(found.mean()) == pytest.approx(expected)


@given(pairs_of_values)
def test_absolute_percentage_error(pairs):
    output, target = (
        torch.tensor(c, dtype=torch.float64)[:, None] for c in zip(*pairs, strict=True)
    )
    assume(bool((target.abs() > 1e-6).all()))
    expected = sklearn.mean_absolute_percentage_error(target, output)
    found = metrics.absolute_percentage_error(output, target)
    assert float(found.mean()) == pytest.approx(expected)


def test_a_percentage_of_zero_is_large_and_finite():
    found = metrics.absolute_percentage_error(torch.tensor([1.0]), torch.tensor([0.0]))
    assert float(found) == pytest.approx(1e7)
