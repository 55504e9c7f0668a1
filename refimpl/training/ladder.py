"""One name and one shape for each parameter of a ladder, whatever name a variant uses.

A variant's ``names`` map its own parameter names to those of the ladder's first variant;
``"weights.T"`` means that the variant stores the transpose. Shapes that differ only in unit axes,
such as (1, 4) and (4,), are reshaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray
from torch import Tensor

from refimpl.contract import Example, Variant
from refimpl.errors import ContractError
from refimpl.training.problem import start_values

TRANSPOSED = ".T"

Values = TypeVar("Values", Tensor, NDArray[Any])


def shared_name(variant: Variant, own: str) -> tuple[str, bool]:
    """The ladder's name of a parameter, and whether the variant stores it transposed."""
    name = variant.names.get(own, own)
    if name.endswith(TRANSPOSED):
        return name.removesuffix(TRANSPOSED), True
    return name, False


def same_but_for_unit_axes(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Whether one can be reshaped into the other without moving any element."""
    return [n for n in shape if n != 1] == [n for n in other if n != 1]


def to_ladder(variant: Variant, values: Mapping[str, Values]) -> dict[str, Values]:
    """The variant's tensors or start values under the ladder's names, in its orientation."""
    shared = {}
    for own, value in values.items():
        name, transposed = shared_name(variant, own)
        shared[name] = value.T if transposed else value
    return shared


def from_ladder(variant: Variant, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Start values with the variant's own names and shapes, from those of the ladder.

    Raises :class:`ContractError` if a value is missing or has another shape.
    """
    own_values = {}
    for own, example in start_values(variant, 0).items():
        name, transposed = shared_name(variant, own)
        if name not in values:
            raise ContractError(
                f"variant {variant.name!r}: parameter {own!r} stands for {name!r}, which its "
                f"ladder does not have (it has {', '.join(sorted(values))})"
            )
        value = values[name].T if transposed else values[name]
        if not same_but_for_unit_axes(value.shape, example.shape):
            raise ContractError(
                f"variant {variant.name!r}: parameter {own!r} has shape {example.shape} but "
                f"{name!r} has {value.shape}; map it with names= (to {name + TRANSPOSED!r} where "
                "it is stored transposed)"
            )
        own_values[own] = value.reshape(example.shape)
    return own_values


def first_of_ladder(example: Example, variant: Variant) -> Variant:
    """The variant with which the others of its ladder are compared."""
    return next(v for v in example.variants if v.ladder == variant.ladder)
