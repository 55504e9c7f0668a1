"""Start values from NumPy alone, so that one seed means the same start everywhere.

Torch's default for each kind of layer is re-implemented with a NumPy generator;
``tests/test_starts.py`` compares each with what torch itself draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refimpl.errors import ContractError

if TYPE_CHECKING:
    from torch import nn

    from refimpl.contract import Start

Values = dict[str, NDArray[Any]]


def torch_default(build: Callable[[], nn.Module]) -> Start:
    """A start that draws every parameter of ``build()`` as torch's constructors do.

    The first draw raises :class:`ContractError` if a kind of layer is not known here.
    """

    def start(rng: np.random.Generator) -> Values:
        return default_values(build(), rng)

    return start


def default_values(module: nn.Module, rng: np.random.Generator) -> Values:
    """Values for every parameter of ``module``, by name, in float64."""
    values: Values = {}
    shared = dict(module.named_parameters())  # a tied weight has one name
    for prefix, layer in module.named_modules():
        own = dict(layer.named_parameters(recurse=False))
        if not own:
            continue
        draw = next((d for kind, d in _draws().items() if isinstance(layer, kind)), None)
        if draw is None:
            raise ContractError(
                f"no default start is known for the parameters {', '.join(own)} of "
                f"{prefix or 'the module'} ({type(layer).__name__}); give the variant a start="
            )
        drawn = draw(layer, rng)
        for name in own:
            values[f"{prefix}.{name}" if prefix else name] = drawn[name]
    for prefix, layer in module.named_modules():
        redraw = next((d for kind, d in _redraws().items() if isinstance(layer, kind)), None)
        if redraw is not None:
            for name, value in redraw(layer, rng).items():
                values[f"{prefix}.{name}" if prefix else name] = value
    return {name: value for name, value in values.items() if name in shared}


def uniform(
    rng: np.random.Generator, bound: float, shape: tuple[int, ...] | list[int]
) -> NDArray[Any]:
    """Draws from U(−bound, bound)."""
    return rng.uniform(-bound, bound, tuple(shape))


def _affine(layer: Any, rng: np.random.Generator) -> Values:
    """Linear, convolution: kaiming_uniform(a=√5), that is U(±1/√fan_in), for weight and bias."""
    fan_in = int(np.prod(layer.weight.shape[1:]))
    bound = 1 / np.sqrt(fan_in)
    values = {"weight": uniform(rng, bound, layer.weight.shape)}
    if layer.bias is not None:
        values["bias"] = uniform(rng, bound, layer.bias.shape)
    return values


def _embedding(layer: Any, rng: np.random.Generator) -> Values:
    """Embedding: N(0, 1), and a zero row for the padding index."""
    weight = rng.standard_normal(tuple(layer.weight.shape))
    if layer.padding_idx is not None:
        weight[layer.padding_idx] = 0
    return {"weight": weight}


def _recurrent(layer: Any, rng: np.random.Generator) -> Values:
    """RNN, LSTM, GRU: every tensor U(±1/√hidden)."""
    bound = 1 / np.sqrt(layer.hidden_size)
    return {
        name: uniform(rng, bound, parameter.shape)
        for name, parameter in layer.named_parameters(recurse=False)
    }


def _normalisation(layer: Any, rng: np.random.Generator) -> Values:
    """Batch, layer and group normalisation: scale one, shift zero."""
    return {
        name: np.full(tuple(parameter.shape), 1.0 if name == "weight" else 0.0)
        for name, parameter in layer.named_parameters(recurse=False)
    }


def _xavier(shape: Any, rng: np.random.Generator) -> NDArray[Any]:
    """xavier_uniform: U(±√(6 / (fan_in + fan_out))), of a weight (out, in)."""
    return uniform(rng, float(np.sqrt(6 / (shape[0] + shape[1]))), tuple(shape))


def _attention(layer: Any, rng: np.random.Generator) -> Values:
    """MultiheadAttention: projections xavier_uniform, their biases zero, bias_k/v xavier_normal."""
    values: Values = {}
    for name, parameter in layer.named_parameters(recurse=False):
        shape = tuple(parameter.shape)
        if name.endswith("weight"):
            values[name] = _xavier(shape, rng)
        elif name in ("bias_k", "bias_v"):  # (1, 1, E): fan_in and fan_out are both E
            values[name] = rng.normal(0, np.sqrt(2 / (2 * shape[2])), shape)
        else:
            values[name] = np.zeros(shape)
    return values


def _no_output_bias(layer: Any, rng: np.random.Generator) -> Values:
    """After its output projection is drawn as a linear layer, attention sets its bias to zero."""
    bias = layer.out_proj.bias
    return {} if bias is None else {"out_proj.bias": np.zeros(tuple(bias.shape))}


def _transformer(layer: Any, rng: np.random.Generator) -> Values:
    """Transformer: after its layers are made, every matrix is drawn anew by xavier_uniform."""
    return {
        name: _xavier(parameter.shape, rng)
        for name, parameter in layer.named_parameters()
        if parameter.ndim == 2
    }


def _bilinear(layer: Any, rng: np.random.Generator) -> Values:
    """Bilinear: weight and bias U(±1/√in1)."""
    bound = 1 / np.sqrt(layer.in1_features)
    own = layer.named_parameters(recurse=False)
    return {name: uniform(rng, bound, parameter.shape) for name, parameter in own}


@cache
def _redraws() -> Mapping[type, Callable[[Any, np.random.Generator], Values]]:
    """What a module does to its layers' start once they are made."""
    from torch import nn

    return {nn.MultiheadAttention: _no_output_bias, nn.Transformer: _transformer}


@cache
def _draws() -> Mapping[type, Callable[[Any, np.random.Generator], Values]]:
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.modules.conv import _ConvNd

    return {
        nn.Linear: _affine,
        _ConvNd: _affine,
        nn.Embedding: _embedding,
        nn.EmbeddingBag: _embedding,
        nn.RNNBase: _recurrent,
        nn.RNNCellBase: _recurrent,
        nn.MultiheadAttention: _attention,
        nn.Bilinear: _bilinear,
        _NormBase: _normalisation,
        nn.LayerNorm: _normalisation,
        nn.GroupNorm: _normalisation,
        **({nn.RMSNorm: _normalisation} if hasattr(nn, "RMSNorm") else {}),
    }
