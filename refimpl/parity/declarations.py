"""What a kernel declares besides its numbers: the dtype of its results, which of them are views of
what it is given, and that it does not write to the rest.

The declaration is the operator's schema, and for dtypes what torch says of tensors without numbers
(``device="meta"``); neither runs the kernel. Numbers that leave torch are compared with NumPy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from refimpl.parity.kernel_bounds import as_tuple, dtype_name, tensors_of, written


def broken(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> str:
    """What a call did against its declaration, as the end of a sentence; empty if nothing."""
    if func._schema.name == "aten::_local_scalar_dense":
        return _another_number(args[0], out)
    if written(func):
        return ""
    return _no_view(func, args, kwargs, out) or _another_dtype(func, args, kwargs, out)


SCRATCH = frozenset(["workspace", "reserve"])
"""What arguments are called whose bytes a kernel may use as it likes."""


def only_read(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments of a call that only reads, without scratch memory; none if it may write.

    Normalisations write running means and variances that older schemas do not mark.
    """
    if written(func) or "batch_norm" in func._schema.name:
        return []
    named = zip((each.name for each in func._schema.arguments), args, strict=False)
    return [value for name, value in (*named, *kwargs.items()) if name not in SCRATCH]


def _another_number(given: Tensor, out: object) -> str:
    if given.device.type != "cpu" or given.dtype in (torch.bfloat16, torch.float16):
        return ""
    (expected,) = given.detach().reshape(1).numpy().tolist()
    same = out == expected or (out != out and expected != expected)
    return "" if same else f"gives {out!r} for the {dtype_name(given.dtype)} number {expected!r}"


@cache
def _is_composed(func: Any) -> bool:
    """Whether torch makes it of other calls, as ``reshape``, which then may or may not copy."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _no_view(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> str:
    declared = zip(as_tuple(out), func._schema.returns, strict=False)
    views = [made for made, each in declared if each.alias_info is not None]
    if not views or _is_composed(func):
        return ""
    memory = {_memory(each) for each in tensors_of((args, kwargs))}
    copies = [each for each in tensors_of(views) if each.numel() and _memory(each) not in memory]
    return "gives a copy where it declares a view of what it is given" if copies else ""


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _another_dtype(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> str:
    try:
        given, named = tree_map(_without_numbers, (list(args), dict(kwargs)))
        if "device" in named:
            named["device"] = torch.device("meta")
        declared = tensors_of(func(*given, **named))
    except Exception:  # it depends on numbers, or torch cannot say
        return ""
    for made, each in zip(tensors_of(out), declared, strict=False):
        if made.dtype != each.dtype:
            return f"gives {dtype_name(made.dtype)} where it declares {dtype_name(each.dtype)}"
    return ""


def _without_numbers(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="meta", requires_grad=False)
    return torch.device("meta") if isinstance(value, torch.device) else value
