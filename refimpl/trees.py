"""Trees of arrays or tensors: tuples and dicts of them, as examples with several inputs have.

In data, a list is no tree but one entry for each row, for rows of different lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def is_ragged(value: object) -> bool:
    """Whether it is a list: one entry for each row."""
    return isinstance(value, list)


def mapped(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """``function`` of every leaf; of trees of the same form, of the leaves that correspond."""
    if isinstance(tree, tuple):
        parts = [mapped(function, *parts) for parts in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    if isinstance(tree, dict):
        return {
            key: mapped(function, value, *(other[key] for other in others))
            for key, value in tree.items()
        }
    return function(tree, *others)


def leaves(tree: Any) -> list[Any]:
    """Every leaf, from the first to the last."""
    return [leaf for _, leaf in named_leaves(tree)]


def named_leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with the path to it, such as ``boxes.0``; a leaf by itself has the empty path."""
    if isinstance(tree, (tuple, dict)):
        parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in parts:
            yield from named_leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, tree


def rows_of(tree: Any) -> int:
    """How many rows a batch has: those of its first leaf; 1 if that has none."""
    for leaf in leaves(tree):
        return 1 if not hasattr(leaf, "__len__") or getattr(leaf, "ndim", 1) == 0 else len(leaf)
    return 0


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """The output of a module: a tuple's parts are its arguments, a dict's are named ones."""
    if hasattr(model, "named_modules"):
        if isinstance(inputs, tuple):
            return model(*inputs)
        if isinstance(inputs, dict):
            return model(**inputs)
    return model(inputs)


def dense(tensor: Tensor) -> Tensor:
    """The tensor itself, or what a sparse one stands for."""
    return tensor.to_dense() if tensor.is_sparse else tensor
