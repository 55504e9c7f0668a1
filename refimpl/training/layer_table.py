"""Layer tables and size rows, measured from a live module by torchinfo.

Sizes are computed as in the documents' summaries: float32 of 4 bytes, one sample, 2²⁰ bytes to
the MB, and every layer's output counted twice (forward and backward).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from refimpl.contract import Layer, Sizes
from refimpl.trees import leaves

BYTES = 4
MEGABYTE = 2**20


@dataclass(frozen=True)
class Summary:
    """What a live module is made of."""

    layers: tuple[Layer, ...]
    sizes: Sizes


def summarise(module: nn.Module, sample: Any) -> Summary:
    """Run ``sample`` (its first axis is the batch) through ``module`` and tabulate its leaves."""
    import torchinfo

    modes = [(part, part.training) for part in module.modules()]
    found = torchinfo.summary(module, input_data=sample, verbose=0, col_names=("output_size",))
    for part, training in modes:
        part.training = training
    shown = [info for info in found.summary_list if info.is_leaf_layer and info.executed]
    layers = tuple(
        Layer(_path(info), info.class_name, (-1, *info.output_size[1:]), info.num_params)
        for info in shown
    )
    parameters = sum(p.numel() for p in module.parameters())
    per_sample = sum(_numel(layer.output[1:]) for layer in layers)
    of_input = sum(leaf[0].numel() for leaf in leaves(sample))
    return Summary(layers, _sizes(of_input, per_sample, parameters))


def _sizes(inputs: int, outputs: int, parameters: int) -> Sizes:
    rows = (inputs * BYTES, 2 * outputs * BYTES, parameters * BYTES)
    of_input, of_passes, of_parameters = (count / MEGABYTE for count in rows)
    return Sizes(of_input, of_passes, of_parameters, total=sum(rows) / MEGABYTE)


def _path(info: object) -> str:
    """The dotted name of a layer inside its module."""
    names: list[str] = []
    while info is not None and getattr(info, "parent_info", None) is not None:
        names.append(str(getattr(info, "var_name", "")))
        info = getattr(info, "parent_info", None)
    return ".".join(reversed(names))


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
