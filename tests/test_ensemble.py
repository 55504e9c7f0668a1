"""Many seeds at once give, for each seed, the run that it has alone."""

from __future__ import annotations

import pytest
import torch

from refimpl import registry
from refimpl.ensemble import suits, train_together
from refimpl.lockstep import look
from refimpl.problem import pose
from refimpl.training import steps_of

SEEDS = (3, 4, 7)
STEPS = 5


@pytest.mark.parametrize(
    ("example", "variant"),
    [("titanic-dnn", "script"), ("ring-dnn", "low"), ("mnist-logistic", "cnn")],
)
def test_each_member_is_the_plain_run_of_its_seed(example: str, variant: str) -> None:
    chosen = registry.load(only=[example]).example(example).variant(variant)
    problems = [
        pose(chosen, seed=seed, dropout=False, horizon=STEPS).but(precision="float64")
        for seed in SEEDS
    ]
    together = train_together(chosen, problems)
    alone = [steps_of(chosen, problem, STEPS) for problem in problems]
    steps = 0
    for members, *plain in zip(together, *alone, strict=True):
        steps += 1
        for member, step in zip(members, plain, strict=True):
            for seen, expected in zip(look(chosen, member), look(chosen, step), strict=True):
                assert seen.key == expected.key
                torch.testing.assert_close(seen.value, expected.value, rtol=1e-9, atol=1e-11)
    assert steps == STEPS


def test_a_recurrent_net_is_not_offered_for_it() -> None:
    covid = registry.load(only=["covid-lstm"]).example("covid-lstm")
    assert not any(suits(variant) for variant in covid.variants)
