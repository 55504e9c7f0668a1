"""Whole runs are facts: a change of a late epoch is seen, and named by its epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.checks_of import failing
from torch import nn
from torch.nn import functional as F

from refimpl import Example, Schedule, Step
from refimpl.contract import Steps
from refimpl.loading import registry
from refimpl.records import files, of_runs
from refimpl.training.problem import Problem, pose

LOADED = registry.load()
CHECK = "run-as-recorded"


def recorded(example: str) -> dict[str, dict[str, list[float]]]:
    return files.read(files.path_of("runs", example)).records


def test_every_variant_that_trains_here_has_a_run_past_its_sixth_epoch() -> None:
    short = []
    for example in LOADED.chosen(()):
        for variant in example.variants:
            if variant.trains and variant.needs is None:
                assert variant.protocol is not None
                epochs = recorded(example.name).get(variant.name, {}).get("epochs", [0])
                if max(epochs) < min(6, variant.protocol.epochs_on("stand-in")):
                    short.append(f"{example.name}/{variant.name}")
    assert short == [], "refimpl record --kind runs"


def slower(example: str, variant: str, epoch: int) -> Example:
    """The rate falls to three tenths from this epoch on, counted from 1, in the document's loop."""
    own = LOADED.example(example)
    plain = own.variant(variant)
    steps = plain.steps

    def changed(problem: Problem) -> Steps:
        assert steps is not None
        number = 0
        for step in steps(problem):
            yield step
            number += isinstance(step, Step)
            if isinstance(step, Step) and number >= (epoch - 1) * problem.steps_per_epoch:
                for optimizer in step.optimizers.values():
                    for group in optimizer.param_groups:
                        group["lr"] = 0.3 * problem.lr

    def factor(n: int) -> float:
        return 0.3 if n >= epoch - 1 else 1.0

    if steps is not None:
        return replace(own, variants=(replace(plain, steps=changed),))
    protocol = replace(plain.protocol, schedule=Schedule(factor))
    return replace(own, variants=(replace(plain, protocol=protocol),))


@pytest.mark.parametrize(
    ("example", "variant"),
    [
        ("titanic-dnn", "script"), ("ring-dnn", "high"), ("ring-focal", "focal"),
        ("mnist-logistic", "fit"), ("mnist-cnn", "class"), ("imdb-cnn", "frozen"),
        ("linear-regression-2d", "mid"),
    ],
)  # fmt: skip
def test_a_rate_that_falls_in_epoch_6_is_seen(example: str, variant: str) -> None:
    found = failing(slower(example, variant, 6), (CHECK,))
    epochs = recorded(example)[variant]["epochs"]
    first = next(epoch for epoch in epochs if epoch >= 6)
    assert f"another run from epoch {first} on" in found[CHECK]


def test_an_epoch_that_reads_the_rows_in_another_order_is_seen() -> None:
    own = LOADED.example("mnist-logistic")
    plain = own.variant("fit")
    steps = plain.steps
    assert steps is not None

    class Third(Problem):
        def row_order(self, epoch: int) -> torch.Tensor:
            return super().row_order(1 if epoch == 2 else epoch)

    def changed(problem: Problem) -> Steps:
        return steps(Third(**vars(problem)))

    found = failing(replace(own, variants=(replace(plain, steps=changed),)), (CHECK,))
    assert "another run from epoch 3 on" in found[CHECK]


class Chaotic(nn.Module):
    """A map that amplifies a change of its start in every update."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.3]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.w).sum(dim=1, keepdim=True)


def doubling(problem: Problem) -> Steps:
    net = problem.load(Chaotic())
    for x, y in problem.batches():
        output = net(x)
        loss = F.mse_loss(output, y)
        with torch.no_grad():
            net.w.copy_((4 * net.w * (1 - net.w)) if 0 < net.w < 1 else net.w)
        yield Step(loss, net, output, y)


def test_a_record_ends_where_rounding_might_show() -> None:
    own = LOADED.example("linear-regression-2d")
    plain = own.variant("mid")
    variant = replace(
        plain, steps=doubling, build=Chaotic, documented_start=None,
        start=lambda rng: {"w": np.array([0.3])},
        protocol=replace(plain.protocol, stand_in_epochs=200),
    )  # fmt: skip
    found = of_runs.record(variant, "stand-in")
    assert 1 <= max(found["epochs"]) < 40
    today = of_runs.today(variant, "stand-in", found)
    assert today == found


def test_a_zero_of_the_start_is_not_moved() -> None:
    variant = LOADED.example("ring-dnn").variant("low")
    values = pose(variant, "stand-in").values
    moved = of_runs._moved(values)
    for name, own in values.items():
        assert ((moved[name] == 0) == (own == 0)).all()
    assert any((moved[name] != own).any() for name, own in values.items())


def test_a_run_is_compared_with_its_recorded_seed_whatever_seeds_other_checks_get() -> None:
    assert not failing(LOADED.example("titanic-dnn").reseeded(500), CHECK)
