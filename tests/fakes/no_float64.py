"""Makes torch know a device ``apple`` that is the CPU and refuses float64, as MPS does."""

import torch

NAME = "apple"
SAYS = "the MPS framework doesn't support float64. Please use float32 instead."


class BackEnd:
    """What ``torch.apple`` offers."""

    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    manual_seed_all = staticmethod(lambda seed: None)
    _is_in_bad_fork = staticmethod(lambda: False)


torch.utils.rename_privateuse1_backend(NAME)
torch._register_device_module(NAME, BackEnd)


def _named(value):
    return isinstance(value, (str, torch.device)) and str(value).partition(":")[0] == NAME


def _on_the_cpu(args, kwargs, dtype):
    """The arguments with the CPU for the device; float64 is refused there."""
    values = (*args, *kwargs.values())
    if not any(map(_named, values)):
        return args, kwargs
    asked = next((value for value in values if isinstance(value, torch.dtype)), dtype)
    if asked is torch.float64:
        raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype as {SAYS}")
    args = tuple("cpu" if _named(value) else value for value in args)
    return args, {k: "cpu" if _named(value) else value for k, value in kwargs.items()}


tensor_to, module_to, made = torch.Tensor.to, torch.nn.Module.to, torch.tensor


def _tensor_to(self, *args, **kwargs):
    args, kwargs = _on_the_cpu(args, kwargs, self.dtype)
    return tensor_to(self, *args, **kwargs)


def _module_to(self, *args, **kwargs):
    args, kwargs = _on_the_cpu(args, kwargs, None)
    return module_to(self, *args, **kwargs)


def _tensor(data, **kwargs):
    _, kwargs = _on_the_cpu((), kwargs, None)
    return made(data, **kwargs)


torch.Tensor.to, torch.nn.Module.to, torch.tensor = _tensor_to, _module_to, _tensor
