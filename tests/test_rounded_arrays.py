"""Rounding in NumPy is drawn as it is in torch, so that a run of arrays has its own budget."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refimpl.composition import CPU
from refimpl.loading import registry
from refimpl.parity.against_oracle import compare_execution
from refimpl.parity.rounded_arrays import RoundedArrays
from refimpl.parity.rounding import first_drawn
from refimpl.training.problem import pose
from refimpl.training.trajectories import first_steps

HALF = 2.0**-24

SEEDS = st.integers(0, 2**16)


def arrays(number=0, *shapes):
    """Arrays as a variant takes them from its tensors, and the plain ones."""
    generator = torch.Generator().manual_seed(number)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    with RoundedArrays(number, HALF):
        return [tensor.numpy() for tensor in tensors], [tensor.numpy() for tensor in tensors]


def plain(value):
    return np.asarray(value)


EXACT = [np.negative, np.abs, lambda a: np.maximum(a, 0.5), lambda a: a[1:3], lambda a: a.T]


@pytest.mark.parametrize("compute", EXACT)
def test_what_moves_selects_or_compares_is_exact(compute):
    (own,), (same,) = arrays(0, (6, 4))
    assert np.array_equal(plain(compute(own)), plain(compute(same)))


ROUNDED = [
    np.exp,
    lambda a: a / 3,
    lambda a: a - 0.5,
    lambda a: a @ a.T,
    lambda a: a.dot(a.T),
    lambda a: np.einsum("ij,kj->ik", a, a),
    lambda a: a.sum(axis=0),
    lambda a: a.mean(axis=1),
    lambda a: np.add(a, a, out=np.empty_like(a)),
]


@pytest.mark.parametrize("compute", ROUNDED)
@given(number=SEEDS)
def test_each_result_moves_by_what_rounding_its_terms_may_do(compute, number):
    (own,), _ = arrays(number, (6, 50))
    exact = plain(compute(plain(own).copy()))
    moved = plain(compute(own))
    size = np.abs(plain(compute(np.abs(plain(own))))) + np.abs(exact) + 1.0
    assert not np.array_equal(moved, exact)
    assert np.all(np.abs(moved - exact) <= 40 * HALF * size)


def test_what_is_made_of_a_moved_array_moves_again_and_goes_back_to_torch():
    (own,), _ = arrays(0, (6, 4))
    once = own * 2.0
    assert type(once) is type(own)
    assert not np.array_equal(plain(once * 2.0), 2 * plain(once))
    assert torch.from_numpy(once).dtype == torch.float64


def test_functions_of_two_results_and_arrays_of_no_run_are_left_alone():
    (own,), (same,) = arrays(0, (6, 4))
    whole, rest = np.divmod(own, 0.5)
    assert np.array_equal(plain(whole) * 0.5 + plain(rest), plain(same))
    stray = np.ones(3).view(type(own))
    assert np.array_equal(plain(stray + 1.0), [2.0, 2.0, 2.0])


def test_integers_masks_and_float32_are_left_alone():
    with RoundedArrays(0, HALF):
        assert type(torch.arange(3).numpy()) is np.ndarray
        assert type(torch.ones(3).numpy()) is np.ndarray


@pytest.mark.parametrize("reseed", [0, 400, 500])
def test_a_run_in_numpy_is_within_what_rounding_explains(reseed):
    """These seeds were false alarms while only the start of such a run was moved."""
    example = registry.load(only=["mnist-logistic"]).example("mnist-logistic").reseeded(reseed)
    compared = compare_execution(example.variant("numpy"), CPU, "stand-in", 10)
    assert compared.agrees, str(compared)
    assert compared.worst_ratio < 0.6


def test_draws_in_numpy_are_about_as_far_off_as_those_of_the_same_run_in_torch():
    example = registry.load(only=["mnist-logistic"]).example("mnist-logistic")
    far = {}
    for name in ("numpy", "scratch"):
        variant = example.variant(name)
        problem = pose(variant, "stand-in", dropout=False, precision="float64")
        (last,) = first_steps(variant, problem, 5)[-1:]
        exact = {seen.key: seen.value for seen in last}[("parameter", "weights")]
        drawn = [first_drawn(variant, problem, k, 5)[-1] for k in range(4)]
        values = [{seen.key: seen.value for seen in d}[("parameter", "weights")] for d in drawn]
        far[name] = max(float((value - exact).abs().max()) for value in values)
    assert 1 / 5 < far["numpy"] / far["scratch"] < 5, far
