"""How far is too far: error over a budget that rounding itself sets."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refimpl.training.comparison import (
    FACTOR,
    FLOOR_ULPS,
    closeness,
    distance,
    oracle_scale,
    shown_apart,
)

EPS32, EPS64 = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, max_side=5)

numbers = st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6) | st.just(0.0)
anything = st.floats(allow_nan=True, allow_infinity=True)
roundings = st.floats(0, 1.0)


def tensors(elements=numbers):
    return arrays.arrays("float64", SHAPES, elements=elements).map(torch.from_numpy)


@pytest.mark.parametrize(
    ("dtype", "hidden"),
    [
        (torch.float32, 1e-39), (torch.bfloat16, 1e-39), (torch.float64, 1e-309),
        (torch.float16, 5e-8),
    ],
)  # fmt: skip
def test_a_number_too_small_for_the_precision_may_be_zero(dtype, hidden):
    zero = torch.zeros(1, dtype=torch.float64)
    for times, within in ((1, True), (100, False)):
        close = closeness(zero, torch.tensor([times * hidden], dtype=torch.float64), 0.0, dtype)
        assert (close.error_ratio <= 1) is within


@given(tensors(anything), roundings)
def test_a_tensor_is_at_no_distance_from_itself(tensor, rounding):
    close = closeness(tensor.clone(), tensor, rounding, torch.float32)
    assert close.error == 0
    assert close.error_ratio == 0
    assert distance(tensor.clone(), tensor) == 0


@given(tensors(), st.data())
def test_one_perturbed_element_is_found_wherever_it_stands(oracle, data):
    index = data.draw(st.integers(0, oracle.numel() - 1))
    scale = oracle_scale(oracle)
    candidate = oracle.clone()
    candidate.view(-1)[index] += 1e-3 * max(scale, 1.0)
    close = closeness(candidate, oracle, 0.0, torch.float32)
    assert close.error_ratio > 1
    assert candidate[close.index] == close.found != close.expected == oracle[close.index]
    assert close.index == tuple(torch.unravel_index(torch.tensor(index), oracle.shape))


def test_one_perturbed_element_among_very_many_is_found():
    oracle = torch.linspace(-1, 1, 1_000_000, dtype=torch.float64).reshape(1000, 1000)
    candidate = oracle.clone()
    candidate[321, 123] *= 1 + 1e-4
    close = closeness(candidate, oracle, 0.0, torch.float32)
    assert close.index == (321, 123)
    assert close.error_ratio > 1


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@given(oracle=tensors(), data=st.data())
def test_a_number_that_is_not_finite_is_infinitely_far_from_one_that_is(odd, oracle, data):
    index = data.draw(st.integers(0, oracle.numel() - 1))
    candidate = oracle.clone()
    candidate.view(-1)[index] = odd
    for one, other in ((candidate, oracle), (oracle, candidate)):
        close = closeness(one, other, 1e-3, torch.float32)
        assert distance(one, other) == math.inf
        assert close.error_ratio == math.inf
        assert close.index == tuple(torch.unravel_index(torch.tensor(index), oracle.shape))


def test_the_infinities_and_nan_are_not_each_other():
    odd = torch.tensor([math.nan, math.inf, -math.inf], dtype=torch.float64)
    for other in (odd.roll(1), odd.roll(2)):
        assert torch.isinf(
            torch.tensor([distance(a, b) for a, b in zip(odd, other, strict=True)])
        ).all()


def test_an_infinite_element_of_the_oracle_does_not_excuse_the_others():
    oracle = torch.tensor([math.inf, 1.0], dtype=torch.float64)
    wrong = torch.tensor([math.inf, 2.0], dtype=torch.float64)
    rounded = torch.tensor([math.inf, 1.0 + EPS32], dtype=torch.float64)
    assert closeness(oracle.clone(), oracle, 0.0, torch.float32).error_ratio == 0
    assert 0 < closeness(rounded, oracle, 0.0, torch.float32).error_ratio <= 1
    assert closeness(wrong, oracle, 0.0, torch.float32).error_ratio > 1


def test_a_reference_that_overflows_excuses_nothing():
    oracle = torch.tensor([1.0, 2.0], dtype=torch.float64)
    rounding = distance(torch.tensor([math.inf, 2.0], dtype=torch.float64), oracle)
    assert closeness(oracle + 1e-9, oracle, rounding, torch.float32).error_ratio > 1


@given(tensors(), tensors(), roundings, st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**20]))
def test_the_ratio_does_not_depend_on_the_unit_of_measurement(oracle, noise, rounding, unit):
    candidate = oracle + 1e-6 * noise.mean()
    before = closeness(candidate, oracle, rounding, torch.float32)
    after = closeness(candidate * unit, oracle * unit, rounding * unit, torch.float32)
    assert after.error_ratio == pytest.approx(before.error_ratio, rel=1e-12)
    assert after.index == before.index


@given(tensors(), roundings, roundings)
def test_more_rounding_in_the_reference_never_means_a_smaller_budget(oracle, one, other):
    low, high = sorted((one, other))
    smaller = closeness(oracle, oracle, low, torch.float32).budget
    larger = closeness(oracle, oracle, high, torch.float32).budget
    assert smaller <= larger


@given(tensors(), roundings)
def test_the_budget_is_the_references_rounding_and_a_floor(oracle, rounding):
    budget = closeness(oracle, oracle, rounding, torch.float32).budget
    floor = FLOOR_ULPS * EPS32 * oracle_scale(oracle)
    assert budget == pytest.approx(FACTOR * rounding + floor, rel=1e-12)


@given(tensors(), roundings)
def test_float64_has_twice_the_budget_in_units_of_its_own_rounding_since_its_oracle_rounds_too(
    oracle, rounding
):
    single, double = (closeness(oracle, oracle, rounding, d).budget for d in DTYPES)
    assert double / EPS64 == pytest.approx(2 * single / EPS32, rel=1e-12)


DTYPES = (torch.float32, torch.float64)


@given(tensors())
def test_rounding_to_float32_is_within_the_budget_and_to_bfloat16_is_not(oracle):
    rounded = oracle.float().double()
    rounding = distance(rounded, oracle)
    assert closeness(rounded, oracle, rounding, torch.float32).error_ratio <= 1
    coarse = oracle.bfloat16().double()
    if distance(coarse, oracle) > 1e-3 * oracle_scale(oracle) > 0:
        assert closeness(coarse, oracle, rounding, torch.float32).error_ratio > 1


@given(st.floats(1e-6, 1.0), st.sampled_from(DTYPES))
def test_where_the_oracle_is_zero_only_the_reference_sets_the_budget(error, dtype):
    zero = torch.zeros(3, dtype=torch.float64)
    off = torch.tensor([0.0, error, 0.0], dtype=torch.float64)
    assert closeness(off, zero, 0.0, dtype).error_ratio > 1
    assert closeness(off, zero, error, torch.float32).error_ratio == pytest.approx(1 / FACTOR)


def test_a_tensor_without_elements_agrees():
    empty = torch.zeros(0, 3, dtype=torch.float64)
    close = closeness(empty, empty, 0.0, torch.float32)
    assert (close.error, close.error_ratio, close.index) == (0.0, 0.0, ())
    assert distance(empty, empty) == 0.0


def test_two_values_are_shown_with_as_many_digits_as_it_takes_to_tell_them_apart():
    assert shown_apart(0.5, 0.25) == "found 0.5, expected 0.25"
    close = shown_apart(0.308956612, 0.3089566121)
    assert close == "found 0.308956612, expected 0.3089566121"
    assert shown_apart(1.0, 1.0) == "found 1, expected 1"
    assert shown_apart(float("nan"), 1.0) == "found nan, expected 1"
