"""A call of torch is compared with what its kernel declares besides its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from fakes import torch_faults
from torch import Tensor, nn
from torch.nn import functional as F

from refimpl.parity import kernel_judge
from refimpl.parity.kernel_judge import KernelJudge


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was compared in this process before."""
    monkeypatch.setattr(kernel_judge, "_looked_at", kernel_judge._looked_at.copy())
    kernel_judge._looked_at.clear()
    monkeypatch.setattr(kernel_judge, "_undeclared", {})


@pytest.fixture
def planted() -> Iterator[Callable[[str, Callable[..., object]], None]]:
    """Replaces a kernel, and puts it back afterwards."""
    if not hasattr(torch.library, "get_kernel"):
        pytest.skip("this torch cannot give a kernel (before 2.9)")
    before = len(torch_faults.KEPT)
    yield torch_faults.around_kernel
    for library in torch_faults.KEPT[before:]:
        library._destroy()
    del torch_faults.KEPT[before:]


def undeclared(compute: Callable[[], object]) -> dict[str, str]:
    with KernelJudge("a test") as judge:
        compute()
    return judge.undeclared


def trained(layer: nn.Module, *inputs: Tensor) -> None:
    made = layer(*inputs)
    first = made[0] if isinstance(made, tuple) else made
    first.square().mean().backward()


NUMBERS = torch.linspace(-2, 2, 24).reshape(2, 3, 4)

SOUND: dict[str, Callable[[], object]] = {
    "views": lambda: (NUMBERS.mT, NUMBERS[0], NUMBERS.unsqueeze(0), NUMBERS.expand(2, 3, 4)),
    "views of nothing": lambda: torch.empty(0, 3).view(3, 0),
    "what may be a view": lambda: (NUMBERS.mT.reshape(24), NUMBERS.float(), NUMBERS.contiguous()),
    "the same without gradients": torch.inference_mode()(lambda: NUMBERS.mT.reshape(24).to("cpu")),
    "parts": lambda: (NUMBERS.split(1), NUMBERS.unbind(1), NUMBERS.chunk(2, 2)),
    "whole numbers": lambda: (torch.arange(6).cumsum(0), torch.arange(6).sum(), NUMBERS.argmax()),
    "places": lambda: (NUMBERS.sort(), NUMBERS.topk(2), NUMBERS.max(1), NUMBERS.nonzero()),
    "mixed dtypes": lambda: (torch.arange(4) / 2, torch.arange(4) * 0.5, NUMBERS.double() + 1),
    "truths": lambda: (NUMBERS > 0, NUMBERS.bool().any(), NUMBERS[NUMBERS > 0]),
    "numbers": lambda: [NUMBERS.sum().to(dtype).item() for dtype in (torch.double, torch.half)],
    "no number": lambda: torch.tensor(math.nan, dtype=torch.float64).item(),
    "complex": lambda: (torch.view_as_real(NUMBERS.cfloat()), NUMBERS.cfloat().sum().item()),
    "a normalisation": lambda: trained(nn.BatchNorm1d(3), NUMBERS),
    "a recurrent net": lambda: trained(nn.LSTM(4, 5), NUMBERS),
    "a convolution": lambda: trained(nn.Conv1d(3, 2, 2), NUMBERS),
    "pooling": lambda: F.max_pool1d(NUMBERS, 2),
    "dropout": lambda: F.dropout(NUMBERS, 0.5),
    "sparse gradients": lambda: trained(nn.Embedding(9, 2, sparse=True), torch.arange(3)),
    "written in place": lambda: torch.zeros(3).add_(1).relu_().copy_(torch.ones(3)),
    "drawn": lambda: (torch.rand(3), torch.randperm(4), torch.bernoulli(NUMBERS.abs() / 2)),
}  # fmt: skip


@pytest.mark.parametrize("compute", SOUND.values(), ids=SOUND.keys())
def test_sound_calls_do_what_their_kernels_declare(compute: Callable[[], object]) -> None:
    assert undeclared(compute) == {}


def test_a_view_that_copies_is_named(planted: Callable[..., None]) -> None:
    planted("view", lambda kernel, *given: kernel(*given).clone())
    said = undeclared(lambda: NUMBERS.view(24))
    assert said == {
        "aten::view": "aten::view gives a copy where it declares a view of what it is given, "
        "in a test"
    }


def test_whole_numbers_that_become_floating_point_are_named(planted: Callable[..., None]) -> None:
    planted("cumsum", lambda kernel, *given, **named: kernel(*given, **named).float())
    said = undeclared(lambda: torch.arange(3).cumsum(0))
    assert said == {"aten::cumsum": "aten::cumsum gives float32 where it declares int64, in a test"}


def test_a_kernel_that_writes_to_what_it_reads_is_named(planted: Callable[..., None]) -> None:
    def wrong(kernel: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        made = kernel(x)
        x.zero_()
        return made

    planted("tanh", wrong)
    said = undeclared(lambda: torch.ones(3).tanh())
    assert said["aten::tanh"].startswith("aten::tanh changes what it is given")


def test_a_number_that_changes_on_its_way_out_of_torch_is_named(
    planted: Callable[..., None],
) -> None:
    planted("_local_scalar_dense", lambda kernel, x: kernel(x) + 1e-6)
    said = undeclared(lambda: torch.tensor(0.5, dtype=torch.float64).item())
    assert said["aten::_local_scalar_dense"].startswith(
        "aten::_local_scalar_dense gives 0.500001 for the float64 number 0.5"
    )


def test_what_was_named_once_is_named_by_every_judge(planted: Callable[..., None]) -> None:
    planted("view", lambda kernel, *given: kernel(*given).clone())
    for _ in range(2 * kernel_judge.LOOKED_AT):
        assert undeclared(lambda: NUMBERS.view(24))


@pytest.mark.usefixtures("planted")
def test_a_conversion_is_to_the_nearest_number() -> None:
    x = torch.rand(100)
    with KernelJudge() as sound:
        x.to(torch.bfloat16), x.double().to(torch.bfloat16), x.double().to(torch.half)
    torch_faults.conversion_truncates()
    with KernelJudge() as judge:
        x.to(torch.bfloat16)
    assert not sound.beyond
    assert judge.worst["aten::_to_copy"] > 1
