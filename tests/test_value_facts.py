"""What exact values are computed by: a value that tests nothing is seen, though it is right."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from refimpl import Erratum, Exact
from refimpl.loading.registry import load
from refimpl.records import files, of_values

SEED = torch.Generator().manual_seed(0)
DRAWN = torch.rand(3, 3, generator=SEED)


def of(compute, seeds=of_values.SEEDS):
    return of_values.of_value(Exact("the value", compute, True), seeds)


def moved(now, before):
    """What the check says of a value that is computed so, where it was recorded as before."""
    return of_values.difference(of(now, (0,)), of(before))


def descended(x):
    x = torch.tensor(x, requires_grad=True)
    for _ in range(30):
        (gradient,) = torch.autograd.grad((x - 1) ** 2, x)
        x = (x - 0.5 * gradient).detach().requires_grad_()
    return round(x.item(), 3)


def predicted(layer, rows):
    return list(layer(rows).shape) == [4, 1]


def shared_sum(after):
    array = np.zeros(3)
    if after:
        shared = torch.from_numpy(array)
        array += 1
    else:
        array += 1
        shared = torch.from_numpy(array)
    return shared.sum().item()


EMPTY = {
    "another function": (
        lambda: torch.equal(DRAWN.T, DRAWN.transpose(0, 1)),
        lambda: torch.allclose(DRAWN.T, DRAWN.transpose(0, 1)),
        "its 3. call is torch.allclose, recorded torch.equal",
    ),
    "compared with itself": (
        lambda: torch.equal(torch.svd(DRAWN).S, torch.linalg.svdvals(DRAWN)),
        lambda: torch.equal(torch.linalg.svdvals(DRAWN), torch.linalg.svdvals(DRAWN)),
        "its 1. call is torch.linalg.svdvals, recorded torch.svd",
    ),
    "compared by its shape only": (
        lambda: torch.equal(DRAWN + DRAWN, 2 * DRAWN),
        lambda: (DRAWN + DRAWN).shape == (2 * DRAWN).shape,
        "shape",
    ),
    "the minimum was the start": (
        lambda: descended(0.0), lambda: descended(1.0), "is given 1.0, True, recorded 0.0, True",
    ),
    "on zeros only": (
        lambda: predicted(nn.Linear(3, 1), DRAWN.new_ones(4, 3)),
        lambda: predicted(nn.Linear(3, 1), DRAWN.new_zeros(4, 3)),
        "torch.Tensor.new_zeros, recorded torch.Tensor.new_ones",
    ),
    "other rows": (
        lambda: predicted(nn.Linear(3, 1), torch.full((4, 3), 0.5)),
        lambda: predicted(nn.Linear(3, 1), torch.full((4, 3), 0.25)),
        "torch.full is given 4, 3, 0.25, recorded 4, 3, 0.5",
    ),
    "an array of another order": (
        lambda: torch.from_numpy(np.arange(3.0)).sum().item(),
        lambda: torch.from_numpy(np.arange(3.0)[::-1].copy()).sum().item(),
        "torch.from_numpy is given (3,), 1.11111, recorded (3,), 1.55556",
    ),
    "an array that is changed before it is shared": (
        lambda: shared_sum(after=True), lambda: shared_sum(after=False),
        "torch.from_numpy is given (3,), 1.33333, recorded (3,), 0.0",
    ),
    "no workers beside no workers": (
        lambda: [len(DataLoader(DRAWN, num_workers=n)) for n in (0, 2)],
        lambda: [len(DataLoader(DRAWN, num_workers=n)) for n in (0, 0)],
        "DataLoader is given num_workers=0, recorded num_workers=2",
    ),
    "fewer steps": (
        lambda: sum(float(torch.tensor(n)) for n in range(80)),
        lambda: sum(float(torch.tensor(n)) for n in (*range(40), *range(70, 80))),
        "it makes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EMPTY)
def test_a_value_that_is_computed_otherwise_is_seen(name):
    before, now, said = EMPTY[name]
    assert said in moved(now, before)
    assert moved(before, before) == ""
    assert moved(now, now) == ""


def test_what_depends_on_a_seed_that_nobody_set_is_not_compared():
    assert moved(lambda: torch.rand(3).abs().shape, lambda: torch.rand(3).abs().shape) == ""


def test_numbers_that_another_machine_rounds_otherwise_are_the_same():
    assert moved(lambda: (DRAWN * (1 + 1e-5)).abs(), lambda: (DRAWN * 1.0).abs()) == ""


def test_an_index_is_seen_where_torch_shows_it_to_no_mode(monkeypatch):
    """So it is before torch 2.4; the record is the same as that of a torch which shows it."""

    def computed():
        return of(lambda: float(DRAWN[1][2] + DRAWN[0, 1]))

    before = computed()
    assert [call[0] for call in before["first"]].count("torch.Tensor.__getitem__") == 3
    monkeypatch.setattr(of_values, "shows_indexing", lambda: False)
    assert computed() == before
    assert torch.Tensor.__getitem__ is of_values.INDEXED


def test_an_operator_may_be_shown_by_the_name_of_its_method():
    assert moved(lambda: (DRAWN == 1).any(), lambda: DRAWN.eq(1).any()) == ""
    assert "recorded torch.Tensor.ne" in moved(lambda: DRAWN.eq(1), lambda: DRAWN.ne(1))


def test_a_number_that_other_kernels_move_is_not_kept(monkeypatch):
    """As after many updates, where rounding has grown."""
    enabled = torch.backends.mkldnn.enabled

    def grown():
        return (DRAWN * (1.0 if torch.backends.mkldnn.enabled == enabled else 1.001)).abs()

    kept = of_values.of_value(Exact("v", grown, True), of_values.SEEDS, other_kernels=True)
    assert kept["first"][-1] == ["torch.Tensor.abs", [3, 3], None]
    assert of(grown)["first"][-1][-1] is not None


def test_what_comes_after_dropout_is_not_kept():
    """Versions of torch draw its mask differently from the same seed."""
    layers = nn.Sequential(nn.Dropout(0.5), nn.ReLU())

    def drawn():
        torch.manual_seed(7)
        return layers(DRAWN).sum()

    kept = of_values.of_value(Exact("v", drawn, True), of_values.SEEDS, other_kernels=True)
    sizes = {call[0]: call[-1] for call in kept["first"]}
    assert sizes["Sequential"] is not None
    assert sizes["torch.Tensor.sum"] is None


def test_a_call_in_a_traced_graph_is_kept_by_its_name():
    def traced():
        return torch.jit.trace(nn.Conv2d(3, 2, 3), torch.zeros(1, 3, 8, 8)).graph is not None

    assert moved(traced, traced) == ""


def test_what_torch_calls_inside_is_not_kept():
    names = [call[0] for call in of(lambda: nn.Linear(3, 1)(DRAWN))["first"]]
    assert names == ["Linear"]


def test_a_function_that_was_put_in_the_place_of_torchs_hides_no_call(monkeypatch):
    def computed():
        return of(lambda: bool(torch.tensor([1.0, 2.0]).to(torch.float64).sum() > 0))

    before = computed()
    put = {"__name__": "sitecustomize", "tensor_of": torch.tensor, "to": torch.Tensor.to}
    exec("def tensor(*a, **k): return tensor_of(*a, **k)\ndef moved(*a): return to(*a)", put)
    of_values._put_in_place.cache_clear()
    monkeypatch.setattr(torch, "tensor", put["tensor"])
    monkeypatch.setattr(torch.Tensor, "to", put["moved"])
    after = computed()
    of_values._put_in_place.cache_clear()
    assert after == before
    assert after["first"][0][0] == "torch.tensor"


def test_who_computed_first_does_not_matter():
    made = []

    def cached():
        if not made:
            made.append(torch.ones(3))
        return made[0].sum()

    assert of(cached) == of(cached)


def test_where_a_statement_ends_otherwise_by_version_nothing_is_compared():
    gone = Erratum("e", "s", "t", "torch>=2", lambda: torch.no_such_function(3), (AttributeError,))
    there = Erratum("e", "s", "t", "torch>=2", lambda: torch.ones(3), (AttributeError,))
    found, recorded = of_values.of_value(gone), of_values.of_value(there, of_values.SEEDS)
    assert (found["ends"], recorded["ends"]) == ("AttributeError", "value")
    assert of_values.difference(found, recorded) == ""


def test_every_value_of_ours_is_recorded():
    for name, registered in load().examples.items():
        example = registered.value
        recorded = files.read(files.path_of("values", name, example)).records
        assert [key for key, _ in of_values.possible(example) if key not in recorded] == []


def test_a_layer_that_is_made_otherwise_and_never_called_is_seen():
    def kind(rate):
        return type(nn.Dropout(rate)).__name__

    assert moved(lambda: kind(0.1), lambda: kind(0.1)) == ""
    assert moved(lambda: kind(0.2), lambda: kind(0.1)) == (
        "it makes Dropout(p=0.2), recorded Dropout(p=0.1)"
    )
