"""Executions are compared with a float64 oracle; planted faults are found and located."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from statistics import median

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from refimpl import Execution, ModuleVariant, Step, Variant
from refimpl.executions.built_in import refimpl_executions
from refimpl.executions.distributed import DistributedError, distributed_steps
from refimpl.loading import registry
from refimpl.parity import against_oracle, lockstep, narrow
from refimpl.parity.against_oracle import (
    compare_execution,
    shard_gradients,
    wrapped_calls,
    yardstick,
)
from refimpl.parity.lockstep import FURTHER
from refimpl.parity.rounding import NOISE, Rounded, drawn, moved
from refimpl.parity.ties import Kinked, near_ties, nearest_ties
from refimpl.training import fast_kernels
from refimpl.training.loop import written_steps
from refimpl.training.problem import pose
from refimpl.training.trajectories import Observation

STEPS = 6
ON_A_DEVICE = Execution("device", "a device of a vendor's")


@pytest.fixture(scope="module")
def titanic() -> Variant:
    return registry.load(only=["titanic-dnn"]).example("titanic-dnn").variant("script")


def execution(name: str) -> Execution:
    return next(e for e in refimpl_executions() if e.name == name)


def test_the_cpu_agrees_with_its_own_oracle_mostly_within_half_the_budget(titanic: Variant) -> None:
    """Which seed takes more of it depends on the processor."""
    cpu = execution("cpu")
    seeds = [replace(titanic, seed=seed) for seed in range(5)]
    found = [compare_execution(variant, cpu, "stand-in", STEPS) for variant in seeds]
    assert all(each.agrees and each.steps == STEPS for each in found)
    assert all(each.worst_ratio > 0 for each in found)
    assert median(each.worst_ratio for each in found) < 0.5


@pytest.mark.parametrize(("name", "fault"), [("cpu", 1e-4), ("f64", 1e-11)])
def test_kernels_of_whole_runs_that_compute_something_else_are_found(
    titanic: Variant, monkeypatch: pytest.MonkeyPatch, name: str, fault: float
) -> None:
    def slower(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] *= 1 - fault

    monkeypatch.setattr(fast_kernels, "fuse", slower)
    found = compare_execution(titanic, execution(name), "stand-in", STEPS).divergence
    assert found is not None
    assert (found.step, found.kind) == (1, "parameter")


def test_each_step_of_a_narrow_precision_starts_from_the_oracles_parameters(
    titanic: Variant,
) -> None:
    comparison = compare_execution(titanic, execution("bf16"), "stand-in", STEPS)
    assert comparison.agrees, str(comparison)
    assert comparison.steps == narrow.STEPS


class Stale(torch.nn.Module):
    """A module that casts its weights to bfloat16 at its first call and keeps them."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.kept: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        own = dict(self.module.named_parameters())
        if not self.kept:
            self.kept = {name: value.detach().clone() for name, value in own.items()}
        stale = {name: value + (self.kept[name] - value).detach() for name, value in own.items()}
        with torch.autocast("cpu", torch.bfloat16):
            return torch.func.functional_call(self.module, stale, (x,)).float()


def test_weights_that_were_cast_once_and_kept_are_found(titanic: Variant) -> None:
    stale = Execution("stale", "weights of the first step", wrap=Stale, rounding="bfloat16")
    found = compare_execution(titanic, stale, "stand-in", STEPS).divergence
    assert found is not None
    assert found.step > 1


def test_an_update_that_a_narrow_precision_skips_is_found(
    titanic: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = count(1)

    @contextmanager
    def skipping_the_third() -> Iterator[None]:
        number = next(numbers)
        with monkeypatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
            if number == 3:
                patch.setattr(torch.optim.Adam, "step", lambda self: None)
            yield

    skipping = replace(execution("bf16"), around=skipping_the_third)
    comparison = compare_execution(titanic, skipping, "stand-in", STEPS)
    assert not comparison.agrees
    said = "skips an update: step 3: the update changes the parameters by"
    assert said in str(comparison)


@pytest.mark.parametrize("name", ["f64", "data-parallel", "ensemble"])
def test_sound_executions_agree(titanic: Variant, name: str) -> None:
    on_the_cpu = replace(execution(name), device="cpu")
    comparison = compare_execution(titanic, on_the_cpu, "stand-in", STEPS)
    assert comparison.agrees, str(comparison)
    assert comparison.steps == STEPS


def test_a_run_in_float32_is_not_taken_for_a_narrow_one(titanic: Variant) -> None:
    bf16 = execution("bf16")
    unchanged = replace(bf16, around=nullcontext)
    assert compare_execution(titanic, unchanged, "stand-in", 1).within_float32
    assert not compare_execution(titanic, bf16, "stand-in", 1).within_float32


def test_a_shard_shows_its_own_rows(titanic: Variant) -> None:
    def whole_batch(problem):
        yield from written_steps(titanic, problem.but(shard=(0, 1)))

    sound = shard_gradients(titanic, "stand-in", shards=3)
    assert sound.shown == sound.rows
    ignored = shard_gradients(replace(titanic, steps=whole_batch), "stand-in", shards=3)
    assert ignored.shown == (sum(sound.rows),) * 3


def test_two_gloo_processes_make_the_same_run(titanic: Variant) -> None:
    comparison = compare_execution(titanic, execution("ddp"), "stand-in", 3)
    assert comparison.agrees, str(comparison)
    assert comparison.steps == 3


@pytest.mark.parametrize("steps", [2, 20])
def test_a_batch_with_fewer_rows_than_processes_is_refused_before_one_waits_for_another(
    titanic: Variant, steps: int
) -> None:
    problem = pose(titanic, "stand-in", horizon=steps)
    one_left = replace(problem.protocol, batch_size=len(problem.train) - 1)
    uneven = problem.but(protocol=one_left)
    single = problem.but(protocol=replace(problem.protocol, batch_size=1), horizon=1)
    with pytest.raises(DistributedError, match="has 1 row, too few for 2 processes"):
        next(distributed_steps(titanic, uneven))
    with pytest.raises(DistributedError, match="has 1 row"):
        next(distributed_steps(titanic, single))


def test_a_weight_perturbed_after_step_3_is_found_in_step_3(titanic: Variant) -> None:
    def perturbed(problem):
        for number, step in enumerate(written_steps(titanic, problem), start=1):
            if number == 3 and problem.execution.name == "device":
                with torch.no_grad():
                    weight = step.parameters["linear2.weight"]
                    weight[weight.abs() == weight.abs().max()] *= 1 + 1e-4
            yield step

    faulty = replace(titanic, steps=perturbed)
    found = compare_execution(faulty, ON_A_DEVICE, "stand-in", STEPS).divergence
    assert found is not None
    assert (found.step, found.kind, found.name) == (3, "parameter", "linear2.weight")
    assert len(found.growth) == 3
    assert max(found.growth[:2]) < 1 < found.growth[2]


def test_a_gradient_scaled_by_a_thousandth_in_ddp_is_found_in_step_1(titanic: Variant) -> None:
    found = compare_execution(
        replace(titanic, steps=ScaledUnderDdp(titanic)), execution("ddp"), "stand-in", 2
    ).divergence
    assert found is not None
    assert (found.step, found.kind) == (1, "gradient")


class ScaledUnderDdp:
    """The variant's run, its first gradient a thousandth too large in a process of several."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant

    def __call__(self, problem):
        for step in written_steps(self.variant, problem):
            if problem.shard != (0, 1):
                next(iter(step.parameters.values())).grad.mul_(1.001)
            yield step


def halved(module: nn.Module) -> nn.Module:
    """As if a device halved the weights of the second layer."""
    with torch.no_grad():
        module.linear2.weight.mul_(0.5)
    return module


def without_bias(module: nn.Module) -> nn.Module:
    """As if a device's kernel left out the bias of the second layer."""
    layer = module.linear2
    layer.forward = lambda x: nn.functional.linear(x, layer.weight) + 0 * layer.bias
    return module


def ten_bit_product(module: nn.Module) -> nn.Module:
    """As if one product were made in TF32: ten bits of mantissa in its factors."""

    def rounded(x: torch.Tensor) -> torch.Tensor:
        bits = x.detach().contiguous().view(torch.int32)
        return x + ((bits + 0x1000) & ~0x1FFF).view(torch.float32) - x.detach()

    layer = module.linear2
    layer.forward = lambda x: nn.functional.linear(rounded(x), rounded(layer.weight), layer.bias)
    return module


@pytest.mark.parametrize("fault", [without_bias, ten_bit_product])
def test_a_fault_in_one_layer_is_found_in_step_1_inside_that_layer(titanic: Variant, fault) -> None:
    faulty = replace(ON_A_DEVICE, wrap=fault)
    found = compare_execution(titanic, faulty, "stand-in", STEPS).divergence
    assert found is not None
    assert (found.step, found.kind) == (1, "output")
    assert found.inside.startswith("activation of linear2")


def on_a_kink(problem):
    """Every unit of a ReLU lies on its kink, so that rounding decides whether it has a gradient."""
    x = problem.start["x"]
    on_a_device = problem.execution.name == "device"
    for _ in problem.batches():
        beyond = 2.0**-23 if on_a_device else 0.0
        loss = x.sum() + problem.lr * torch.relu(x - 1 + beyond).sum()
        loss.backward()
        yield Step(loss, {"x": x})
        x.grad = None


def near_tie(titanic: Variant, steps=on_a_kink) -> Variant:
    """A variant whose gradient is a thousandth larger on the other side of a kink."""
    return replace(
        titanic,
        steps=steps,
        start=lambda rng: {"x": np.ones(1)},
        protocol=replace(titanic.protocol, learning_rate=1e-3),
    )


def test_a_unit_on_its_kink_that_falls_to_the_other_side_is_agreement(titanic: Variant) -> None:
    comparison = compare_execution(near_tie(titanic), ON_A_DEVICE, "stand-in", STEPS)
    assert comparison.agrees, str(comparison)
    assert comparison.worst_ratio == pytest.approx(1 / 4, rel=0.01)


def test_a_near_tie_is_found_in_the_oracle_and_named_in_units_of_rounding(titanic: Variant) -> None:
    variant = near_tie(titanic)
    (tie,) = near_ties(variant, pose(variant, "stand-in", dropout=False), 1)
    assert str(tie) == "element [0] of relu 0 roundings from on the kink"


def test_a_near_tie_that_no_draw_decided_so_is_decided_so_and_named(
    titanic: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockstep, "FURTHER", 0)
    monkeypatch.setattr(against_oracle, "FIRST", 0)
    found = compare_execution(near_tie(titanic), ON_A_DEVICE, "stand-in", 1)
    assert found.agrees
    assert found.ties == ["step 1: element [0] of relu 0 roundings from on the kink"]


def test_a_fault_of_the_size_of_a_near_tie_that_is_none_is_found(titanic: Variant) -> None:
    def steeper(problem):
        x = problem.start["x"]
        for _ in problem.batches():
            loss = x.sum() * (1 + problem.lr * (problem.execution.name == "device"))
            loss.backward()
            yield Step(loss, {"x": x})
            x.grad = None

    found = compare_execution(near_tie(titanic, steeper), ON_A_DEVICE, "stand-in", STEPS).divergence
    assert found is not None
    assert (found.step, found.kind) == (1, "loss")


def test_what_is_not_finite_where_the_oracle_is_diverges_without_further_draws(
    titanic: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against_oracle, "drawn_in_reserve", lambda *given: iter([None]))
    faulty = replace(titanic, steps=not_finite_on_a_device(titanic))
    found = compare_execution(faulty, ON_A_DEVICE, "stand-in", 1).divergence
    assert found is not None
    assert (found.kind, found.closeness.error) == ("loss", np.inf)


def test_what_is_not_finite_past_the_horizon_diverges_too(titanic: Variant) -> None:
    def soon(problem):
        x = problem.start["x"]
        for number, _ in enumerate(problem.batches(), start=1):
            with torch.no_grad():
                x.copy_(3.9 * x * (1 - x))
            nan = number == 30 and problem.execution.name == "device"
            yield Step(x.sum() * (float("nan") if nan else 1), {"x": x})

    wild = replace(titanic, steps=soon, start=lambda rng: {"x": rng.uniform(0.3, 0.4, (1,))})
    assert yardstick(wild, "stand-in", 40).horizon < 30
    found = compare_execution(wild, ON_A_DEVICE, "stand-in", 40).divergence
    assert found is not None
    assert (found.step, found.kind) == (30, "loss")


def not_finite_on_a_device(variant: Variant):
    """The variant's steps, whose loss is NaN on a device."""

    def steps(problem):
        for step in written_steps(variant, problem):
            nan = problem.execution.name == "device"
            yield replace(step, loss=step.loss * float("nan") if nan else step.loss)

    return steps


def test_further_draws_are_made_only_for_a_candidate_that_is_out_of_budget(
    titanic: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(variant, problem, number, *given):
        made.append(number)
        return drawn(variant, problem, number, *given)

    monkeypatch.setattr(lockstep, "drawn", counted)
    assert compare_execution(titanic, execution("cpu"), "stand-in", STEPS).agrees
    assert made == []
    assert not compare_execution(titanic, replace(ON_A_DEVICE, wrap=halved), "stand-in", 1).agrees
    assert len(made) == FURTHER


@pytest.mark.parametrize("factor", [1.01, 1.1])
def test_a_build_whose_float32_products_are_all_too_large_has_no_budget_for_it(
    titanic: Variant, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    linear = nn.functional.linear

    def too_large(x, weight, bias=None):
        out = linear(x, weight, bias)
        return out * factor if out.dtype is torch.float32 else out

    monkeypatch.setattr(nn.functional, "linear", too_large)
    found = compare_execution(titanic, execution("cpu"), "stand-in", STEPS).divergence
    assert found is not None
    assert (found.step, found.kind) == (1, "output")


def test_equal_elements_fall_together_and_are_tried_before_single_ones() -> None:
    """What is computed of padding is the same in many places, and so is its rounding."""
    apart = torch.tensor([0.2, 0.5, 3.0, 0.5, -0.1, 0.5, 90.0], dtype=torch.float64)
    ties = nearest_ties(Kinked("relu", 1, apart), [Kinked("relu", 1, apart + 1)], 1)
    assert [tie.index for tie in ties] == [(1,), (4,), (0,), (2,)]
    assert "3 equal elements such as [1] of relu" in str(ties[0])
    moved = ties[0]._beyond("relu", (apart,))
    assert moved.tolist() == [0.2, -1.0, 3.0, -1.0, -0.1, -1.0, 90.0]


def test_pixels_that_are_equal_in_the_oracle_are_tried_last() -> None:
    apart = torch.tensor([[[0.0, 0.5, 0.0, 0.1]]], dtype=torch.float64)
    windows = torch.zeros(apart.shape, dtype=torch.int64)
    pool = Kinked("max_pool2d_with_indices", 1, apart, windows)
    ties = nearest_ties(pool, [replace(pool, apart=apart + 1)], 1)
    assert [tie.index[-1] for tie in ties] == [3, 1, 0, 2]


def test_draws_begin_half_a_unit_from_the_start_each_elsewhere(titanic: Variant) -> None:
    problem = pose(titanic, "stand-in", seed=0)
    starts = [moved(problem.values, torch.float32, n)["linear1.weight"] for n in range(8)]
    assert len({start.tobytes() for start in starts}) == 8
    relative = starts[0] / problem.values["linear1.weight"] - 1
    assert np.allclose(np.abs(relative), 2.0**-24, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor(2.0, dtype=torch.float64),
        torch.linspace(1, 2, 60, dtype=torch.float64).view(3, 4, 5).transpose(0, 2),
        torch.linspace(1, 2, 3 * NOISE - 1, dtype=torch.float64),
        torch.linspace(1, 2, 3 * NOISE - 512, dtype=torch.float64).view(512, -1).T,
    ],
    ids=["a number", "transposed", "longer than the noise", "longer and transposed"],
)
def test_a_draw_moves_every_result_by_less_than_half_a_unit_and_each_otherwise(
    values: Tensor,
) -> None:
    for number in range(20):
        with Rounded(number):
            found = values * 1.0
        apart = (found / values - 1) * 2.0**24
        assert apart.shape == values.shape
        assert (apart.abs() <= 1.0 + 1e-6).all()
        assert values.numel() < 9 or 0.5 < apart.std() < 0.65  # evenly between −1 and 1: 0.58


def test_a_draw_moves_the_entries_of_a_sparse_gradient() -> None:
    entries = torch.tensor([[0, 2, 2]]), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    gradient = torch.sparse_coo_tensor(*entries, (4,), check_invariants=True)
    with Rounded(0):
        found = (gradient * 1.0).to_dense()
    assert found.tolist() == pytest.approx([1.0, 0.0, 5.0, 0.0], rel=2.0**-22)
    assert found.tolist() != [1.0, 0.0, 5.0, 0.0]


def test_a_draw_of_a_long_sum_knows_how_many_terms_it_has() -> None:
    """Term by term, a sum of n terms of one sign is off by about √(n/3) half units."""
    ones = torch.ones(40_000, dtype=torch.float64)
    errors = []
    for number in range(8):
        with Rounded(number):
            errors.append(abs(float((ones * 1.0).sum()) / 40_000 - 1))
    half_unit = 2.0**-24
    assert 20 * half_unit < max(errors) < 400 * half_unit


def test_a_comparison_whose_budget_is_over_a_tenth_of_the_values_shows_nothing() -> None:
    def steps(*values):
        return [[Observation("loss", "", torch.tensor(v, dtype=torch.float64))] for v in values]

    compared = lockstep.compare_steps(
        lockstep.Comparison("candidate", "oracle", "float32"),
        steps(1.05),
        steps(1.0),
        lockstep.Draws([steps(1.1)]),
        torch.float32,
    )
    assert not compared.agrees
    assert compared.divergence is None
    assert "more than a tenth of its value, so nothing was compared" in str(compared)
    assert compared.shows_nothing


def test_wrapped_calls_tell_whether_a_wrapper_was_ever_used(titanic: Variant) -> None:
    with wrapped_calls(replace(ON_A_DEVICE, wrap=lambda module: module)) as (used, calls):
        compare_execution(titanic, used, "stand-in", 1)
    assert calls == ["Net"]


def test_the_horizon_of_a_calm_run_is_its_whole_length(titanic: Variant) -> None:
    assert yardstick(titanic, "stand-in", STEPS).horizon == STEPS


def test_the_horizon_of_a_chaotic_run_ends_where_rounding_has_grown_a_thousandfold(
    titanic: Variant,
) -> None:
    def logistic_map(problem):
        x = problem.start["x"]
        for _ in problem.batches():
            with torch.no_grad():
                x.copy_(3.9 * x * (1 - x))
            yield Step(x.sum(), {"x": x})

    wild = replace(
        titanic, steps=logistic_map, start=lambda rng: {"x": rng.uniform(0.3, 0.4, (1,))}
    )
    # Its Lyapunov exponent is about 0.5, so rounding grows a thousandfold in some fourteen steps.
    assert 5 < yardstick(wild, "stand-in", 40).horizon < 30


def gradient_ratio(variant: Variant) -> float:
    split = shard_gradients(variant, "stand-in", shards=3)
    return max(
        float((a.value - b.value).abs().max() / a.value.abs().max())
        for a, b in zip(split.whole, split.mean, strict=True)
    )


def test_gradients_of_uneven_shards_make_that_of_the_batch(titanic: Variant) -> None:
    assert gradient_ratio(titanic) < 1e-12


def normalised(titanic: Variant) -> Variant:
    def build() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(15), nn.Linear(15, 1), nn.Sigmoid())

    return ModuleVariant(
        "normalised",
        build=build,
        optimizer=torch.optim.SGD,
        loss=nn.BCELoss(),
        protocol=titanic.protocol,
        data=titanic.data,
    )


def test_batch_statistics_are_not_data_parallel(titanic: Variant) -> None:
    assert gradient_ratio(normalised(titanic)) > 1e-3


def test_running_statistics_that_are_kept_in_another_way_are_found(titanic: Variant) -> None:
    def hurried(module: nn.Module) -> nn.Module:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.momentum = 0.1001
        return module

    variant = normalised(titanic)
    assert compare_execution(variant, ON_A_DEVICE, "stand-in", STEPS).agrees
    wrong = replace(ON_A_DEVICE, wrap=hurried)
    found = compare_execution(variant, wrong, "stand-in", STEPS).divergence
    assert found is not None
    assert (found.step, found.kind) == (1, "buffer")
    assert found.name in ("0.running_mean", "0.running_var")


def test_a_ranking_loss_is_not_data_parallel(titanic: Variant) -> None:
    def pairwise(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """One minus a smooth area under the ROC curve: every positive against every negative."""
        positive, negative = output[target > 0.5], output[target < 0.5]
        return torch.sigmoid(negative[None, :] - positive[:, None]).mean()

    ranked = ModuleVariant(
        "ranked",
        build=titanic.build,
        optimizer=torch.optim.SGD,
        loss=pairwise,
        protocol=replace(titanic.protocol, batch_size=64),
        data=titanic.data,
    )
    assert gradient_ratio(ranked) > 1e-3


def test_saving_from_under_data_parallel_loads_into_the_bare_net(titanic: Variant) -> None:
    wrapped = execution("data-parallel").wrap(titanic.build())
    bare = titanic.build()
    bare.load_state_dict(wrapped.module.state_dict())
    x = torch.linspace(-1, 1, 30).reshape(2, 15)
    assert torch.equal(wrapped(x), bare(x))
