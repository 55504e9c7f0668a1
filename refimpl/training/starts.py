"""Start values from NumPy alone, so that one seed means the same start everywhere.

Torch's default for each kind of layer is re-implemented with a NumPy generator; the check
``starts-as-torch-does`` and ``tests/test_starts.py`` compare each with what torch itself draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

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
        stated = known_start(layer)
        if stated is None:
            raise ContractError(
                f"no default start is known for the parameters {', '.join(own)} of "
                f"{prefix or 'the module'} ({type(layer).__name__}); give the variant a start="
            )
        for name, parameter in own.items():
            drawn = stated[name].draw(rng, tuple(parameter.shape))
            values[f"{prefix}.{name}" if prefix else name] = drawn
    for prefix, layer in module.named_modules():
        redraw = next((d for kind, d in _redraws().items() if isinstance(layer, kind)), None)
        if redraw is not None:
            for name, value in redraw(layer, rng).items():
                values[f"{prefix}.{name}" if prefix else name] = value
    return {name: value for name, value in values.items() if name in shared}


@dataclass(frozen=True)
class Distribution:
    """What torch draws a parameter from: U(−width, width), N(0, width²), or the constant width.

    The row ``zero`` is zero, if there is one.
    """

    kind: Literal["uniform", "normal", "constant"]
    width: float
    zero: int | None = None

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
        """Values of this shape, in float64."""
        if self.kind == "uniform":
            values = rng.uniform(-self.width, self.width, shape)
        elif self.kind == "normal":
            values = self.width * rng.standard_normal(shape)
        else:
            values = np.full(shape, self.width)
        if self.zero is not None:
            values[self.zero] = 0
        return values

    def __str__(self) -> str:
        if self.kind == "uniform":
            return f"U(±{self.width:.4g})"
        return f"N(0, {self.width:.4g}²)" if self.kind == "normal" else f"{self.width:g}"


def known_start(layer: nn.Module) -> dict[str, Distribution] | None:
    """What torch draws each of a layer's own parameters from, or ``None`` if that is not known."""
    own = dict(layer.named_parameters(recurse=False))
    for kind, distributions in _known().items():
        if isinstance(layer, kind):
            return distributions(layer, own)
    return None


Stated = Callable[[Any, Mapping[str, Any]], dict[str, Distribution]]


def _affine(layer: Any, own: Mapping[str, Any]) -> dict[str, Distribution]:
    """Linear, convolution: kaiming_uniform(a=√5), that is U(±1/√fan_in), for weight and bias."""
    bound = 1 / np.sqrt(int(np.prod(layer.weight.shape[1:])))
    return dict.fromkeys(own, Distribution("uniform", bound))


def _embedding(layer: Any, own: Mapping[str, Any]) -> dict[str, Distribution]:
    """Embedding: N(0, 1), and a zero row for the padding index."""
    return dict.fromkeys(own, Distribution("normal", 1.0, layer.padding_idx))


def _recurrent(layer: Any, own: Mapping[str, Any]) -> dict[str, Distribution]:
    """RNN, LSTM, GRU: every tensor U(±1/√hidden)."""
    return dict.fromkeys(own, Distribution("uniform", 1 / np.sqrt(layer.hidden_size)))


def _normalisation(layer: Any, own: Mapping[str, Any]) -> dict[str, Distribution]:
    """Batch, layer and group normalisation: scale one, shift zero."""
    return {name: Distribution("constant", 1.0 if name == "weight" else 0.0) for name in own}


def _xavier(shape: Any) -> Distribution:
    """xavier_uniform: U(±√(6 / (fan_in + fan_out))), of a weight (out, in)."""
    return Distribution("uniform", float(np.sqrt(6 / (shape[0] + shape[1]))))


def _attention(layer: Any, own: Mapping[str, Any]) -> dict[str, Distribution]:
    """MultiheadAttention: projections xavier_uniform, their biases zero, bias_k/v xavier_normal."""
    stated = {}
    for name, parameter in own.items():
        if name.endswith("weight"):
            stated[name] = _xavier(parameter.shape)
        elif name in ("bias_k", "bias_v"):  # (1, 1, E): fan_in and fan_out are both E
            stated[name] = Distribution("normal", float(np.sqrt(2 / (2 * parameter.shape[2]))))
        else:
            stated[name] = Distribution("constant", 0.0)
    return stated


def _bilinear(layer: Any, own: Mapping[str, Any]) -> dict[str, Distribution]:
    """Bilinear: weight and bias U(±1/√in1)."""
    return dict.fromkeys(own, Distribution("uniform", 1 / np.sqrt(layer.in1_features)))


def _no_output_bias(layer: Any, rng: np.random.Generator) -> Values:
    """After its output projection is drawn as a linear layer, attention sets its bias to zero."""
    bias = layer.out_proj.bias
    return {} if bias is None else {"out_proj.bias": np.zeros(tuple(bias.shape))}


def _transformer(layer: Any, rng: np.random.Generator) -> Values:
    """Transformer: after its layers are made, every matrix is drawn anew by xavier_uniform."""
    return {
        name: _xavier(parameter.shape).draw(rng, tuple(parameter.shape))
        for name, parameter in layer.named_parameters()
        if parameter.ndim == 2
    }


@cache
def _redraws() -> Mapping[type, Callable[[Any, np.random.Generator], Values]]:
    """What a module does to its layers' start once they are made."""
    from torch import nn

    return {nn.MultiheadAttention: _no_output_bias, nn.Transformer: _transformer}


@cache
def _known() -> Mapping[type, Stated]:
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
