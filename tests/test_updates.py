"""A loop clips and schedules as its protocol states, and does neither if nothing is stated."""

from dataclasses import replace

import pytest
import torch
from fakes.sound import EXAMPLE, Net
from torch import nn
from torch.nn import functional as F

from refimpl import Schedule, Step
from refimpl.checking.checks import Cell, Subject, run_check
from refimpl.composition import CPU
from refimpl.conformance.checks.updates import updates_as_stated

SCRATCH, MODULE = EXAMPLE.variants
HALVING = Schedule(lambda epoch: 0.5**epoch)
WARMING = Schedule(lambda update: min(1.0, update / 5), per="step")


def loop(problem, *, clip=lambda problem: problem.clip, rate=lambda problem, n: problem.rate(n)):
    """A loop that clips to ``clip`` and updates at ``rate``, by default as the problem says."""
    net = problem.load(Net())
    optimizer = problem.resume(torch.optim.Adam(net.parameters(), lr=problem.lr))
    for number, (xb, yb) in enumerate(problem.batches(), start=problem.first_step):
        output = net(xb)
        loss = F.mse_loss(output, yb)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), clip(problem))
        optimizer.param_groups[0]["lr"] = rate(problem, number)
        optimizer.step()
        yield Step(loss, net, output, yb, optimizer)


def by_hand(problem, *, clip=lambda problem: problem.clip, rate=lambda problem, n: problem.rate(n)):
    """The same without an optimizer."""
    weights, bias = problem.start["weights"], problem.start["bias"]
    both = [weights, bias]
    for number, (xb, yb) in enumerate(problem.batches(), start=problem.first_step):
        output = xb @ weights + bias
        loss = F.mse_loss(output, yb)
        loss.backward()
        nn.utils.clip_grad_norm_(both, clip(problem))
        with torch.no_grad():
            for parameter in both:
                parameter -= rate(problem, number) * parameter.grad
        yield Step(loss, {"weights": weights, "bias": bias}, output, yb)
        weights.grad = bias.grad = None


def never_clips(problem):
    return float("inf")


def never_changes(problem, number):
    return problem.lr


def asked(steps, stated, **written):
    """What the check says of a loop under a protocol that states this."""
    protocol = replace(EXAMPLE.protocol, **stated)
    sound = SCRATCH if steps is by_hand else MODULE
    variant = replace(sound, steps=lambda p: steps(p, **written), protocol=protocol, ladder=None)
    return run_check(Cell(updates_as_stated, Subject(EXAMPLE, variant, CPU, "stand-in")))


LOOPS = pytest.mark.parametrize("steps", [loop, by_hand])


@LOOPS
@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"clip": 0.5},
        {"schedule": HALVING},
        {"schedule": WARMING},
        {"clip": 2.0, "schedule": WARMING},
    ],
    ids=lambda stated: "-".join(stated) or "nothing",
)
def test_a_loop_that_does_what_its_protocol_states_passes(steps, stated):
    answer = asked(steps, stated)
    assert (answer.outcome, answer.reason) == ("passed", "")
    assert len(answer.measurements) == 2 + ("clip" in stated)


@LOOPS
@pytest.mark.parametrize("schedule", [HALVING, WARMING], ids=["by-epoch", "by-step"])
def test_a_schedule_that_is_stated_and_not_applied_fails(steps, schedule):
    answer = asked(steps, {"schedule": schedule}, rate=never_changes)
    assert answer.outcome == "failed"
    assert "has the rate" in answer.reason


@LOOPS
def test_a_schedule_that_is_applied_and_not_stated_fails(steps):
    answer = asked(steps, {}, rate=lambda problem, number: problem.lr * 0.9**number)
    assert answer.outcome == "failed"
    assert "update 2 has the rate" in answer.reason
    assert "state it: Protocol(schedule=Schedule(...))" in answer.reason


@LOOPS
def test_another_schedule_than_the_one_stated_fails(steps):
    later = asked(
        steps, {"schedule": WARMING}, rate=lambda problem, number: problem.rate(max(0, number - 1))
    )
    assert later.outcome == "failed"


@LOOPS
def test_a_clip_that_is_stated_and_not_applied_fails(steps):
    answer = asked(steps, {"clip": 0.5}, clip=never_clips)
    assert answer.outcome == "failed"
    assert "where problem.clip is" in answer.reason


@LOOPS
@pytest.mark.parametrize("stated", [{}, {"clip": 0.5}], ids=["unstated", "stated"])
def test_a_clip_that_is_written_into_the_loop_fails(steps, stated):
    answer = asked(steps, stated, clip=lambda problem: 0.5)
    assert answer.outcome == "failed"
    assert "clip to problem.clip" in answer.reason


@LOOPS
def test_another_clip_than_the_one_stated_fails(steps):
    answer = asked(steps, {"clip": 0.5}, clip=lambda problem: 2 * problem.clip)
    assert answer.outcome == "failed"


def test_clipping_each_gradient_by_itself_is_no_clipping_by_the_norm_of_all(monkeypatch):
    def each(parameters, limit):
        for parameter in parameters:
            torch.nn.utils.clip_grad.clip_grad_norm_([parameter], limit)

    def separate(problem):
        monkeypatch.setattr(nn.utils, "clip_grad_norm_", each)
        yield from loop(problem)

    variant = replace(
        MODULE, steps=separate, protocol=replace(EXAMPLE.protocol, clip=0.5), ladder=None
    )
    subject = Subject(EXAMPLE, variant, CPU, "stand-in")
    assert run_check(Cell(updates_as_stated, subject)).outcome == "failed"


def test_the_frameworks_own_loop_is_watched_too(monkeypatch):
    from refimpl.training import loop as training

    protocol = replace(EXAMPLE.protocol, clip=0.5, schedule=WARMING)
    variant = replace(MODULE, steps=None, protocol=protocol, ladder=None)
    subject = Subject(EXAMPLE, variant, CPU, "stand-in")
    assert run_check(Cell(updates_as_stated, subject)).outcome == "passed"
    monkeypatch.setattr(training, "_plainly", lambda problem: True)
    assert run_check(Cell(updates_as_stated, subject)).outcome == "failed"


def test_updates_of_which_nothing_is_seen_are_no_pass():
    def with_momentum(problem):
        values = {name: value.detach() for name, value in problem.start.items()}
        moved = {name: torch.zeros_like(value) for name, value in values.items()}
        for xb, yb in problem.batches():
            leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
            output = xb @ leaves["weights"] + leaves["bias"]
            loss = F.mse_loss(output, yb)
            loss.backward()
            gradients = {name: leaf.grad for name, leaf in leaves.items()}
            moved = {name: 0.9 * moved[name] + gradients[name] for name in values}
            values = {name: values[name] - problem.lr * moved[name] for name in values}
            yield Step(loss, dict(values), output, yb, gradients=gradients)

    variant = replace(SCRATCH, steps=with_momentum, ladder=None)
    answer = run_check(Cell(updates_as_stated, Subject(EXAMPLE, variant, CPU, "stand-in")))
    assert answer.outcome == "failed"
    assert "exempt it from this check" in answer.reason


def test_gradients_that_are_not_finite_are_used_as_they_are():
    """Other checks say that they are not; this one says what is done with them."""

    def broken(problem):
        net = problem.load(Net())
        optimizer = problem.resume(torch.optim.SGD(net.parameters(), lr=problem.lr))
        for xb, yb in problem.batches():
            output = net(xb)
            loss = F.mse_loss(output, yb) * float("nan")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield Step(loss, net, output, yb, optimizer)

    assert asked(broken, {}).outcome == "passed"
