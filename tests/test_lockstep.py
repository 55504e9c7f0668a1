"""Two runs side by side: they agree, or the first tensor in which they part is named."""

from itertools import islice

import pytest
import torch
from fakes.sound import MODULE, SCRATCH, like
from torch.nn import functional as F

from refimpl import Step
from refimpl.errors import ContractError
from refimpl.parity.lockstep import Comparison, Draws, compare_in_ladder, compare_steps
from refimpl.training.loop import steps_of
from refimpl.training.problem import pose
from refimpl.training.trajectories import Observation, observe

PRECISIONS = pytest.mark.parametrize("precision", ["float64", "float32"])
REFERENCE = like("scratch")


def by_hand(problem, *, sign=1.0, zero=True, before_yield=lambda n, w, b: None, show=dict):
    """The reference's loop with places to plant a mistake in.

    ``before_yield(n, weights, bias)`` is called after update n; ``show`` makes of the parameters
    what is yielded of them.
    """
    weights, bias = problem.start["weights"], problem.start["bias"]
    for number, (xb, yb) in enumerate(problem.batches(), start=1):
        loss = F.mse_loss(xb @ weights + bias, yb)
        loss.backward()
        with torch.no_grad():
            weights -= problem.lr * weights.grad
            bias -= sign * problem.lr * bias.grad
            before_yield(number, weights, bias)
        yield Step(loss, show(weights=weights, bias=bias))
        if zero:
            weights.grad = bias.grad = None


def planted(**mistake):
    """The reference with a mistake."""
    return like("scratch", name="planted", steps=lambda problem: by_hand(problem, **mistake))


def compared(candidate, precision="float64", steps=10, reference=REFERENCE):
    return compare_in_ladder(reference, candidate, "stand-in", steps, precision)


# --- references in reserve ------------------------------------------------------------------------


def run_off_by(*errors: float) -> list[list[Observation]]:
    """Steps whose loss, 1 without rounding, is off by so much."""
    return [
        [Observation("loss", "", torch.tensor(1 + error, dtype=torch.float64))] for error in errors
    ]


def held_against(candidate: list[list[Observation]], reserve) -> Comparison:
    exact, lucky = run_off_by(0, 0, 0), run_off_by(0, 0, 0)
    return compare_steps(
        Comparison("candidate", "oracle", "float32"),
        candidate,
        exact,
        Draws([lucky]),
        torch.float32,
        reserve=reserve,
    )


def test_a_lucky_reference_gives_no_alarm_where_one_in_reserve_comes_as_far():
    candidate = run_off_by(0, 1e-4, 1e-4)
    assert not held_against(candidate, []).agrees
    comparison = held_against(candidate, [run_off_by(0, 0, 0), run_off_by(0, 3e-5, 0)])
    assert comparison.agrees
    assert comparison.steps == 3


def test_a_reference_in_reserve_counts_for_the_steps_before_and_the_steps_after():
    reserve = [run_off_by(3e-5, 0, 6e-5)]
    assert held_against(run_off_by(0, 1e-4, 2e-4), reserve).agrees
    assert held_against(run_off_by(0, 1e-4, 3e-4), reserve).divergence.step == 3


def test_what_lies_beyond_every_reference_in_reserve_diverges():
    found = held_against(run_off_by(0, 1e-3, 0), [run_off_by(0, 3e-5, 0)] * 3).divergence
    assert (found.step, found.kind) == (2, "loss")
    assert found.closeness.error_ratio == pytest.approx(1e-3 / (4 * 3e-5 + 16 * 2**-23), rel=1e-6)


def test_references_in_reserve_are_made_only_as_far_as_they_are_needed():
    made = []

    def reserve():
        for error in (0, 3e-5, 3e-5):
            made.append(error)
            yield run_off_by(error, error, error)

    assert held_against(run_off_by(0, 0, 1e-6), reserve()).agrees
    assert made == []
    assert held_against(run_off_by(0, 1e-4, 1e-4), reserve()).agrees
    assert made == [0, 3e-5]


def test_a_reference_in_reserve_that_ends_early_is_refused():
    with pytest.raises(ContractError, match="the same number of steps"):
        held_against(run_off_by(1e-4, 0, 0), [run_off_by(1e-4)])


# --- agreement -----------------------------------------------------------------------------------


def rewritten(compute):
    """The reference's loop with its output computed in another way."""

    def steps(problem):
        weights, bias = problem.start["weights"], problem.start["bias"]
        for xb, yb in problem.batches():
            loss = F.mse_loss(compute(xb, weights, bias), yb)
            loss.backward()
            with torch.no_grad():
                for parameter in (weights, bias):
                    parameter -= problem.lr * parameter.grad
            yield Step(loss, {"weights": weights, "bias": bias})
            weights.grad = bias.grad = None

    return like("scratch", name="rewritten", steps=steps)


@PRECISIONS
@pytest.mark.parametrize(
    "compute",
    [
        lambda x, w, b: torch.einsum("ni,ij->nj", x, w) + b,
        lambda x, w, b: F.linear(x, w.T, b),
        lambda x, w, b: (x.unsqueeze(2) * w).sum(1) + b,
        lambda x, w, b: torch.baddbmm(b, x.unsqueeze(0), w.unsqueeze(0))[0],
    ],
    ids=["einsum", "F.linear", "by elements", "baddbmm"],
)
def test_a_rewrite_that_computes_the_same_agrees(compute, precision):
    assert compared(rewritten(compute), precision).agrees


@PRECISIONS
@pytest.mark.parametrize("candidate", [planted(), like("module")], ids=lambda v: v.name)
def test_the_same_computation_agrees(candidate, precision):
    comparison = compared(candidate, precision)
    assert comparison.agrees
    assert comparison.steps == len(comparison.ratios) == 10
    assert 0 <= comparison.worst_ratio <= 1
    head = f"{candidate.name} against scratch in {precision} agrees over 10 steps (worst error "
    assert str(comparison).startswith(head)


def test_a_candidate_of_one_ladder_starts_where_the_reference_starts():
    other_start = like("scratch", start=lambda rng: {"weights": rng.random((2, 1)), "bias": 0.5})
    assert other_start.start is not REFERENCE.start
    assert compared(like("module"), reference=REFERENCE).agrees


def test_a_run_is_compared_no_further_than_it_was_asked():
    late = planted(before_yield=lambda n, w, b: w.mul_(2.0 if n == 4 else 1.0))
    assert compared(late, steps=3).agrees
    assert not compared(late, steps=4).agrees


def test_where_neither_makes_a_step_nothing_agrees():
    silent = like("scratch", name="silent", steps=lambda problem: iter(()))
    comparison = compared(silent, reference=silent)
    assert not comparison.agrees
    assert "nothing was compared" in str(comparison)


# --- divergence ----------------------------------------------------------------------------------


@PRECISIONS
def test_a_sign_error_in_an_update_is_seen_at_step_1_in_that_parameter(precision):
    comparison = compared(planted(sign=-1.0), precision)
    divergence = comparison.divergence
    assert (divergence.step, divergence.kind, divergence.name) == (1, "parameter", "bias")
    assert divergence.closeness.error_ratio > 1
    assert divergence.closeness.found != divergence.closeness.expected
    assert f"planted against scratch in {precision} diverges at step 1, parameter bias" in str(
        comparison
    )


@PRECISIONS
def test_gradients_that_are_not_zeroed_are_seen_at_step_2_as_a_gradient(precision):
    divergence = compared(planted(zero=False), precision).divergence
    assert (divergence.step, divergence.kind) == (2, "gradient")


@PRECISIONS
def test_a_weight_perturbed_in_update_3_is_seen_there_by_name_and_index(precision):
    def perturb(number, weights, bias):
        if number == 3:
            weights[1] *= 1 + 1e-4

    divergence = compared(planted(before_yield=perturb), precision).divergence
    assert (divergence.step, divergence.kind, divergence.name) == (3, "parameter", "weights")
    assert divergence.closeness.index == (1, 0)
    assert "step 3, parameter weights[1, 0]: found" in str(divergence)


@PRECISIONS
def test_a_weight_perturbed_after_step_3_is_seen_in_the_loss_of_step_4(precision):
    def steps(problem):
        for number, step in enumerate(by_hand(problem), start=1):
            yield step
            if number == 3:
                with torch.no_grad():
                    step.parameters["weights"] *= 1 + 1e-4

    divergence = compared(like("scratch", name="planted", steps=steps), precision).divergence
    assert (divergence.step, divergence.kind, divergence.name) == (4, "loss", "")
    assert str(divergence).startswith("step 4, loss: found")


def test_growth_has_the_worst_ratio_of_every_step_up_to_the_one_that_parts():
    def drift(number, weights, bias):
        if number == 3:
            bias.add_(1e-3)

    comparison = compared(planted(before_yield=drift))
    assert len(comparison.divergence.growth) == 3
    assert max(comparison.divergence.growth[:2]) <= 1
    assert comparison.divergence.growth[-1] == comparison.worst_ratio > 1


@PRECISIONS
def test_a_loss_that_becomes_nan_is_no_agreement(precision):
    spoil = planted(before_yield=lambda n, w, b: b.fill_(float("nan")) if n == 2 else None)
    divergence = compared(spoil, precision).divergence
    assert (divergence.step, divergence.kind, divergence.name) == (2, "parameter", "bias")


def test_float64_sees_what_float32_cannot():
    candidate = planted(before_yield=lambda n, w, b: w.mul_(1 + 1e-10))
    assert compared(candidate, "float32").agrees
    assert compared(candidate, "float64").divergence.step == 1


def test_float32_sees_a_computation_that_is_coarser_than_float32():
    def coarser(number, weights, bias):
        if weights.dtype == torch.float32:
            weights.copy_(weights.bfloat16())

    candidate = planted(before_yield=coarser)
    assert compared(candidate, "float64").agrees
    assert compared(candidate, "float32").divergence.name == "weights"


def losses(*values):
    """Steps of which nothing but their losses is seen."""
    return [[Observation("loss", "", torch.tensor(value, dtype=torch.float64))] for value in values]


def test_a_reference_that_is_right_by_luck_does_not_narrow_the_budget_of_the_steps_that_follow():
    comparison = Comparison("candidate", "oracle", "float32")
    oracle, reference, candidate = losses(1.0, 1.0), losses(1.01, 1.0), losses(1.01, 1.02)
    assert compare_steps(comparison, candidate, oracle, Draws([reference]), torch.float32).agrees
    assert comparison.ratios == pytest.approx([0.25, 0.5], rel=1e-3)


def test_of_several_references_the_one_that_is_furthest_off_sets_the_budget():
    comparison = Comparison("candidate", "oracle", "float32")
    references = [losses(1.001), losses(0.99)]
    compare_steps(comparison, losses(1.02), losses(1.0), Draws(references), torch.float32)
    assert comparison.worst_ratio == pytest.approx(0.5, rel=1e-3)


# --- ladders of gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["reference", "candidate"])
def test_a_ladder_of_gradients_compares_the_first_loss_and_gradients_alone(which):
    other_update = planted(sign=-1.0)
    first, second = REFERENCE, other_update
    if which == "reference":
        first = like("scratch", ladder_depth="gradients")
    else:
        second = like("scratch", steps=other_update.steps, ladder_depth="gradients")
    comparison = compared(second, reference=first)
    assert comparison.agrees
    assert comparison.steps == 1


def test_a_ladder_of_gradients_still_sees_a_wrong_gradient():
    def doubled(problem):
        for step in by_hand(problem):
            step.parameters["bias"].grad *= 2
            yield step

    candidate = like("scratch", steps=doubled, ladder_depth="gradients")
    divergence = compared(candidate).divergence
    assert (divergence.step, divergence.kind, divergence.name) == (1, "gradient", "bias")


# --- what cannot be compared ---------------------------------------------------------------------


def test_a_parameter_that_is_not_shown_is_asked_of_its_variant():
    candidate = planted(show=lambda weights, bias: {"weights": weights})
    said = r"step 1: planted shows no gradient bias to compare with scratch \(it shows weights\)"
    with pytest.raises(ContractError, match=said):
        compared(candidate)


def test_a_parameter_under_a_name_that_is_not_mapped_is_asked_of_its_variant():
    candidate = planted(show=lambda weights, bias: {"weights": weights, "b": bias})
    with pytest.raises(ContractError, match=r"it shows b, weights\).*names="):
        compared(candidate)


def test_a_gradient_that_is_gone_before_it_is_seen_is_asked_of_its_variant():
    def zeroed(problem):
        for step in by_hand(problem):
            for parameter in step.parameters.values():
                parameter.grad = None
            yield step

    with pytest.raises(ContractError, match="planted shows no gradient bias"):
        compared(like("scratch", name="planted", steps=zeroed))


def test_a_parameter_of_another_shape_is_refused_with_both_shapes():
    def seen(shape):
        return [[Observation("parameter", "weights", torch.zeros(shape))]]

    comparison = Comparison("planted", "scratch", "float64")
    said = r"step 1: planted has parameter weights of shape \(3, 2\) where scratch has \(2, 3\)"
    with pytest.raises(ContractError, match=said):
        compare_steps(comparison, seen((3, 2)), seen((2, 3)), Draws([seen((2, 3))]), torch.float64)


@pytest.mark.parametrize(("made", "wanted"), [(5, 8), (0, 1)])
def test_a_run_that_stops_early_is_an_error_that_names_both(made, wanted):
    def short(problem):
        return islice(by_hand(problem), made)

    for first, second in ((REFERENCE, short), (short, REFERENCE)):
        first, second = (
            v if v is REFERENCE else like("scratch", name="short", steps=v) for v in (first, second)
        )
        said = f"do not make the same number of steps: one of them ends before step {made + 1}"
        with pytest.raises(ContractError, match=said) as raised:
            compared(second, steps=wanted, reference=first)
        assert "short" in str(raised.value)
        assert "scratch" in str(raised.value)


# --- what is seen of a step ----------------------------------------------------------------------


def test_a_step_is_seen_in_the_order_in_which_it_is_computed_under_its_ladders_names():
    step = next(steps_of(MODULE_LIKE, pose(MODULE_LIKE, seed=0)))
    assert [(s.kind, s.name) for s in observe(MODULE_LIKE, step)] == [
        ("output", ""),
        ("loss", ""),
        ("gradient", "bias"),
        ("gradient", "weights"),
        ("parameter", "bias"),
        ("parameter", "weights"),
    ]


MODULE_LIKE = like("module")


def test_what_was_seen_does_not_change_with_the_steps_that_follow():
    steps = steps_of(MODULE_LIKE, pose(MODULE_LIKE, seed=0, precision="float64"))
    first = next(steps)
    seen = {(s.kind, s.name): s.value for s in observe(MODULE_LIKE, first)}
    before = seen["parameter", "weights"].clone()
    next(steps)
    assert torch.equal(seen["parameter", "weights"], before)
    assert not torch.equal(first.parameters["lin.weight"].detach().double().T, before)


def test_gradients_that_autograd_did_not_make_are_seen_as_given():
    given = {"weights": torch.tensor([[3.0], [4.0]]), "bias": torch.tensor([5.0])}
    parameters = {"weights": torch.zeros(2, 1), "bias": torch.zeros(1)}
    seen = observe(REFERENCE, Step(1.5, parameters, gradients=given))
    assert [float(s.value.sum()) for s in seen] == [1.5, 5.0, 7.0, 0.0, 0.0]
    assert {s.value.dtype for s in seen} == {torch.float64}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_names_that_wrappers_give_are_those_of_what_they_wrap(prefix):
    parameters = {f"{prefix}lin.weight": torch.zeros(1, 2), f"{prefix}lin.bias": torch.zeros(1)}
    seen = observe(MODULE_LIKE, Step(0.0, parameters))
    assert {s.name for s in seen if s.kind == "parameter"} == {"weights", "bias"}


def test_the_fakes_are_a_ladder():
    assert SCRATCH.ladder == MODULE.ladder == "plane"
