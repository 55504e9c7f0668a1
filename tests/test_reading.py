"""A run learns from its batches and reports the figures of its validation rows."""

from dataclasses import replace

import pytest
import torch
from fakes.sound import EXAMPLE, PROTOCOL
from torch.nn import functional as F

from refimpl import Epoch
from refimpl.checking.checks import Cell, Subject, run_check
from refimpl.composition import CPU
from refimpl.conformance.checks import reading

SCRATCH, MODULE = EXAMPLE.variants


def asked(steps, **changes):
    """The answer for a variant with this loop."""
    variant = replace(SCRATCH, steps=steps, **changes)
    example = replace(EXAMPLE, variants=(variant,))
    subject = Subject(example, example.variants[0], CPU, "stand-in")
    return run_check(Cell(reading.reads_its_batches, subject))


def epoch_by_epoch(problem, first=0, measured=lambda problem: problem.valid, weight=1.0):
    """The loop of the fake, with a validation after each epoch."""
    weights, bias = problem.start["weights"], problem.start["bias"]
    for epoch in problem.epochs():
        of = problem.but(protocol=replace(problem.protocol)) if first else problem
        for step in SCRATCH.steps(_one_epoch(of, 0 if first else epoch, weights, bias)):
            yield step
        rows = measured(problem)
        yield Epoch({"val_loss": weight * F.mse_loss(step.model(rows.x), rows.y).item()})


class _one_epoch:
    """A problem of one epoch, with parameters that are there already."""

    def __init__(self, problem, epoch, weights, bias):
        self.problem, self.epoch = problem, epoch
        self.start, self.lr = {"weights": weights, "bias": bias}, problem.lr

    def batches(self):
        return self.problem.epoch_batches(self.epoch)


WHOLE = replace(PROTOCOL, valid_batch_size=100)


def test_a_run_over_its_own_batches_passes_with_its_figures():
    result = asked(epoch_by_epoch, protocol=WHOLE)
    assert result.outcome == "passed", result.reason
    assert "val_loss that it measured itself" in {m.what for m in result.measurements}


def test_the_same_order_in_every_epoch_is_named_by_the_first_step_of_the_second():
    result = asked(lambda problem: epoch_by_epoch(problem, first=1), protocol=WHOLE)
    assert result.outcome == "failed"
    assert "other targets than their batch's is [4" in result.reason


@pytest.mark.parametrize("better", [min, max])
def test_the_best_figure_so_far_in_the_place_of_the_last_fails(better):
    def best_so_far(problem):
        best = None
        for seen in epoch_by_epoch(problem):
            if isinstance(seen, Epoch):
                own = seen.metrics["val_loss"]
                best = own if best is None else better(best, own)
                yield Epoch({"val_loss": best})
            else:
                yield seen

    result = asked(best_so_far, protocol=WHOLE)
    assert result.outcome == "failed"
    assert result.reason.startswith("val_loss that it measured itself is")


@pytest.mark.parametrize(
    "mistake",
    [{"measured": lambda problem: problem.train}, {"weight": 1.01}],
    ids=["training rows", "wrong weights"],
)
def test_figures_of_anything_but_the_validation_rows_fail(mistake):
    result = asked(lambda problem: epoch_by_epoch(problem, **mistake), protocol=WHOLE)
    assert result.outcome == "failed"
    assert result.reason.startswith("val_loss that it measured itself is")


def test_a_loss_that_is_not_the_stated_one_alone_is_not_held_against_it():
    variant = {"protocol": WHOLE, "loss": lambda output, target: F.l1_loss(output, target)}
    result = asked(lambda problem: epoch_by_epoch(problem), **variant)
    assert result.outcome == "passed", result.reason


def test_the_loss_of_a_long_epoch_is_looked_at_around_its_end(monkeypatch):
    monkeypatch.setattr(reading, "WHOLE", 2)
    monkeypatch.setattr(reading, "BEGINNING", 1)
    result = asked(SCRATCH.steps)
    assert result.outcome == "passed", result.reason
    assert [m.what for m in result.measurements if m.what.startswith("steps from")] == [
        "steps from step 1 on",
        "steps from step 2 on",
    ]
    assert torch.is_grad_enabled()
