"""Layers: what those that torch provides do to shapes, and how many parameters they have.

Embeddings look rows up; recurrent layers return the outputs of every step beside the last hidden
state; a convolution is a product of unfolded windows with the kernels, folded again. Nothing is
trained here. Two sentences of the document are wrong, and show why it pays to count: how many
parameters a convolution has, and what its groups share.

Source: 20-days, chapter 5-2.
"""

import torch
from torch import Tensor, nn

from refimpl import Erratum, Exact, Example, hookimpl


def count(layer: nn.Module) -> int:
    """How many numbers it has."""
    return sum(p.numel() for p in layer.parameters())


def shape(t: Tensor) -> list[int]:
    """The shape as a plain list."""
    return list(t.shape)


# --- layers that look up and that recur ----------------------------------------------------------

IDS = torch.tensor([[0, 1, 2], [1, 2, 0]])


def embedded() -> tuple[list[int], bool]:
    """The shape of 2 × 3 embedded ids, and whether equal ids have equal vectors."""
    vectors = nn.Embedding(5, 4)(IDS)  # (2, 3, 4)
    return shape(vectors), torch.equal(vectors[0, 1], vectors[1, 0])


def shapes_of_lstm() -> list[list[int]]:
    """Output, last hidden state and last cell state of 7 steps, 2 rows, 3 → 4, time first."""
    output, (hidden, cell) = nn.LSTM(3, 4)(torch.zeros(7, 2, 3))
    return [shape(output), shape(hidden), shape(cell)]


def shapes_of_gru() -> list[list[int]]:
    """The same of a GRU, which has no cell state."""
    output, hidden = nn.GRU(3, 4)(torch.zeros(7, 2, 3))
    return [shape(output), shape(hidden)]


def shape_with_batch_first() -> list[int]:
    """The output of an LSTM that takes the batch first."""
    output, _ = nn.LSTM(3, 4, batch_first=True)(torch.zeros(2, 7, 3))
    return shape(output)


def shape_in_both_directions() -> list[int]:
    """The output of a bidirectional LSTM holds both directions."""
    output, _ = nn.LSTM(3, 4, bidirectional=True)(torch.zeros(7, 2, 3))
    return shape(output)


def last_output_is_the_state(**settings) -> bool:
    """Whether the last step's output is the last hidden state."""
    x = torch.linspace(-1, 1, 42).reshape(7, 2, 3)
    output, (hidden, _) = nn.LSTM(3, 4, **settings)(x)
    return shape(output[-1]) == shape(hidden[0]) and torch.equal(output[-1], hidden[0])


def cell_against_layer() -> float:
    """The largest difference between an LSTM and its cell, called step by step."""
    lstm, cell = nn.LSTM(3, 4), nn.LSTMCell(3, 4)
    weights = {name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()}
    cell.load_state_dict(weights)
    x = torch.linspace(-1, 1, 42).reshape(7, 2, 3)
    hidden, memory = torch.zeros(2, 4), torch.zeros(2, 4)
    for step in x:
        hidden, memory = cell(step, (hidden, memory))
    return float((hidden - lstm(x)[0][-1]).abs().max())


# --- convolutions --------------------------------------------------------------------------------


def unfolded_against_convolved() -> float:
    """The largest difference between a convolution and unfold, product and fold."""
    x = torch.linspace(-1, 1, 2 * 3 * 6 * 5).reshape(2, 3, 6, 5)
    convolution = nn.Conv2d(3, 4, kernel_size=3)
    windows = nn.Unfold(kernel_size=3)(x)  # (2, 27, 12)
    product = nn.Linear(27, 4)
    with torch.no_grad():
        product.weight.copy_(convolution.weight.reshape(4, 27))
        product.bias.copy_(convolution.bias)
    scores = product(windows.transpose(1, 2)).transpose(1, 2)  # (2, 4, 12)
    folded = nn.Fold(output_size=(4, 3), kernel_size=1)(scores)  # (2, 4, 4, 3)
    return float((folded - convolution(x)).abs().max())


def size_restored() -> list[int]:
    """The shape after a convolution, and a transposed one with the same kernel."""
    x = torch.zeros(1, 3, 32, 32)
    return shape(nn.ConvTranspose2d(8, 3, kernel_size=5)(nn.Conv2d(3, 8, kernel_size=5)(x)))


def reach_of_dilation() -> list[int]:
    """A kernel of 3 reaches over 3 pixels, and over 5 with dilation 2: so much smaller is out."""
    x = torch.zeros(1, 1, 9, 9)
    return [9 + 1 - nn.Conv2d(1, 1, 3, dilation=d)(x).shape[-1] for d in (1, 2)]


def separable_parameters() -> list[int]:
    """A convolution 8 → 16, and one of each channel by itself followed by one of size 1."""
    separable = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1))
    return [count(nn.Conv2d(8, 16, 3)), count(separable)]


def groups_share_kernels() -> bool:
    """Whether two groups have only the numbers of one, or give the same of the same pixels."""
    convolution = nn.Conv2d(4, 4, 3, groups=2, bias=False)
    first, second = convolution(torch.ones(1, 4, 3, 3)).flatten().chunk(2)
    return count(convolution) == 2 * 2 * 9 or torch.equal(first, second)


# --- what the document states --------------------------------------------------------------------

EXAMPLE = Example(
    name="layers",
    title="Layers: their shapes and their parameters",
    document="20-days",
    section="5-2",
    values=(
        Exact("parameters of Linear(3, 5)", lambda: count(nn.Linear(3, 5)), 3 * 5 + 5),
        Exact("shape after Flatten", lambda: shape(nn.Flatten()(torch.zeros(2, 3, 4))), [2, 12]),
        Exact(
            "parameters of BatchNorm2d(8), with affine and without",
            lambda: [count(nn.BatchNorm2d(8)), count(nn.BatchNorm2d(8, affine=False))],
            [16, 0],
        ),
        Exact("embedded ids: shape, equal vectors", embedded, ([2, 3, 4], True)),
        Exact("shapes of an LSTM", shapes_of_lstm, [[7, 2, 4], [1, 2, 4], [1, 2, 4]]),
        Exact("shapes of a GRU", shapes_of_gru, [[7, 2, 4], [1, 2, 4]]),
        Exact("shape of an LSTM with the batch first", shape_with_batch_first, [2, 7, 4]),
        Exact("shape of an LSTM in both directions", shape_in_both_directions, [7, 2, 8]),
        Exact(
            "parameters of a GRU and of an LSTM, 3 → 3",
            lambda: [count(nn.GRU(3, 3)), count(nn.LSTM(3, 3))],
            [72, 96],
        ),
        Exact("the last output of one layer is its hidden state", last_output_is_the_state, True),
        Exact("LSTMCell step by step against LSTM", cell_against_layer, 0.0, digits=6),
        Exact("Unfold, Linear and Fold against Conv2d", unfolded_against_convolved, 0.0, digits=5),
        Exact("size restored by ConvTranspose2d", size_restored, [1, 3, 32, 32]),
        Exact("reach of a kernel, without dilation and with", reach_of_dilation, [3, 5]),
        Exact("parameters of a convolution, and separable", separable_parameters, [1168, 224]),
        Exact(
            "adaptive pooling of two sizes",
            lambda: [
                shape(nn.AdaptiveAvgPool2d((2, 2))(torch.zeros(1, 3, size, 7))) for size in (9, 20)
            ],
            [[1, 3, 2, 2]] * 2,
        ),
        Exact(
            "parameters of MaxPool2d, Dropout and Upsample",
            lambda: [count(nn.MaxPool2d(2)), count(nn.Dropout()), count(nn.Upsample())],
            [0, 0, 0],
        ),
        Exact(
            "shape after Upsample by 2",
            lambda: shape(nn.Upsample(scale_factor=2)(torch.zeros(1, 3, 4, 5))),
            [1, 3, 8, 10],
        ),
    ),
    errata=(
        Erratum(
            "parameters of a convolution in one dimension",
            says="channels in × kernel × channels out + kernel: 245 for 3 → 16 with a kernel of 5",
            today="channels in × kernel × channels out + channels out: 256",
            since="torch>=1.5",
            holds=lambda: count(nn.Conv1d(3, 16, 5)) == 245,
        ),
        Erratum(
            "parameters of a convolution in two dimensions",
            says="channels in × kernel × channels out + kernel: 873 for 3 → 32 with 3×3",
            today="channels in × kernel × channels out + channels out: 896",
            since="torch>=1.5",
            holds=lambda: count(nn.Conv2d(3, 32, 3)) == 873,
        ),
        Erratum(
            "kernels of groups",
            says="the groups of a convolution use the same kernels",
            today="each group has kernels of its own; there are fewer numbers, as each sees only "
            "its own channels",
            since="torch>=1.5",
            holds=groups_share_kernels,
        ),
        Erratum(
            "last output and hidden state",
            says="output[-1] equals h_n",
            today="only with one layer and one direction",
            since="torch>=1.5",
            holds=lambda: last_output_is_the_state(num_layers=2, bidirectional=True),
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
