"""Bugs of the model: layers that do not learn, lack something, or are not those of the document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refimpl.conformance.mutants.planting import Fault, Plant, has_module, in_torch, mutant
from refimpl.contract import Variant
from refimpl.data import philox
from refimpl.training.problem import start_values

# --- what applies to which -----------------------------------------------------------------------


def _having(*kinds: type[nn.Module]) -> Callable[[Variant], bool]:
    """Variants whose module has a layer of one of these kinds."""

    def applies(variant: Variant) -> bool:
        return has_module(variant) and variant.has_layer(*kinds)

    return applies


def _of_kind(module: nn.Module, kind: Any) -> list[Any]:
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def _owners(module: nn.Module) -> list[nn.Module]:
    """Layers that have parameters of their own."""
    return [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]


def _giving(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], bool]:
    """Change what a module returns; ``change`` itself reports whether it had an effect."""

    def planted(module: Any) -> bool:
        forward = module.forward
        module.forward = lambda *args, **kwargs: change(forward(*args, **kwargs))
        return False

    return planted


DROPOUT = nn.modules.dropout._DropoutNd

# --- what is learnt ------------------------------------------------------------------------------


@mutant(has_module)
def first_layer_frozen(fault: Fault) -> Plant:
    """The first layer's parameters do not require gradients."""

    def frozen(module: nn.Module) -> bool:
        own = list(_owners(module)[0].parameters(recurse=False))
        changed = any(p.requires_grad for p in own) and len(_owners(module)) > 1
        for p in own:
            p.requires_grad = p.requires_grad and not changed
        return changed

    return Plant(module=frozen)


@mutant(has_module)
def first_layer_detached(fault: Fault) -> Plant:
    """What the first layer gives is cut off from the graph."""

    def detached(module: nn.Module) -> bool:
        owners = _owners(module)
        if len(owners) < 2:
            return False

        def cut(layer: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):  # a recurrent layer returns its state too
                return tuple(cut(layer, args, part) for part in output)
            return output.detach()

        owners[0].register_forward_hook(cut)
        return True

    return Plant(module=detached)


@mutant(has_module)
def bias_without_effect(fault: Fault) -> Plant:
    """The last bias is there, but nothing is added."""

    def without(module: nn.Module) -> bool:
        with_bias = [m for m in _owners(module) if isinstance(getattr(m, "bias", None), Tensor)]
        if not with_bias or not isinstance(with_bias[-1], nn.Linear):
            return False
        layer: Any = with_bias[-1]
        layer.forward = lambda x: F.linear(x, layer.weight)
        return True

    return Plant(module=without)


@mutant(has_module)
def one_unit_dead(fault: Fault) -> Plant:
    """The first unit of the first layer always gives zero."""

    def blocked(module: nn.Module) -> bool:
        owners = _owners(module)
        if len(owners) < 2 or not isinstance(owners[0], (nn.Linear, nn.modules.conv._ConvNd)):
            return False

        def zeroed(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
            kept = torch.ones(output.shape[1], dtype=output.dtype, device=output.device)
            kept[0] = 0
            return output * kept.reshape(-1, *[1] * (output.dim() - 2))

        owners[0].register_forward_hook(zeroed)
        return True

    return Plant(module=blocked)


# --- activations ---------------------------------------------------------------------------------


def _relu(instead: Callable[[Tensor], Tensor]) -> Plant:
    def replaced(original: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return instead(x)

    return Plant(forward={"relu": replaced, "relu_": replaced})


@mutant()
def activation_removed(fault: Fault) -> Plant:
    """No ReLU stands between the layers."""
    return _relu(lambda x: x * 1)


@mutant()
def activation_leaks(fault: Fault) -> Plant:
    """A leaky ReLU in the place of each ReLU."""
    return _relu(F.leaky_relu)


@mutant()
def activation_is_tanh(fault: Fault) -> Plant:
    """A hyperbolic tangent in the place of each ReLU."""
    return _relu(torch.tanh)


@mutant(has_module)
def activation_added(fault: Fault) -> Plant:
    """The output goes through a ReLU that the document does not have."""

    def clipped(output: Tensor) -> Tensor:
        if bool((output < 0).any()):
            fault.hit()
        return output.clamp(min=0)

    return Plant(module=_giving(clipped))


# --- start ---------------------------------------------------------------------------------------


def _start(change: Callable[[str, Any], Any]) -> Plant:
    """Change each start value."""
    return Plant(
        start=lambda values: {name: change(name, np.asarray(v)) for name, v in values.items()}
    )


@mutant(in_torch)
def start_at_zero(fault: Fault) -> Plant:
    """Every parameter starts at zero."""
    return _start(lambda name, value: np.zeros_like(value))


@mutant(in_torch)
def start_ten_times_as_wide(fault: Fault) -> Plant:
    """The start is drawn from a distribution ten times as wide."""
    return _start(lambda name, value: 10 * value)


@mutant(in_torch, weakest=1e-15, strongest=1.0)
def start_moved(fault: Fault) -> Plant:
    """Every start value is off by this share of it, up or down."""

    def moved(name: str, value: Any) -> Any:
        up_or_down = philox("start moved", name).choice((-1.0, 1.0), value.shape)
        return value * (1 + fault.strength * up_or_down)

    return _start(moved)


@mutant(in_torch)
def start_without_a_seed(fault: Fault) -> Plant:
    """Every run starts alike, whatever its seed."""

    def alike(values: Any) -> Any:
        assert fault.variant is not None
        return start_values(fault.variant, 0)

    return Plant(start=alike)


# --- modes ---------------------------------------------------------------------------------------


def _mode(stays: str) -> Callable[[nn.Module], bool]:
    def planted(module: Any) -> bool:
        if stays == "eval":
            module.eval()
            module.train = lambda mode=True: module
        else:
            module.eval = lambda: module
        return True

    return planted


@mutant(_having(DROPOUT))
def never_in_evaluation_mode(fault: Fault) -> Plant:
    """``eval`` is forgotten: dropout is on while the model is evaluated."""
    return Plant(module=_mode("train"))


@mutant(_having(DROPOUT))
def never_in_training_mode(fault: Fault) -> Plant:
    """``train`` is forgotten: dropout is off while the model is trained."""
    return Plant(module=_mode("eval"))


@mutant(_having(DROPOUT))
def dropout_too_strong(fault: Fault) -> Plant:
    """Dropout leaves out half of the units where the document has fewer."""

    def half(module: nn.Module) -> bool:
        for layer in _of_kind(module, DROPOUT):
            layer.p = 0.5
        return True

    return Plant(module=half)


# --- layers of one kind --------------------------------------------------------------------------


@mutant(_having(nn.Embedding))
def padding_index_dropped(fault: Fault) -> Plant:
    """The embedding learns a vector for padding."""

    def dropped(module: nn.Module) -> bool:
        padded = [e for e in _of_kind(module, nn.Embedding) if e.padding_idx is not None]
        for embedding in padded:
            embedding.padding_idx = None
        return bool(padded)

    return Plant(module=dropped)


@mutant(_having(nn.RNNBase))
def batch_first_forgotten(fault: Fault) -> Plant:
    """The recurrent layer takes the batch for time, and time for the batch."""

    def turned(module: nn.Module) -> bool:
        for layer in _of_kind(module, nn.RNNBase):
            layer.batch_first = not layer.batch_first
        return True

    return Plant(module=turned)


@mutant(_having(nn.RNNBase))
def hidden_state_kept(fault: Fault) -> Plant:
    """The state of a recurrent layer is carried over from batch to batch."""

    def kept(module: nn.Module) -> bool:
        for layer in _of_kind(module, nn.RNNBase):
            _carrying(layer, fault)
        return False

    return Plant(module=kept)


def _carrying(layer: Any, fault: Fault) -> None:
    forward = layer.forward
    carried: dict[int, Any] = {}

    def carry(x: Tensor, state: Any = None) -> Any:
        rows = x.shape[0] if layer.batch_first else x.shape[1]
        if rows in carried:
            fault.hit()
        output, last = forward(x, carried.get(rows, state))
        parts = last if isinstance(last, tuple) else (last,)
        detached = tuple(part.detach() for part in parts)
        carried[rows] = detached if isinstance(last, tuple) else detached[0]
        return output, last

    layer.forward = carry


@mutant(_having(nn.modules.conv._ConvNd))
def convolution_padding_wrong(fault: Fault) -> Plant:
    """The first convolution has one more row of padding on each side."""

    def padded(module: nn.Module) -> bool:
        layer = _of_kind(module, nn.modules.conv._ConvNd)[0]
        layer.padding = tuple(n + 1 for n in layer.padding)
        layer._reversed_padding_repeated_twice = [
            n for n in reversed(layer.padding) for _ in range(2)
        ]
        return True

    return Plant(module=padded)


@mutant(_having(nn.MaxPool1d, nn.MaxPool2d))
def averages_for_maxima(fault: Fault) -> Plant:
    """Pooling takes averages where the document takes maxima."""

    def averaged(pool: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def replaced(original: Any, x: Tensor, size: Any, stride: Any = None, **k: Any) -> Tensor:
            return pool(x, size, stride)

        return replaced

    return Plant(
        forward={
            "max_pool1d": averaged(F.avg_pool1d),
            "max_pool2d": averaged(F.avg_pool2d),
        }
    )


@mutant(has_module)
def computed_in_bfloat16(fault: Fault) -> Plant:
    """Matrix products lose all but eight bits of their left factor."""

    def coarse(original: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        coarser = x.bfloat16().to(x.dtype)
        return NotImplemented if torch.equal(coarser, x) else original(coarser, *args, **kwargs)

    return Plant(
        forward=dict.fromkeys(("linear", "conv1d", "conv2d", "matmul", "__matmul__"), coarse)
    )


@mutant(has_module)
def computed_in_float32(fault: Fault) -> Plant:
    """Asked for float64, the model gives what it had in float32."""

    def narrow(output: Tensor) -> Tensor:
        rounded = output.detach().float().to(output)
        if not torch.equal(rounded, output):
            fault.hit()
        return output + (rounded - output).detach()

    return Plant(module=_giving(narrow))


@mutant(has_module)
def output_without_its_axis(fault: Fault) -> Plant:
    """The model gives (N,) where the document's gives (N, 1)."""

    def squeezed(output: Tensor) -> Tensor:
        if output.dim() != 2 or output.shape[1] != 1:
            return output
        fault.hit()
        return output.squeeze(1)

    return Plant(module=_giving(squeezed))
