"""Layer tables and sizes come from the live module, as the documents' summaries print them."""

import pytest
import torch
from torch import nn

from refimpl import Layer
from refimpl.training.layer_table import BYTES, MEGABYTE, summarise


class Convolutions(nn.Module):
    """Nested modules, a layer that is called twice, one that never is, and a frozen one."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.ModuleDict({"flat": nn.Flatten(), "out": nn.Linear(36, 2)})
        self.idle = nn.Linear(5, 5)
        self.head["out"].bias.requires_grad_(False)

    def forward(self, x):
        return self.head["out"](self.head["flat"](self.features(x)))


ROWS = (
    Layer("features.0", "Conv2d", (-1, 4, 6, 6), 40),
    Layer("features.1", "ReLU", (-1, 4, 6, 6), 0),
    Layer("features.2", "MaxPool2d", (-1, 4, 3, 3), 0),
    Layer("head.flat", "Flatten", (-1, 36), 0),
    Layer("head.out", "Linear", (-1, 2), 74),
)


def test_rows_are_the_layers_in_the_order_of_their_calls_with_a_batch_of_any_size():
    for batch in (1, 7):
        assert summarise(Convolutions(), torch.zeros(batch, 1, 8, 8)).layers == ROWS


def test_sizes_are_of_one_sample_in_float32_and_count_outputs_twice_and_parameters_called_or_not():
    outputs = 144 + 144 + 36 + 36 + 2
    for module, sample in (
        (Convolutions(), torch.zeros(7, 1, 8, 8)),
        (Convolutions().double(), torch.zeros(1, 1, 8, 8, dtype=torch.float64)),
    ):
        sizes = summarise(module, sample).sizes
        assert sizes.input == 64 * BYTES / MEGABYTE
        assert sizes.forward_backward == 2 * outputs * BYTES / MEGABYTE
        assert sizes.parameters == (40 + 74 + 30) * BYTES / MEGABYTE
        parts = sizes.input + sizes.forward_backward + sizes.parameters
        assert sizes.total == pytest.approx(parts)


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(3, 3)

    def forward(self, x):
        return self.lin(self.lin(x))


def test_the_parameters_of_a_layer_that_is_called_twice_are_counted_once():
    assert summarise(Twice(), torch.zeros(1, 3)).sizes.parameters == 12 * BYTES / MEGABYTE


def test_a_module_that_is_a_single_layer_is_its_own_row():
    (row,) = summarise(nn.Linear(3, 2), torch.zeros(1, 3)).layers
    assert (row.kind, row.output, row.parameters) == ("Linear", (-1, 2), 8)


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)))
    module[1].eval()
    modes = [part.training for part in module.modules()]
    state = {name: value.clone() for name, value in module.state_dict().items()}
    summarise(module, torch.ones(4, 3))
    assert [part.training for part in module.modules()] == modes
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name])
    assert not any(part._forward_hooks for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())
