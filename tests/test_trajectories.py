"""A run that several checks ask about is made once, and is the run that it would be alone."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from fakes.sound import EXAMPLE

from refimpl.executions.built_in import refimpl_executions
from refimpl.training import trajectories
from refimpl.training.problem import pose
from refimpl.training.trajectories import first_steps, observations

VARIANT = EXAMPLE.variant("scratch")


@pytest.fixture
def counted(monkeypatch):
    """A variant, and the seeds of the problems whose steps it has made, one for each step."""
    monkeypatch.setattr(trajectories, "_kept", type(trajectories._kept)())
    made = []

    def steps(problem):
        for step in VARIANT.steps(problem):
            made.append(problem.seed)
            yield step

    return replace(VARIANT, steps=steps), made


def same(one, other):
    return all(
        [seen.key for seen in mine] == [seen.key for seen in theirs]
        and all(torch.equal(a.value, b.value) for a, b in zip(mine, theirs, strict=True))
        for mine, theirs in zip(one, other, strict=True)
    )


def test_a_run_goes_no_further_than_the_longest_look_at_it(counted):
    variant, made = counted
    for count in (3, 2, 5, 5):
        seen = first_steps(variant, pose(variant), count)
        assert same(seen, list(observations(VARIANT, pose(VARIANT), count)))
    assert len(made) == 5


def test_a_run_that_ends_before_has_as_many_steps_as_it_makes(counted):
    variant, made = counted
    whole = first_steps(variant, pose(variant), 10_000)
    assert len(whole) == len(made) == pose(variant).steps_per_epoch * variant.protocol.epochs
    assert same(first_steps(variant, pose(variant), 10_000), whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"precision": "float64"},
        {"dropout": False},
        {"values": pose(VARIANT, seed=1).values},
        {"protocol": replace(VARIANT.protocol, learning_rate=0.2)},
        {"shard": (0, 2)},
        {"execution": next(e for e in refimpl_executions() if e.name == "f64")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_decides_a_run_makes_another_one(counted, changes):
    variant, made = counted
    first_steps(variant, pose(variant), 2)
    changed = pose(variant).but(**changes)
    assert same(first_steps(variant, changed, 2), list(observations(VARIANT, changed, 2)))
    assert len(made) == 4


def test_another_variant_is_another_run_though_its_steps_are_the_same(counted):
    variant, made = counted
    first_steps(variant, pose(variant), 2)
    first_steps(replace(variant), pose(variant), 2)
    assert len(made) == 4


def test_a_run_that_raises_does_so_each_time_it_is_asked_about(counted):
    variant, _ = counted

    def steps(problem):
        yield from islice(variant.steps(problem), 2)
        raise ZeroDivisionError

    failing = replace(variant, steps=steps)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            first_steps(failing, pose(failing), 3)


def test_few_runs_are_kept(counted):
    variant, made = counted
    for seed in range(trajectories.KEPT + 1):
        first_steps(variant, pose(variant, seed=seed), 1)
    first_steps(variant, pose(variant, seed=trajectories.KEPT), 1)
    assert len(trajectories._kept) == trajectories.KEPT
    assert made == [*range(trajectories.KEPT + 1)]
