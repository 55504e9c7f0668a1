"""Which steps of a whole run are judged: some from all of it, and none that begins an epoch."""

import pytest
from fakes.sound import EXAMPLE

from refimpl.composition import CPU
from refimpl.parity.whole_runs import (
    AT_MOST,
    AT_RANDOM,
    CALLS_AT_RANDOM,
    chosen,
    chosen_steps,
    judged_updates,
)


@pytest.mark.parametrize(("length", "parameters"), [(1, 3), (10, 3), (1000, 600), (1000, 10**6)])
def test_the_last_update_and_powers_of_two_are_judged_and_some_at_random(length, parameters):
    numbers = chosen(length, parameters, "one")
    assert {1, length} <= numbers <= set(range(1, length + 1))
    assert {2**power for power in range(length.bit_length())} <= numbers
    assert len(numbers) >= min(length, AT_RANDOM)
    assert len(numbers) <= AT_MOST + length.bit_length() + 1


def test_more_updates_of_a_small_model_are_judged_than_of_a_large_one():
    assert len(chosen(1000, 100, "one")) > 3 * len(chosen(1000, 100_000, "one"))


def test_another_variant_has_other_updates_judged_and_the_same_variant_the_same():
    assert chosen(1000, 100, "one") == chosen(1000, 100, "one") != chosen(1000, 100, "other")


@pytest.mark.parametrize("per_epoch", [1, 2, 7, 50])
def test_no_late_step_begins_an_epoch_in_which_validation_would_be_judged_too(per_epoch):
    for name in map(str, range(50)):
        steps = chosen_steps(100, per_epoch, name)
        assert len(steps) == CALLS_AT_RANDOM
        assert all(1 < step < 100 for step in steps)
        assert per_epoch == 1 or all(step % per_epoch != 1 for step in steps)


def test_a_run_of_one_step_has_no_other_to_choose():
    assert chosen_steps(1, 1, "one") == set()


def test_a_sound_run_has_late_calls_updates_and_states_judged_and_nothing_beyond():
    variant = EXAMPLE.variant("module")
    seen = judged_updates(variant, "stand-in", CPU)
    assert seen.judged > 0
    assert seen.kernels.judged["aten::mse_loss"] > 0
    assert (seen.beyond, seen.kernels.beyond, seen.stale) == ([], [], [])
