"""Whoever drives a variant decides the rest: the loop, the figures, where to stop."""

import itertools
import math
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.sound import PROTOCOL, Net, like
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from refimpl import Epoch, Execution, ModuleVariant, Step, Stop
from refimpl.errors import ContractError
from refimpl.metrics import absolute_error, roc_auc
from refimpl.training import loop
from refimpl.training.loop import (
    History,
    drive,
    evaluate,
    few_parameters,
    mean_of,
    predictor,
    steps_of,
    train,
)
from refimpl.training.problem import pose

SCRATCH, MODULE = like("scratch"), like("module")
PER_EPOCH, EPOCHS = 3, PROTOCOL.epochs
STEPS = EPOCHS * PER_EPOCH


def trained(variant=MODULE, **protocol):
    changed = replace(variant, protocol=replace(PROTOCOL, **protocol))
    return train(changed, pose(changed, seed=0))


def by_steps(steps, **changes):
    """A variant that is trained by this generator."""
    return like("scratch", name="made", steps=steps, **changes)


# --- steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [SCRATCH, MODULE], ids=lambda v: v.name)
def test_at_a_step_the_update_is_made_and_its_gradients_still_stand(variant):
    problem = pose(variant, seed=0)
    before = problem.values
    for step in steps_of(variant, problem, 4):
        for name, parameter in step.parameters.items():
            expected = torch.tensor(before[name]).float() - problem.lr * parameter.grad
            assert torch.allclose(parameter.detach(), expected, atol=1e-7)
        before = {n: p.detach().numpy().copy() for n, p in step.parameters.items()}


def test_a_run_has_a_step_for_every_update_of_its_protocol():
    assert len(list(steps_of(MODULE, pose(MODULE)))) == STEPS


@pytest.mark.parametrize("count", [0, 1, 5])
def test_as_many_steps_are_made_as_are_asked_for_and_no_more(count):
    made = []

    def counted(problem):
        for step in SCRATCH.steps(problem):
            made.append(step)
            yield step

    variant = by_steps(counted)
    assert len(list(steps_of(variant, pose(variant), count))) == len(made) == count


def test_what_a_variant_measures_in_between_is_no_step():
    def measuring(problem):
        for step in SCRATCH.steps(problem):
            yield step
            yield Epoch({"val_loss": 1.0})

    variant = by_steps(measuring)
    driven = list(drive(variant, pose(variant)))
    assert sum(isinstance(item, Epoch) for item in driven) == STEPS
    assert all(isinstance(step, Step) for step in steps_of(variant, pose(variant)))


@pytest.mark.parametrize("lacking", ["build", "optimizer", "loss"])
def test_a_module_variant_that_lacks_a_part_says_which_parts_it_needs(lacking):
    variant = replace(MODULE, start=SCRATCH.start, **{lacking: None})
    with pytest.raises(ContractError, match="'module' needs build=, optimizer= and loss="):
        next(drive(variant, pose(variant)))


def test_an_execution_is_entered_around_every_step_and_left_between_them():
    log = []

    @contextmanager
    def around():
        log.append("in")
        yield
        log.append("out")

    problem = pose(MODULE, execution=Execution("logged", "", around=around))
    for _ in steps_of(MODULE, problem, 2):
        log.append("step")
    assert log == ["in", "out", "step", "in", "out", "step"]


def test_an_execution_that_has_steps_of_its_own_makes_them():
    mine = [Step(1.0, {}), Step(2.0, {})]
    execution = Execution("mine", "", steps=lambda variant, problem: iter(mine))
    assert list(drive(MODULE, pose(MODULE, execution=execution))) == mine


# --- the generator of dropout --------------------------------------------------------------------


class Dropping(Net):
    """Dropout before the layer."""

    def forward(self, x):
        return super().forward(F.dropout(x, 0.5, self.training))


DROPPING = like("module", build=Dropping)


def losses(variant=DROPPING, **changes):
    problem = pose(variant, seed=0).but(**changes)
    return [float(step.loss.detach()) for step in steps_of(variant, problem)]


def test_dropout_is_drawn_from_the_seed_of_the_problem_alone():
    torch.manual_seed(1)
    first = losses()
    torch.manual_seed(2)
    assert losses() == first
    assert losses(seed=1) != first


def test_dropout_is_drawn_anew_at_every_step():
    problem = pose(DROPPING, seed=0)
    problem = problem.but(protocol=replace(PROTOCOL, batch_size=None, learning_rate=1e-30))
    seen = [float(step.loss.detach()) for step in steps_of(DROPPING, problem)]
    assert len(set(seen)) == len(seen)


def test_torchs_generator_is_left_as_it_was_at_every_step_and_after_the_run():
    problem = pose(DROPPING, seed=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for _ in steps_of(DROPPING, problem):
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


class FailsAtLast(Dropping):
    """Draws at every step; cannot be measured in evaluation mode."""

    def forward(self, x):
        if not self.training:
            raise ValueError("not to be measured")
        return super().forward(x)


@pytest.mark.parametrize("build", [Dropping, FailsAtLast])
def test_torchs_generator_is_left_as_it_was_by_a_whole_run_even_if_that_fails(build):
    variant = replace(DROPPING, build=build)
    problem = pose(variant, seed=0)
    before = torch.get_rng_state()
    with nullcontext() if build is Dropping else pytest.raises(ValueError, match="measured"):
        train(variant, problem)
    assert torch.equal(torch.get_rng_state(), before)


def test_runs_side_by_side_do_not_disturb_each_other():
    alone = losses()
    problem = pose(DROPPING, seed=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    beside = []
    for one, _ in zip(steps_of(DROPPING, problem), steps_of(DROPPING, problem), strict=True):
        torch.rand(3)
        beside.append(float(one.loss.detach()))
    assert beside == alone
    torch.set_rng_state(before)


# --- training figures ----------------------------------------------------------------------------


def test_figures_of_an_epoch_are_means_over_its_batches_as_they_were_trained_on():
    problem = pose(MODULE, seed=0)
    steps = [
        (float(s.loss.detach()), float(absolute_error(s.output.detach(), s.target).mean()))
        for s in steps_of(MODULE, problem)
    ]
    history = train(MODULE, problem)
    for number, record in enumerate(history.epochs):
        seen = np.array(steps[number * PER_EPOCH : (number + 1) * PER_EPOCH])
        assert record.metrics["loss"] == pytest.approx(seen[:, 0].mean(), rel=1e-6)
        assert record.metrics["error"] == pytest.approx(seen[:, 1].mean(), rel=1e-6)


def test_figures_of_the_last_batch_are_of_every_epochs_own_after_its_update():
    history = trained(report="last-batch")
    problem = pose(MODULE, seed=0)
    batches = list(problem.batches())
    for number, step in enumerate(steps_of(MODULE, problem), start=1):
        if number % PER_EPOCH == 0:
            xb, yb = batches[number - 1]
            expected = F.mse_loss(step.model(xb), yb)
            found = history.epochs[number // PER_EPOCH - 1].metrics["loss"]
            assert found == pytest.approx(float(expected.detach()), rel=1e-6)


def test_a_variant_that_shows_no_output_has_a_loss_alone():
    def silent(problem):
        for step in SCRATCH.steps(problem):
            yield Step(float(step.loss.detach()), step.parameters)

    variant = by_steps(silent)
    assert train(variant, pose(variant)).epochs[-1].metrics.keys() == {"loss"}


# --- validation figures --------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["batches", "samples"])
def test_validation_figures_are_means_over_batches_or_rows(average):
    history = trained(average=average, batch_size=2, valid_batch_size=3)
    model, valid = history.last.model, pose(MODULE).valid
    parts = [F.mse_loss(model(valid.x[s]), valid.y[s]).item() for s in (slice(0, 3), slice(3, 4))]
    weights = [3, 1] if average == "samples" else None
    assert history.final["val_loss"] == pytest.approx(np.average(parts, weights=weights), rel=1e-6)


class Moody(Net):
    """Says in which mode it was asked."""

    def forward(self, x):
        return super().forward(x) * 0 + float(self.training)


def test_validation_is_in_evaluation_mode_and_training_goes_on_in_training_mode():
    variant = like("module", build=Moody, loss=lambda out, y: out.mean(), metrics={})
    history = trained(variant)
    assert history.curve("loss") == [1.0] * EPOCHS
    assert history.curve("val_loss") == [0.0] * EPOCHS
    assert history.last.model.training


def test_validation_rows_are_prepared_as_the_loader_prepares_batches():
    rows = pose(MODULE).valid
    history = trained()
    doubled = replace(MODULE, prepare=lambda x: 2 * x)
    with predictor(doubled, history.last) as predict:
        found = predict(rows.x)
    assert torch.equal(found, history.last.model(2 * rows.x).detach())
    assert not found.requires_grad


def test_figures_that_a_variant_measures_itself_take_the_place_of_the_frameworks():
    def measuring(problem):
        for number, step in enumerate(SCRATCH.steps(problem), start=1):
            yield step
            if number % PER_EPOCH == 0:
                yield Epoch({"val_loss": -float(number), "more": 1.0})

    history = trained(by_steps(measuring))
    assert history.curve("val_loss") == [-3.0, -6.0, -9.0, -12.0]
    assert history.final["more"] == 1.0
    assert "loss" in history.final


def measures(epochs):
    """The plane's variant, which measures its own validation rows at the end of these epochs."""

    def steps(problem):
        for number, step in enumerate(SCRATCH.steps(problem), start=1):
            yield step
            if number % PER_EPOCH == 0 and number // PER_EPOCH in epochs:
                yield Epoch({"val_loss": float(number), "val_error": 1.0})

    return by_steps(steps)


def test_what_a_variant_measures_of_every_epoch_is_not_measured_again(monkeypatch):
    asked = []
    own = loop.validation_figures
    monkeypatch.setattr(loop, "validation_figures", lambda *of: asked.append(of) or own(*of))
    assert trained(measures({1, 2, 3, 4})).curve("val_loss") == [3.0, 6.0, 9.0, 12.0]
    assert len(asked) == 1
    trained(SCRATCH)
    assert len(asked) == 5


def test_a_variant_that_leaves_an_epoch_unmeasured_is_told_which():
    with pytest.raises(ContractError, match="and none after epoch 3; yield one after each"):
        trained(measures({1, 2, 4}))
    with pytest.raises(ContractError, match="and none after epoch 4; yield one after each"):
        trained(measures({1, 2, 3}))


def test_an_epoch_is_told_of_with_what_the_variant_has_measured_itself():
    told = []
    variant = measures({1, 2, 3, 4})
    train(variant, pose(variant), on_epoch=lambda record: told.append(record.metrics["val_loss"]))
    assert told == [3.0, 6.0, 9.0, 12.0]


def test_a_batch_on_which_a_metric_is_undefined_does_not_count_for_it():
    both = torch.tensor([[0.1], [0.9]]), torch.tensor([[0.0], [1.0]])
    one = torch.tensor([[0.5]]), torch.tensor([[1.0]])
    found = evaluate(lambda x: x, [both, one], None, {"auc": roc_auc}, weighted=True)
    assert found == {"auc": 1.0}


def test_without_validation_rows_there_are_no_validation_figures():
    bare = by_steps(SCRATCH.steps, data=replace(SCRATCH.data, stand_in=only_training))
    assert trained(bare).epochs[-1].metrics.keys() == {"loss", "error"}


def only_training():
    return replace(SCRATCH.data.stand_in(), valid=None)


def test_predictions_need_a_model_and_the_variant_without_one_is_named():
    without = predictor(SCRATCH, Step(0.0, {}))
    with pytest.raises(ContractError, match="'scratch' yields no model= to predict with"), without:
        pass


# --- history -------------------------------------------------------------------------------------


def test_a_history_has_every_epoch_in_order_and_tells_it_as_it_ends():
    told = []
    history = train(MODULE, pose(MODULE), on_epoch=told.append)
    assert told == history.epochs
    assert [record.epoch for record in history.epochs] == [1, 2, 3, 4]
    assert all(record.seconds > 0 for record in history.epochs)
    assert history.steps == STEPS
    assert history.curve("loss") == [record.metrics["loss"] for record in history.epochs]
    assert history.curve("nothing") == []


def test_training_learns_the_plane_alike_in_every_variant():
    for variant in (SCRATCH, MODULE):
        history = trained(variant, epochs=30)
        assert history.curve("loss")[-1] < 0.1 * history.curve("loss")[0]
        assert history.final["weights[0]"] == pytest.approx(1.5, abs=0.15)
        assert history.final["weights[1]"] == pytest.approx(-0.5, abs=0.15)
        assert history.final["bias"] == pytest.approx(0.25, abs=0.15)


def test_parameters_are_among_the_final_figures_only_where_they_are_few():
    few, many = {"a": torch.ones(1), "b": torch.tensor([[2.0, 3.0, 4.0]])}, {"a": torch.ones(5)}
    assert few_parameters(few) == {"a": 1.0, "b[0]": 2.0, "b[1]": 3.0, "b[2]": 4.0}
    assert few_parameters(many) == {}


def test_a_run_that_made_no_step_has_no_figures():
    with pytest.raises(ContractError, match="made no step"):
        _ = History().final


# --- runs of another length ----------------------------------------------------------------------


@pytest.mark.parametrize("made", [0, 1, STEPS - 1])
def test_a_variant_that_stops_early_is_refused(made):
    variant = by_steps(lambda problem: itertools.islice(SCRATCH.steps(problem), made))
    said = f"'made' made {made} steps where its protocol has 4 epochs of 3 \\(12 to run\\)"
    with pytest.raises(ContractError, match=said):
        train(variant, pose(variant))


def test_a_run_that_is_to_stop_by_a_figure_that_it_has_not_is_refused():
    protocol = replace(PROTOCOL, stop=Stop("val_los", patience=1))
    variant = by_steps(SCRATCH.steps, protocol=protocol)
    said = "'made' is to stop by val_los, and an epoch of its run has loss, .*val_loss"
    with pytest.raises(ContractError, match=said):
        train(variant, pose(variant))


def test_a_variant_that_never_ends_is_stopped_at_the_first_step_too_many():
    def endless(problem):
        while True:
            yield from SCRATCH.steps(problem)

    variant = by_steps(endless)
    with pytest.raises(ContractError, match="made 13 or more steps where"):
        train(variant, pose(variant))


def test_an_epoch_before_the_end_of_the_first_is_refused():
    def hasty(problem):
        yield Epoch({"val_loss": 1.0})
        yield from SCRATCH.steps(problem)

    variant = by_steps(hasty)
    with pytest.raises(ContractError, match="'made' yields an Epoch before"):
        train(variant, pose(variant))


# --- means ---------------------------------------------------------------------------------------

scores = st.lists(
    st.tuples(st.floats(-1e3, 1e3) | st.just(math.nan), st.integers(1, 9)), min_size=1, max_size=9
)


@given(scores)
def test_means_leave_out_what_is_undefined_and_weigh_the_rest(pairs):
    values, weights = np.array(pairs).T
    kept = ~np.isnan(values)
    tensors = [torch.tensor(value, dtype=torch.float64) for value in values]
    if not kept.any():
        assert math.isnan(mean_of(tensors))
        return
    assert mean_of(tensors) == pytest.approx(values[kept].mean(), abs=1e-9)
    expected = np.average(values[kept], weights=weights[kept])
    assert mean_of(tensors, [int(w) for w in weights]) == pytest.approx(expected, abs=1e-9)


def test_means_are_taken_in_float64():
    ones = [torch.tensor(1.0)] * 3 + [torch.tensor(1e-9)]
    assert mean_of(ones) == (3 + float(torch.tensor(1e-9))) / 4


def test_the_fakes_module_is_a_module_variant():
    assert isinstance(MODULE, ModuleVariant)
    assert isinstance(MODULE.build(), nn.Module)
