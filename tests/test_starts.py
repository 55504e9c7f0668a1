"""Starts drawn from NumPy are distributed as what torch's constructors draw.

Each parameter of each layer kind is drawn many times by both and held together by its shape (a
two-sample Kolmogorov–Smirnov test), its spread and its bound. The seeds are fixed, so that a
verdict stands; the level of every test is ``ALPHA`` over the number of tests, so that a right
program would fail for one choice of seeds in a thousand.
"""

from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from refimpl.data import philox
from refimpl.errors import ContractError
from refimpl.training.starts import default_values, torch_default

ALPHA = 1e-3
DRAWS = 4000
"""At the least, of each parameter; more where there is no bound to tell by."""

BOUND_TOLERANCE = 0.02
"""The largest of 4000 uniform draws is nearer to the bound than this but for exp(−80)."""

RANDOM = {
    "linear": lambda: nn.Linear(12, 7),
    "conv1d": lambda: nn.Conv1d(3, 5, 4),
    "conv2d": lambda: nn.Conv2d(3, 6, (3, 2)),
    "conv2d-in-groups": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "conv3d": lambda: nn.Conv3d(2, 3, 2),
    "transposed-conv2d": lambda: nn.ConvTranspose2d(3, 5, 3),
    "embedding": lambda: nn.Embedding(200, 120),
    "rnn": lambda: nn.RNN(3, 5),
    "gru": lambda: nn.GRU(3, 5, num_layers=2),
    "lstm": lambda: nn.LSTM(3, 6, bidirectional=True),
    "projected-lstm": lambda: nn.LSTM(3, 6, proj_size=2),
    "embedding-bag": lambda: nn.EmbeddingBag(200, 120),
    "gru-cell": lambda: nn.GRUCell(3, 5),
    "bilinear": lambda: nn.Bilinear(3, 4, 5),
}
CONSTANT = {
    "batch-norm": lambda: nn.BatchNorm2d(4),
    "instance-norm": lambda: nn.InstanceNorm1d(4, affine=True),
    "layer-norm": lambda: nn.LayerNorm((2, 3)),
    "layer-norm-without-bias": lambda: nn.LayerNorm(3, bias=False),
    "group-norm": lambda: nn.GroupNorm(2, 4),
}
UNBOUNDED = ("embedding", "embedding-bag")
CASES = [(kind, name) for kind, build in RANDOM.items() for name, _ in build().named_parameters()]


@cache
def samples(kind):
    """Draws of every parameter of a layer kind by torch and by us: name → (torch's, ours)."""
    build, rng = RANDOM[kind], philox("starts", kind)
    sizes = [p.numel() for p in build().parameters()]
    times = -(-DRAWS // min(sizes))
    with torch.random.fork_rng():
        torch.manual_seed(20)
        torchs = [dict(build().named_parameters()) for _ in range(times)]
    ours = [default_values(build(), rng) for _ in range(times)]
    return {
        name: (
            np.concatenate([drawn[name].detach().numpy().ravel() for drawn in torchs]),
            np.concatenate([drawn[name].ravel() for drawn in ours]),
        )
        for name in ours[0]
    }


def same_shape(torchs, ours):
    return stats.ks_2samp(torchs, ours).pvalue > ALPHA / len(CASES)


def same_spread(torchs, ours):
    """The ratio of the variances, by the normal approximation with the sample's own kurtosis."""
    noise = np.sqrt(2 * (stats.kurtosis(torchs, fisher=False) - 1) / len(torchs))
    return abs(ours.var() / torchs.var() - 1) < stats.norm.isf(ALPHA / len(CASES) / 2) * noise


def same_bound(torchs, ours):
    return abs(np.abs(ours).max() / np.abs(torchs).max() - 1) < BOUND_TOLERANCE


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_distribution(kind, name):
    torchs, ours = samples(kind)[name]
    assert same_shape(torchs, ours)
    assert same_spread(torchs, ours)
    assert kind in UNBOUNDED or same_bound(torchs, ours)


@pytest.mark.parametrize("factor", [0.95, 1.05])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_this_many_draws_tell_a_scale_that_is_wrong_by_a_twentieth(kind, name, factor):
    torchs, ours = samples(kind)[name]
    told_by = same_spread if kind in UNBOUNDED else same_bound
    assert not told_by(torchs, factor * ours)


def test_this_many_draws_tell_a_normal_distribution_from_a_uniform_one():
    torchs, _ = samples("linear")["weight"]
    normal = philox("normal").normal(scale=torchs.std(), size=torchs.shape)
    assert not same_shape(torchs, normal)


@pytest.mark.parametrize("kind", CONSTANT)
def test_constants_are_torchs(kind):
    module = CONSTANT[kind]()
    values = default_values(module, philox("constants"))
    expected = dict(module.named_parameters())
    assert values.keys() == expected.keys()
    for name, value in values.items():
        assert np.array_equal(value, expected[name].detach().numpy())


@pytest.mark.parametrize("kind", RANDOM)
def test_every_parameter_gets_a_value_of_its_shape(kind):
    module = RANDOM[kind]()
    values = default_values(module, philox("shapes"))
    assert {n: v.shape for n, v in values.items()} == {
        n: tuple(p.shape) for n, p in module.named_parameters()
    }
    assert {v.dtype for v in values.values()} == {np.dtype("float64")}


def test_the_row_of_the_padding_index_is_zero_and_no_other():
    weight = default_values(nn.Embedding(9, 4, padding_idx=2), philox("padding"))["weight"]
    assert [i for i, row in enumerate(weight) if not row.any()] == [2]


def test_layers_without_bias_get_none():
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Conv1d(3, 1, 1, bias=False))
    assert list(default_values(module, philox("bias"))) == ["0.weight", "1.weight"]


def test_one_seed_is_one_start_and_leaves_torchs_generator_out_of_it():
    start = torch_default(RANDOM["linear"])
    torch.manual_seed(1)
    first = start(philox("start", 0))
    torch.manual_seed(2)
    again, other = start(philox("start", 0)), start(philox("start", 1))
    assert np.array_equal(first["weight"], again["weight"])
    assert not np.array_equal(first["weight"], other["weight"])


def test_parameters_do_not_share_their_draws():
    values = default_values(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), philox("shared"))
    drawn = np.concatenate([value.ravel() for value in values.values()])
    assert len(np.unique(drawn)) == len(drawn)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Sequential(nn.ReLU(), nn.PReLU()), "the parameters weight of 1 (PReLU)"),
        (Scaled(), "the parameters scale of the module (Scaled)"),
    ],
)
def test_a_layer_kind_that_is_not_known_is_named(module, said):
    with pytest.raises(ContractError, match="give the variant a start=") as raised:
        default_values(module, philox("unknown"))
    assert said in str(raised.value)


def draws_of(build, name, times=40):
    """Many draws of one parameter, by torch and by default_values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        torchs = np.concatenate(
            [dict(build().named_parameters())[name].detach().numpy().ravel() for _ in range(times)]
        )
    module = build()
    ours = np.concatenate(
        [default_values(module, philox("many", k))[name].ravel() for k in range(times)]
    )
    return torchs, ours


@pytest.mark.parametrize("name", ["in_proj_weight", "out_proj.weight", "bias_k"])
def test_attention_starts_as_torchs_does(name):
    torchs, ours = draws_of(lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True), name)
    assert abs(ours.std() / torchs.std() - 1) < 0.1
    if name != "bias_k":  # a normal distribution has no bound
        assert abs(np.abs(ours).max() / np.abs(torchs).max() - 1) < 0.02


def test_the_biases_of_attention_are_zero():
    values = default_values(nn.MultiheadAttention(8, 2), philox("attention"))
    assert not values["in_proj_bias"].any()
    assert not values["out_proj.bias"].any()


def test_a_transformer_draws_its_matrices_anew():
    name = "encoder.layers.0.linear1.weight"
    torchs, ours = draws_of(lambda: nn.Transformer(8, 2, 1, 1, 12), name, times=20)
    assert abs(np.abs(ours).max() / np.abs(torchs).max() - 1) < 0.02
    assert np.abs(ours).max() <= np.sqrt(6 / (8 + 12))


def test_a_tied_weight_has_one_start():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)
            self.head.weight = self.embedding.weight

    assert default_values(Tied(), philox("tied")).keys() == {"embedding.weight", "head.bias"}
