"""Every call of torch is judged by itself, and what is wrong is named."""

import re

import pytest
import torch
from fakes.sound import EXAMPLE, MODULE
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from refimpl import Execution
from refimpl.checking.checks import Cell, Subject, run_check
from refimpl.composition import CPU
from refimpl.conformance.checks.kernels import each_kernel_is_right
from refimpl.conformance.mutants.kernels import FAULTS, replaced
from refimpl.conformance.mutants.planting import Fault
from refimpl.loading import registry
from refimpl.parity import kernel_judge
from refimpl.parity.judged_steps import first_beyond
from refimpl.parity.judged_values import judge_values
from refimpl.parity.kernel_bounds import bounds, repeated
from refimpl.parity.kernel_judge import KernelJudge, furthest
from refimpl.parity.layer_definitions import defined, is_defined, results
from refimpl.parity.numpy_kernels import KERNELS

aten = torch.ops.aten

needs_kernels = pytest.mark.skipif(
    not hasattr(torch.library, "get_kernel"), reason="this torch cannot give a kernel (before 2.9)"
)


class Instead(TorchDispatchMode):
    """A device on which one kernel gives something else, in float32 alone."""

    def __init__(self, kernel, change):
        super().__init__()
        self.kernel, self.change = kernel, change

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func is not self.kernel:
            return made
        if isinstance(made, tuple):
            return tuple(own if own is None else self.change(own) for own in made)
        return self.change(made)


def judged(compute, kernel=None, change=None):
    judge = KernelJudge()
    if kernel is None:
        with judge:
            compute()
    else:
        with Instead(kernel, change), judge:
            compute()
    return judge


def image(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def convolved():
    layer = nn.Conv2d(3, 4, 3)
    layer(image(5, 3, 8, 8).requires_grad_()).relu().sum().backward()


def cross_entropy():
    scores = (10 * image(6, 4)).requires_grad_()
    F.cross_entropy(scores, torch.arange(6) % 4).backward()


def binary():
    p = torch.sigmoid(30 * image(50, 1)).requires_grad_()
    F.binary_cross_entropy(p, (image(50, 1) > 0).float()).backward()


def one_row_of_a_table():
    rows, terms = torch.ones(2, 50_000).long(), image(2, 50_000, 3).abs()
    for _ in range(4):
        aten.embedding_dense_backward(terms, rows, 4, 0, False)


def one_place():
    places = (torch.zeros(2, 5_000).long(),)
    torch.zeros(3).index_put_(places, image(2, 5_000).abs(), accumulate=True)
    torch.zeros(1, 3).scatter_add_(1, torch.zeros(1, 9_000).long(), image(1, 9_000).abs())
    image(3, 20_000).abs().cumsum(1)


def by_transforms():
    """Without oneDNN, NNPACK makes it by Winograd's transform: less exact near what is zero."""
    x = image(50, 3, 32, 32).relu()
    x[:, :, :20] = 0
    torch._C._set_mkldnn_enabled(False)
    try:
        nn.Conv2d(3, 32, 3)(x).relu()
        nn.Conv1d(3, 16, 5)(image(20, 3, 200).relu())
    finally:
        torch._C._set_mkldnn_enabled(True)


def adam():
    net = nn.Linear(7, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(image(5, 7)).square().mean().backward()
        optimizer.step()


SOUND = [convolved, cross_entropy, binary, adam, one_row_of_a_table, one_place, by_transforms]


@pytest.mark.parametrize("compute", SOUND)
def test_sound_kernels_are_within_what_rounding_explains(compute):
    judge = judged(compute)
    assert judge.beyond == []
    assert not judge.unjudged
    assert sum(judge.judged.values()) > 3


@pytest.mark.parametrize(
    ("compute", "kernel", "role"),
    [
        (convolved, aten.convolution.default, "output"),
        (convolved, aten.convolution_backward.default, "gradient of the weight"),
        (convolved, aten.threshold_backward.default, "gradient"),
        (cross_entropy, aten._log_softmax.default, "output"),
        (binary, aten.binary_cross_entropy.default, "output"),
        (adam, aten.mm.default, "output"),
    ],
)
def test_a_kernel_that_is_off_by_a_thousandth_is_named_with_its_role(compute, kernel, role):
    judge = judged(compute, kernel, lambda made: made * 1.001)
    assert {call.kernel for call in judge.beyond} == {kernel._schema.name}
    assert role in {call.role for call in judge.beyond}
    assert "what rounding explains" in str(judge.beyond[0])


@pytest.mark.parametrize(
    "given",
    [
        torch.tensor(1.0).expand(1),
        torch.ones(3, 1).expand(3, 4),
        torch.ones(4, 3).T,
        torch.ones(0, 3),
        torch.tensor(2.0),
        torch.ones(5, 2)[1:, 1],
    ],
    ids=["single", "expanded", "transposed", "empty", "scalar", "column"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.bool])
def test_a_call_is_judged_whatever_the_strides_and_type_of_what_it_is_given(given, dtype):
    judge = judged(lambda: torch.stack([given.to(dtype), given.to(dtype)]))
    assert judge.unjudged == {}
    assert judge.judged["aten::stack"] == 1


def test_a_wrong_comparison_is_found_each_time():
    def compared():
        for _ in range(3):
            torch.gt(image(5, 7), 0.1)

    beyond = judged(compared, aten.gt.Scalar, torch.logical_not).beyond
    assert [wrong.kernel for wrong in beyond] == ["aten::gt"] * 3


def test_a_call_that_was_sound_is_judged_again_only_if_it_gives_something_else(monkeypatch):
    made = []
    exactly = kernel_judge.repeated
    monkeypatch.setattr(kernel_judge, "_sound", {})
    monkeypatch.setattr(kernel_judge, "repeated", lambda *a: (made.append(1), exactly(*a))[1])

    def product():
        torch.mm(image(5, 7), image(7, 3))

    first = judged(product)
    assert (len(made), first.beyond, first.judged["aten::mm"]) == (1, [], 1)
    again = judged(product)
    assert (len(made), again.judged, again.worst) == (1, first.judged, first.worst)
    (wrong,) = judged(product, aten.mm.default, lambda own: own * 1.001).beyond
    assert wrong.kernel == "aten::mm"


def test_a_convolution_by_transforms_that_is_off_by_a_thousandth_is_found():
    (wrong,) = judged(by_transforms, aten.convolution.default, lambda own: own * 1.001).beyond[:1]
    assert wrong.kernel == "aten::convolution"


def test_the_message_has_kernel_role_shapes_dtype_device_and_figures():
    judge = judged(convolved, aten.convolution_backward.default, lambda made: made * 1.003)
    (text,) = {str(call) for call in judge.beyond if call.role == "gradient of the weight"}
    assert text.startswith(
        "aten::convolution_backward, gradient of the weight, (5, 4, 6, 6) × (5, 3, 8, 8) × "
        "(4, 3, 3, 3), float32 on cpu"
    )
    share = re.search(r": (\S+) of its largest value, (\S+) × what rounding explains", text)
    assert share is not None
    assert 5e-4 < float(share[1]) <= 3.0e-3  # of the element that is furthest beyond its bound
    assert float(share[2]) > 100


def test_what_is_not_finite_where_float64_is_finite_is_infinitely_far():
    far = furthest(torch.tensor([float("nan")]), torch.tensor([6.5], dtype=torch.float64), 1e9)
    assert far.ratio == float("inf")


def test_a_call_that_float64_lacks_is_counted_and_named():
    judge = KernelJudge()
    with judge:
        nn.LSTM(2, 3)(image(4, 5, 2).requires_grad_())[0].sum().backward()
    for kernel, count in judge.unjudged.items():
        assert "rnn" in kernel
        assert count == 1
        assert judge.why[kernel]


def test_a_failing_execution_points_to_the_first_kernel_that_is_off():
    wrong = Execution(
        "wrong", "addmm is off", around=lambda: Instead(aten.addmm.default, lambda y: y * 1.01)
    )
    variant = EXAMPLE.variant(MODULE.name)
    assert first_beyond(variant, wrong, "stand-in").kernel == "aten::addmm"
    result = run_check(Cell(each_kernel_is_right, Subject(EXAMPLE, variant, wrong, "stand-in")))
    assert result.outcome == "failed"
    assert result.reason.startswith("aten::addmm, output, (1,) × (3, 2) × (2, 1), float32 on cpu")


LAYERS = [
    (nn.Linear(5, 3), (4, 5)),
    (nn.Conv1d(3, 4, 2), (2, 3, 9)),
    (nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 9, 8)),
    (nn.ReLU(), (4, 5)),
    (nn.Sigmoid(), (4, 5)),
    (nn.Tanh(), (4, 5)),
    (nn.MaxPool1d(2), (2, 3, 8)),
    (nn.MaxPool2d(2, stride=2, padding=1), (2, 3, 8, 8)),
    (nn.AvgPool2d(4), (2, 3, 8, 8)),
    (nn.AdaptiveMaxPool2d((1, 1)), (2, 3, 5, 5)),
    (nn.AdaptiveAvgPool2d(1), (2, 3, 5, 5)),
    (nn.Flatten(), (2, 3, 4)),
    (nn.LSTM(3, 4, num_layers=2, batch_first=True), (2, 5, 3)),
    (nn.LSTM(3, 4, num_layers=2, bidirectional=True), (5, 2, 3)),
    (nn.GRU(3, 4, num_layers=2, bidirectional=True, bias=False), (5, 2, 3)),
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 15)),
    (nn.Conv2d(4, 8, (3, 2), (1, 2), (1, 0), (2, 1), groups=4), (2, 4, 9, 8)),
    (nn.ConvTranspose1d(3, 5, 4, stride=2, padding=1), (2, 3, 6)),
    (nn.ConvTranspose2d(3, 5, (3, 2), (2, 3), (1, 0), dilation=(2, 1)), (2, 3, 6, 5)),
    (nn.AdaptiveMaxPool2d((3, 2)), (2, 3, 10, 7)),
    (nn.AdaptiveAvgPool2d((2, 5)), (2, 3, 9, 7)),
    (nn.Softmax(dim=1), (4, 5)),
    (nn.LogSoftmax(dim=-1), (4, 5)),
    (nn.Upsample(scale_factor=2), (1, 3, 4, 5)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda own: type(own).__name__)
def test_a_definition_is_what_torch_computes_in_float64(layer, shape):
    assert is_defined(layer)
    layer, x = layer.double(), image(*shape).double()
    made = layer(x)
    made = made[0] if isinstance(made, tuple) else made
    own = {name: value.detach() for name, value in layer.named_parameters()}
    assert torch.allclose(defined(layer, own, x), made, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 2, 3, padding="same"), nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
        nn.LSTM(2, 3, proj_size=1), nn.ConvTranspose2d(2, 2, 3, stride=2, output_padding=1),
        nn.MaxPool2d(2, dilation=2), nn.Upsample(scale_factor=1.5), nn.GELU(),
    ],
)  # fmt: skip
def test_a_layer_with_other_settings_has_no_definition(layer):
    assert not is_defined(layer)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_the_last_states_of_a_recurrent_layer_are_what_torch_gives(kind):
    layer, x = kind(3, 4, num_layers=2, bidirectional=True).double(), image(5, 2, 3).double()
    own = {name: value.detach() for name, value in layer.named_parameters()}
    states = layer(x)[1] if kind is nn.LSTM else [layer(x)[1]]
    for found, made in zip(results(layer, own, x)[1:], states, strict=True):
        assert torch.allclose(found, made, rtol=1e-12, atol=1e-12)


def test_no_more_of_a_kernel_is_judged_than_wanted_and_other_kernels_are():
    judge = KernelJudge(most=3 * kernel_judge.A_CALL)
    with judge:
        for _ in range(10):
            image(2, 3) @ image(3, 2)
        image(2, 3).exp()
    assert judge.judged["aten::mm"] == 3
    assert judge.judged["aten::exp"] == 1


def test_a_product_in_bfloat16_is_rounded_once_whatever_cancels():
    one, other = image(20, 30).bfloat16(), image(30, 20).bfloat16()
    assert judged(lambda: one @ other).beyond == []
    off = judged(lambda: one @ other, aten.mm.default, lambda made: made * 1.03)
    assert [call.kernel for call in off.beyond] == ["aten::mm"]


@needs_kernels
def test_what_a_value_calls_is_judged_whatever_the_value_shows():
    values = {"fifty": lambda: len(torch.linspace(0, 2, 50).cosh()), "one": lambda: image(1).exp()}
    with replaced("cosh", FAULTS["scaled"][0], Fault(1.01)):
        seen = judge_values(values)
    assert {(call.kernel, call.during) for call in seen.kernels.beyond} == {
        ("aten::cosh", "'fifty'")
    }
    assert seen.kernels.judged["aten::exp"] == 1


def test_the_layers_that_a_value_calls_are_judged_with_numbers_that_show_something():
    seen = judge_values({"shape": lambda: nn.GRU(3, 4)(torch.zeros(5, 2, 3))[0].shape})
    assert seen.layers
    assert all(call.ratio <= 1 for call in seen.layers)
    assert max(abs(call.expected) for call in seen.layers) > 0


@needs_kernels
def test_a_value_that_raises_has_been_judged_as_far_as_it_went():
    def fails():
        torch.linspace(0, 2, 50).cosh()
        raise ValueError("as documented")

    with replaced("cosh", FAULTS["scaled"][0], Fault(1.01)):
        assert judge_values({"it fails": fails}).kernels.beyond


@needs_kernels
def test_kernels_that_only_the_program_as_it_is_written_calls_are_judged_too():
    """Whole runs on the plain CPU fuse Adam's update; the document's program does not."""
    example = registry.load(only=["titanic-dnn"]).example("titanic-dnn")
    cell = Cell(each_kernel_is_right, Subject(example, example.variants[0], CPU, "stand-in"))
    with replaced("addcdiv_", FAULTS["in-half-precision"][0], Fault()):
        result = run_check(cell)
    assert result.outcome == "failed"
    assert "aten::addcdiv_" in result.reason
    assert "step 1 of the program as it is written" in result.reason


def factorised(size, dtype):
    a, b = image(50, 50).to(dtype)[:size, :size], image(size, 2).to(dtype)
    a.det(), a.slogdet(), a.inverse(), torch.linalg.solve(a, b), a.std(0), torch.linalg.qr(a)
    torch.linalg.svd(a), torch.linalg.eigh(a + a.mT), torch.linalg.lstsq(a, b)
    torch.linalg.cholesky(a @ a.mT + torch.eye(size, dtype=dtype))


@pytest.mark.parametrize("size", [2, 5, 20, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sound_factorisations_are_within_what_rounding_explains(size, dtype, monkeypatch):
    monkeypatch.setattr(kernel_judge, "CONFIRMED", 100)
    judge = judged(lambda: factorised(size, dtype))
    assert not judge.beyond
    assert not judge.unjudged


def test_what_is_measured_is_measured_in_float64_too():
    inverse = torch.ops.aten.linalg_inv_ex.default
    near = torch.tensor([[1.0, 1.0], [1.0, 1.001]], dtype=torch.float64)
    unit = torch.finfo(torch.float64).eps
    bound, _ = bounds(inverse, [near], {}, repeated(inverse, [near], {}), unit)
    assert float(bound) > 1000 * unit * float(near.inverse().abs().max())


def each_kernel_of_numpy(dtype):
    a, b, bias = (image(*shape).to(dtype) for shape in ((30, 40), (40, 20), (20,)))
    for product in (a @ b, a[None] @ b[None], a @ b[:, 0], bias @ bias):
        assert product.isfinite().all()
    torch.addmm(bias, a, b, beta=0.5, alpha=2)
    torch.baddbmm(bias, a[None], b[None])
    images, weight = image(6, 3, 9, 9).to(dtype), image(5, 3, 3, 3).to(dtype)
    F.conv2d(images, weight, bias[:5], stride=2, padding=1)
    F.conv1d(images[:, :, 0], weight[..., 0])
    for reduced in (a.sum(), a.sum((0,), keepdim=True), a.mean(), a.mean(1)):
        assert reduced.isfinite().all()
    square = a[:20, :20]
    a.std(), a.std(1, correction=0), square.det(), square.inverse()
    torch.add(a, a, alpha=3).sub(1.5).mul(b.T[:1, :]).div(2.5)
    a.softmax(1), a.log_softmax(0), a.exp(), a.abs().log(), a.abs().sqrt()
    F.mse_loss(a, a + 1), F.mse_loss(a, a + 1, reduction="none")
    F.binary_cross_entropy(a.sigmoid(), (a > 0).to(dtype), reduction="sum")
    leaf = a.clone().requires_grad_()
    (leaf.tanh() + leaf.sigmoid() + leaf.relu()).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_call_is_compared_with_is_confirmed_by_numpy(dtype):
    judge = judged(lambda: each_kernel_of_numpy(dtype))
    assert not judge.beyond
    assert not judge.unjudged
    assert set(judge.confirmed) == set(KERNELS)


def test_numpy_is_asked_for_nothing_where_there_are_no_numbers():
    nothing = torch.empty(0, 3)
    judge = judged(
        lambda: (nothing.sum(), nothing.sum(1), nothing @ image(3, 2), nothing.exp(), 2 * nothing)
    )
    assert not judge.beyond
    assert not judge.unjudged


def test_what_is_added_zero_times_may_be_nan():
    a, b, own = image(3, 4), image(4, 5), torch.full((3, 5), torch.nan)
    judge = judged(lambda: torch.addmm(own, a, b, beta=0))
    assert judge.confirmed["addmm"] == 1
    assert not judge.beyond


def test_numpy_makes_nothing_of_a_transposed_or_grouped_convolution():
    judge = judged(
        lambda: (
            F.conv_transpose2d(image(2, 3, 5, 5), image(3, 4, 3, 3)),
            F.conv2d(image(2, 4, 5, 5), image(4, 2, 3, 3), groups=2),
        )
    )
    assert judge.judged["aten::convolution"] == 2
    assert not judge.confirmed["convolution"]
