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
    return values


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


@cache
def _draws() -> Mapping[type, Callable[[Any, np.random.Generator], Values]]:
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.modules.conv import _ConvNd

    return {
        nn.Linear: _affine,
        _ConvNd: _affine,
        nn.Embedding: _embedding,
        nn.RNNBase: _recurrent,
        _NormBase: _normalisation,
        nn.LayerNorm: _normalisation,
        nn.GroupNorm: _normalisation,
    }
