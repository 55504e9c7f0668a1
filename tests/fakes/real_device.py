"""Makes torch know a real ``PrivateUse1`` device, ``pear``, whose kernels are written in Python.

A tensor there has no memory that torch can reach: its storage holds a tensor of the CPU. One
fallback takes every kernel and computes it on the CPU. The device has no float64, whichever way a
tensor would come to it, and no LSTM.
"""

from functools import partial

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pear"
SAYS = f"{NAME} has no float64"
KEY = "PrivateUse1"
COMPOSED = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
"""Kernels of these keys come before a fallback, and would take a tensor's own memory."""

OF_ITS_OWN = ("aten::_copy_from", "aten::copy_", "aten::_to_copy", "aten::to")
FACTOR = 1.0
"""What products of matrices with a bias are multiplied by: another one is a fault."""

aten = torch.ops.aten


class BackEnd:
    """What ``torch.pear`` offers."""

    is_available = staticmethod(lambda: True)
    is_initialized = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(list)
    _is_in_bad_fork = staticmethod(lambda: False)


class Held(torch.Tensor):
    """So that ``nn.Parameter`` takes a detached copy for what it is."""

    __torch_function__ = torch._C._disabled_torch_function_impl


def is_there(value):
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def inside(value):
    """What stands for an argument on the CPU."""
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value.untyped_storage().value if is_there(value) else value


def held(value):
    """What stands for a result on the device."""
    if not isinstance(value, torch.Tensor) or is_there(value):
        return value
    if value.dtype == torch.float64:
        raise TypeError(SAYS)
    with torch.inference_mode(False):  # a view of a parameter must be able to share its version
        made = torch._C._acc.create_empty_tensor(value.shape, value.dtype)
    made.__class__ = Held
    made.untyped_storage().value = value  # which a shallow copy shares
    return made


def fallback(func, *args, **kwargs):
    own = {id(inside(a)): a for a in tree_leaves((args, kwargs)) if is_there(a)}
    args, kwargs = tree_map(inside, (args, kwargs))
    if func is aten.view.default and not args[0].is_contiguous():
        func = aten.reshape.default  # torch sees no strides here
    made = func(*args, **kwargs)
    if func is aten.addmm.default and FACTOR != 1:
        made = made * FACTOR
    return tree_map(lambda value: own[id(value)] if id(value) in own else held(value), made)


def copy_from(source, into, non_blocking=False):
    inside(into).copy_(inside(source))
    return into


def composed():
    """The kernels that must be given to the fallback one by one."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in torch._C._dispatch_get_all_op_names():
        base, _, kind = name.partition(".")
        if not base.startswith("aten::") or base in OF_ITS_OWN or has(name, KEY):
            continue
        func = getattr(getattr(aten, base.removeprefix("aten::"), None), kind or "default", None)
        if func is not None and any(has(name, key) for key in COMPOSED):
            yield name, func


_setup_privateuseone_for_python_backend(NAME, BackEnd())
EVERY, EACH = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
EVERY.fallback(fallback, KEY)
EACH.impl("_copy_from", copy_from, KEY)
EACH.impl("_local_scalar_dense", lambda x: inside(x).item(), KEY)
for name, func in composed():
    if name != "aten::_local_scalar_dense":
        EACH.impl(name, partial(fallback, func), KEY)
