"""One name and one shape for each parameter of a ladder, whatever its variants call it."""

import numpy as np
import pytest
import torch
from fakes.sound import EXAMPLE, like
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refimpl import Variant
from refimpl.errors import ContractError
from refimpl.training.ladder import (
    first_of_ladder,
    from_ladder,
    same_but_for_unit_axes,
    shared_name,
    to_ladder,
)

matrices = arrays.arrays("float64", arrays.array_shapes(min_dims=2, max_dims=2, max_side=5))


def variant_of(values, **names):
    """A variant whose start has parameters of these shapes."""
    return Variant("own", start=lambda rng: values, names=names)


@pytest.mark.parametrize(
    ("own", "shared"),
    [("a", ("alpha", False)), ("b", ("beta", True)), ("c", ("c", False))],
)
def test_a_name_is_mapped_or_its_own(own, shared):
    assert shared_name(variant_of({}, a="alpha", b="beta.T"), own) == shared


@given(matrices, st.booleans())
def test_a_start_comes_back_from_the_ladder_as_it_went(matrix, transposed):
    variant = variant_of({"w": matrix}, w="weights.T" if transposed else "weights")
    shared = to_ladder(variant, {"w": matrix})
    assert shared["weights"].shape == (matrix.T if transposed else matrix).shape
    back = from_ladder(variant, shared)
    assert back.keys() == {"w"}
    assert back["w"].shape == matrix.shape
    assert np.array_equal(back["w"], matrix, equal_nan=True)


@given(matrices)
def test_tensors_and_start_values_are_turned_alike(matrix):
    variant = variant_of({}, w="weights.T")
    tensors = to_ladder(variant, {"w": torch.from_numpy(matrix)})
    values = to_ladder(variant, {"w": matrix})
    assert np.array_equal(tensors["weights"].numpy(), values["weights"], equal_nan=True)


@pytest.mark.parametrize(("shape", "other"), [((1, 4), (4,)), ((1, 1), (1,)), ((2, 1), (2, 1, 1))])
def test_unit_axes_are_added_and_dropped(shape, other):
    values = np.arange(float(np.prod(shape)))
    own = from_ladder(variant_of({"b": np.zeros(other)}), {"b": values.reshape(shape)})
    assert own["b"].shape == other
    assert np.array_equal(own["b"].ravel(), values)


@pytest.mark.parametrize(("shape", "other"), [((2, 3), (3, 2)), ((4,), (2, 2)), ((3,), (4,))])
def test_other_shapes_are_refused_with_what_to_do(shape, other):
    variant = variant_of({"w": np.zeros(other)}, w="weights")
    assert not same_but_for_unit_axes(shape, other)
    with pytest.raises(ContractError, match="'own': parameter 'w' has shape") as raised:
        from_ladder(variant, {"weights": np.zeros(shape)})
    assert str(shape) in str(raised.value)
    assert "to 'weights.T' where it is stored transposed" in str(raised.value)


def test_a_parameter_that_its_ladder_does_not_have_is_refused_by_both_names():
    variant = variant_of({"w": np.zeros(2)}, w="weight")
    with pytest.raises(ContractError, match=r"'w' stands for 'weight', which.*\(it has weights\)"):
        from_ladder(variant, {"weights": np.zeros(2)})


def test_the_first_of_a_ladder_is_the_first_variant_that_names_it():
    assert first_of_ladder(EXAMPLE, EXAMPLE.variant("module")).name == "scratch"
    assert first_of_ladder(EXAMPLE, EXAMPLE.variant("scratch")).name == "scratch"


def test_the_fakes_module_starts_from_the_reference_start():
    reference, module = like("scratch"), like("module")
    values = {"weights": np.array([[3.0], [4.0]]), "bias": np.array([5.0])}
    own = from_ladder(module, to_ladder(reference, values))
    assert own["lin.weight"].tolist() == [[3.0, 4.0]]
    assert own["lin.bias"].tolist() == [5.0]
