"""What a value's own code calls, and whether the value depends on it."""

import pytest
import torch
from torch import nn, tensor

from refimpl import Exact, Failure
from refimpl.records.called import called, depends

TALL = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
NUMBERS = torch.ones(2)


def test_two_functions_of_one_short_name_are_told_apart():
    value = Exact(
        "singular values",
        lambda: torch.equal(torch.svd(tensor(TALL))[1], torch.linalg.svd(tensor(TALL))[1]),
        True,
    )
    assert {"svd", "torch.svd", "linalg.svd"} <= called(value).of_torch
    assert depends(value, "torch.svd")
    assert not depends(value, "svd")


@pytest.mark.parametrize(
    ("compute", "name"),
    [
        (lambda: torch.mm(tensor(TALL), torch.eye(2)), "mm"),
        (lambda: tensor(TALL)[0], "getitem"),
        (lambda: nn.Softmax(dim=1)(tensor(TALL)), "Softmax"),
        (lambda: torch.zeros(3).add_(1), "add_"),
        (lambda: NUMBERS.detach().is_leaf, "detach"),
        (lambda: type(tensor(1.0).item()).__name__, "item"),
        (lambda: tuple(nn.GRU(3, 4)(torch.zeros(7, 2, 3))[1].shape), "GRU"),
    ],
)
def test_a_value_depends_on_what_it_is_computed_by(compute, name):
    assert name in called(Exact(name, compute, None)).of_torch
    assert depends(Exact(name, compute, None), name)


@pytest.mark.parametrize(
    ("compute", "name"),
    [
        (lambda: torch.equal(tensor(TALL).t(), tensor(TALL).t()), "t"),
        (lambda: nn.Softmax(dim=1)(tensor(TALL)) is None, "Softmax"),
    ],
)
def test_a_value_compared_with_itself_depends_on_nothing(compute, name):
    assert not depends(Exact(name, compute, None), name)


def test_a_constant_is_not_changed():
    assert depends(Exact("a constant", lambda: NUMBERS.float(), None), "float")
    assert NUMBERS.tolist() == [1.0, 1.0]


def test_a_failing_call_is_seen_and_a_failure_depends_on_what_is_called_next():
    adds = Failure("lengths", lambda: torch.zeros(2, 3) + torch.zeros(2), RuntimeError)
    assert "add" in called(adds).of_torch
    assert depends(adds, "add")
    assert depends(adds, "zeros")
