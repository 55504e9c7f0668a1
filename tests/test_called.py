"""A value calls what its claim names, and depends on what that gives and on its own numbers."""

import io
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn, tensor
from torch.utils.data import DataLoader

from refimpl import Exact, Example, Failure
from refimpl.authoring.linting import lint
from refimpl.checking import claims
from refimpl.checking.checks import Subject
from refimpl.composition import CPU
from refimpl.conformance.checks import computed
from refimpl.records.called import called, idle_calls, unmoved
from refimpl.records.varied import shows_something

TALL = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
NUMBERS = torch.ones(2)
X = tensor([[1.0, 2.0], [3.0, 4.0]])
ROWS = [1.0, 2.0, 3.0]


def value(compute, digits=None):
    return Exact("the value", compute, True, digits=digits)


def depends(claim, name):
    return not unmoved(claim, [name], called(claim))


CALLED = {
    "a function": (lambda: torch.masked_fill(X, X > 2, 0.0), {"masked_fill", "gt"}),
    "a method": (lambda: X.masked_fill(X > 2, 0.0), {"masked_fill", "gt"}),
    "operators": (lambda: 2 * X @ X.T - 1, {"mul", "matmul", "T", "sub"}),
    "a reflected operator": (lambda: 1 - X, {"sub"}),
    "a layer": (lambda: nn.Linear(2, 3)(X).shape, {"Linear", "shape"}),
    "an optimizer": (lambda: torch.optim.SGD([X.clone().requires_grad_()], lr=0.1), {"SGD"}),
    "a typed constructor": (lambda: torch.IntTensor([1]).dtype, {"IntTensor", "dtype"}),
    "what NumPy gives": (lambda: torch.from_numpy(np.zeros(2)).sum(), {"from_numpy", "zeros"}),
    "a function chosen by a flag": (lambda: nn.functional.max_pool2d(X[None], 2), {"max_pool2d"}),
    "a function of its own module": (lambda: halved(X).sum(), {"halved", "div", "sum"}),
}


def halved(x):
    return x / 2


@pytest.mark.parametrize("case", CALLED)
def test_what_a_value_calls_is_seen_by_its_short_name(case):
    compute, names = CALLED[case]
    found = {"div" if name == "truediv" else name for name in called(value(compute)).names}
    assert names <= found


def test_what_torch_calls_inside_is_not_the_value_s_own():
    names = called(value(lambda: nn.BCELoss()(X / 5, X / 5))).names
    assert "BCELoss" in names
    assert "binary_cross_entropy" not in names


DEPENDS = {
    "on the numbers": (lambda: torch.cumsum(X, 0)[1, 1].item(), "cumsum", True),
    "on the type": (lambda: str(X.float().dtype), "float", True),
    "on the shape": (lambda: tuple(X.view(4).shape), "view", True),
    "on neither side of a comparison with itself": (
        lambda: torch.equal(torch.linalg.svdvals(X), torch.linalg.svdvals(X)), "svdvals", False,
    ),
    "on one side of a comparison": (
        lambda: torch.allclose(torch.svd(X).S, torch.linalg.svdvals(X)), "svdvals", True,
    ),
    "on what is thrown away": (lambda: (torch.cumsum(X, 0), 3)[1], "cumsum", False),
}  # fmt: skip


@pytest.mark.parametrize("case", DEPENDS)
def test_it_depends_only_on_functions_whose_results_decide_it(case):
    compute, name, expected = DEPENDS[case]
    assert depends(value(compute), name) is expected


def joined_until_long():
    rows = torch.ones(1)
    while rows.sum() < 10:
        rows = torch.cat([rows, torch.ones(1)])
    return len(rows)


COMPARED = [torch.ones(2), torch.ones(2), torch.ones(2)]


@pytest.mark.parametrize(
    ("compute", "idle"),
    [
        (lambda: all(torch.equal(own, COMPARED[0]) for own in COMPARED), 0),
        (lambda: any(torch.equal(own, COMPARED[0]) for own in COMPARED), 1),
        (lambda: [torch.equal(own, COMPARED[0]) for own in COMPARED], 0),
        (lambda: all(torch.allclose(own, X[0]) for own in X), 1),  # the other does not hold
        (lambda: (X == X).all() and True, 0),
        (lambda: X.sum().item(), 0),
    ],
)
def test_each_comparison_of_a_value_decides_it(compute, idle):
    assert len(idle_calls(value(compute), called(value(compute)))) == idle


def kept(what):
    """What torch.load gives of it, by way of memory."""
    file = io.BytesIO()
    torch.save(what, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


NET = nn.Linear(2, 1)


@pytest.mark.parametrize(
    ("compute", "idle"),
    [
        (lambda: torch.equal(kept(NET)(X), NET(X)), 0),
        (lambda: torch.equal(kept(NET.state_dict())["bias"], NET.bias), 0),
        (lambda: [*kept({"net": NET.state_dict(), "epoch": 3})], 0),
        (lambda: (NET.load_state_dict(kept(NET.state_dict())), NET.in_features)[1], 1),
        (lambda: (kept(NET), torch.equal(NET(X), NET(X)))[1], 1),
        (lambda: [torch.equal(other(X), NET(X)) for other in (kept(NET), kept(NET))], 0),
        (lambda: [torch.equal(other(X), NET(X)) for other in (kept(NET), kept(NET) and NET)], 1),
    ],
)
def test_whatever_a_value_loads_must_decide_it(compute, idle):
    assert len(idle_calls(value(compute), called(value(compute)))) == idle


def test_a_loop_that_would_not_end_with_other_numbers_is_stopped():
    claim = value(joined_until_long)
    assert unmoved(claim, ["sum", "ones"], called(claim)) == []


VARIED = {
    "a constant": (lambda: torch.clamp(X, max=2.0).sum().item(), None, True),
    "a number of the module": (lambda: sum(ROWS), None, True),
    "a number of a partial": (partial(sum, [1, 2]), None, True),
    "what a function gives": (lambda: torch.equal(X.T, X.transpose(0, 1)), None, True),
    "itself": (lambda: torch.equal(torch.linalg.svdvals(X), torch.linalg.svdvals(X)), None, False),
    "less than is printed": (lambda: 1.0 + 1e-9 * len(ROWS), 2, True),
    "a name": (lambda: nn.ReLU.__name__, None, False),
}


@pytest.mark.parametrize("case", VARIED)
def test_a_value_that_stays_the_same_whatever_is_changed_tests_nothing(case):
    compute, digits, expected = VARIED[case]
    assert shows_something(value(compute, digits)) is expected


def example(compute):
    return Example(name="sound", title="A value", document="d", section="1",
                   values=(Exact("the value", compute, True),))  # fmt: skip


def test_lint_names_a_value_that_tests_nothing():
    idle, sound = (lint(example(VARIED[case][0])) for case in ("itself", "what a function gives"))
    assert any("'the value' tests nothing" in advice.text for advice in idle.advice)
    assert not any("tests nothing" in advice.text for advice in sound.advice)


LEDGER = """
[[claim]]
section = "1"
says = "singular values are those of svd"
kind = "exact"
check = "exact-values"
what = "the value"
calls = ["svd", "svdvals"]
"""

PLUGIN = """
import torch
from refimpl import Exact, Example, hookimpl

X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

@hookimpl
def refimpl_examples():
    value = Exact("the value", lambda: {code}, True)
    return [Example(name="own", title="t", document="d", section="1", values=(value,))]
"""

SOUND = "torch.allclose(torch.svd(X).S, torch.linalg.svdvals(X))"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (SOUND, ""),
        (SOUND.replace("torch.svd(X).S", "torch.linalg.svdvals(X)"), "does not call svd and is"),
        ("(torch.svd(X), torch.linalg.svdvals(X)) is not None", "whatever svd, svdvals gives"),
    ],
)
def test_a_value_must_call_what_its_claim_names(tmp_path, code, says):
    from refimpl.loading.registry import load

    file = tmp_path / f"own_{abs(hash(code))}.py"
    file.write_text(PLUGIN.format(code=code))
    file.with_name(f"{file.stem}.claims.toml").write_text(LEDGER)
    own = load([str(file)], only=["own"]).example("own")
    [measured] = computed.values_call_what_they_claim.measure(Subject(own, None, CPU, "stand-in"))
    assert says in measured.message
    assert measured.holds == (not says)


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


def descended():
    x = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        ((x - 1) ** 2).sum().backward()
        optimizer.step()
    nn.Conv2d(8, 8, 3, groups=8)
    return x


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("SGD(lr=0.1) * 3", True),
        ("SGD(lr=0.1) * 2", False),
        ("SGD(lr=0.2) * 3", False),
        ("SGD(lr=0.1, momentum=0.9) * 3", False),
        ("Adam(lr=0.1) * 3", False),
        ("Conv2d(8, 8, 3, groups=8)", True),
        ("Conv2d(8, 8, 3)", False),
    ],
)
def test_a_claim_may_name_a_layer_s_arguments_and_an_optimizer_s_updates(text, made):
    assert called(value(descended)).made(text) is made


def viewed():
    t = torch.arange(12).view(3, 4)
    half = torch.masked_fill(tensor([0.5, 2.0]), tensor([False, True]), 0.1)
    DataLoader(TALL, 2, shuffle=True)
    return t.float().sum(dim=1, keepdim=True), t[1:, 2], half, tensor(1, dtype=torch.int8)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("arange(12)", True),
        ("arange(12.0)", False),
        ("view(..., 3, 4)", True),
        ("view(4, 3)", False),
        ("view((12,), 3)", True),
        ("view((13,), 3)", False),
        ("sum((3, 4), 1, True)", True),
        ("sum((3, 4), True, 1)", False),
        ("sum((3, 4), 0)", False),
        ("masked_fill([0.5, 2.0], [False, True], 0.1)", True),
        ("masked_fill([0.5, 2.5])", False),
        ("masked_fill([0.5, 2.0], [0, 1])", False),
        ("getitem(..., ['slice(1, None, None)', 2])", True),
        ("getitem(..., ['slice(1, None, None)', 3])", False),
        ("tensor(1, 'torch.int8')", True),
        ("tensor(1, 'torch.uint8')", False),
        ("tensor(True)", False),
        ("softmax(...)", False),
        ("DataLoader(batch_size=2, shuffle=True)", True),
        ("DataLoader(shuffle=True, batch_size=2, drop_last=False)", True),
        ("DataLoader(batch_size=2, shuffle=False)", False),
        ("DataLoader(batch_size=3)", False),
    ],
)
def test_a_claim_may_state_what_a_function_is_given(text, made):
    assert called(value(viewed), [text]).made(text) is made


@pytest.mark.parametrize("text", ["view(3,", "view(x)", "Linaer(3, 4)", "(3, 4)", "view(3) + 1"])
def test_a_stated_call_that_is_none_is_refused(text):
    assert [*claims._strange_calls([text])]
