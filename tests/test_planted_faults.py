"""The faults of the table of issue 19 that no other test plants, one at a time.

Others are in test_data_facts (data), test_model_facts (constants), test_run_facts (late epochs) and
test_witnesses (protocol and evaluation of an outsider's plugin).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fakes.checks_of import failing
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from refimpl import Epoch, Example, Protocol, Rows, Splits, Step, metrics
from refimpl.conformance.checks import figures
from refimpl.contract import Steps
from refimpl.loading import registry
from refimpl.requirements import missing, missing_data
from refimpl.training.problem import Problem

LOADED = registry.load()
Metric = Callable[..., Tensor]
MEASURES, FIGURES, EXACT = "measures-by-definition", "figures-recomputed", "exact-values"


def alone(example: str, variant: str | None = None, **changes: Any) -> Example:
    """An example with one variant, changed."""
    own = LOADED.example(example)
    return replace(own, variants=(replace(own.variant(variant), **changes),))


# --- metrics -------------------------------------------------------------------------------------


def above_four_tenths(output: Tensor, target: Tensor) -> Tensor:
    return ((output > 0.4) == (target > 0.5)).float().flatten()


def half_counts_as_above(output: Tensor, target: Tensor) -> Tensor:
    return ((output >= 0.5) == (target > 0.5)).float().flatten()


def ties_win(output: Tensor, target: Tensor) -> Tensor:
    scores, positive = output.flatten(), target.flatten() > 0.5
    return (scores[positive][:, None] >= scores[~positive]).double().mean()


def one_class_is_no_better_than_chance(output: Tensor, target: Tensor) -> Tensor:
    found = metrics.roc_auc(output, target)
    return torch.where(found.isnan(), 0.5, found)


def second_largest(output: Tensor, target: Tensor) -> Tensor:
    return (output.argsort(dim=1)[:, -2:] == target[:, None]).any(dim=1).float()


WRONG: dict[str, tuple[str, str, Metric, str]] = {
    "threshold 0.4": ("titanic-dnn", "accuracy", above_four_tenths, "between 0.4 and 0.6"),
    "one half is above one half":
        ("titanic-dnn", "accuracy", half_counts_as_above, "exactly one half"),
    "AUC gives ties a whole point": ("cifar2-cnn", "auc", ties_win, "exactly one half"),
    "AUC of one class is 0.5":
        ("cifar2-cnn", "auc", one_class_is_no_better_than_chance, "one class only"),
    "the second largest will do": ("mnist-logistic", "accuracy", second_largest, "second largest"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_metric_is_seen_at_a_boundary(name: str) -> None:
    example, metric, wrong, where = WRONG[name]
    found = failing(alone(example, metrics={metric: wrong}), (MEASURES,))
    assert where in found[MEASURES]


@pytest.mark.parametrize("example", ["titanic-dnn", "mnist-logistic", "ring-focal"])
def test_the_metrics_of_our_own_plugins_pass(example: str) -> None:
    own = LOADED.example(example)
    assert failing(replace(own, variants=own.variants[:1]), (MEASURES,)) == {}


# --- what a loss is given ------------------------------------------------------------------------


class Softmaxed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x.flatten(1)).softmax(dim=1)


class Flat(nn.Module):
    def __init__(self, squashed: bool) -> None:
        super().__init__()
        self.lin, self.squashed = nn.Linear(15, 1), squashed

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.lin(x)
        return made.sigmoid().reshape(-1, 1) if self.squashed else made


def plain(example: str, build: Callable[[], nn.Module], loss: Any) -> Example:
    return alone(
        example, steps=None, build=build, optimizer=torch.optim.SGD, loss=loss, start=None,
        documented_start=None, facts=None, names={}, ladder=None,
    )  # fmt: skip


def test_probabilities_for_scores_are_seen() -> None:
    found = failing(plain("mnist-logistic", Softmaxed, nn.CrossEntropyLoss()), (MEASURES,))
    assert "cross_entropy wants scores" in found[MEASURES]
    found = failing(plain("mnist-logistic", Softmaxed, F.nll_loss), (MEASURES,))
    assert "nll_loss wants logarithms" in found[MEASURES]


def test_probabilities_for_logits_are_seen_behind_a_change_of_shape() -> None:
    loss = nn.BCEWithLogitsLoss()
    found = failing(plain("titanic-dnn", lambda: Flat(squashed=True), loss), (MEASURES,))
    assert "wants logits, and is given what a sigmoid makes" in found[MEASURES]
    sound = plain("titanic-dnn", lambda: Flat(squashed=False), loss)
    assert failing(replace(sound, variants=(replace(sound.variants[0], metrics={}),)),
                   (MEASURES,)) == {}  # fmt: skip


# --- evaluation ----------------------------------------------------------------------------------


def by_training_rows(problem: Problem, figure: str, measure: Metric, rows: str) -> Steps:
    """A net on titanic's rows that reports one figure of its validation rows, or of others."""
    net = problem.load(Flat(squashed=True))
    optimizer = problem.resume(torch.optim.Adam(net.parameters(), lr=problem.lr))
    for epoch in problem.epochs():
        net.train()
        for x, y in problem.epoch_batches(epoch):
            output = net(x)
            loss = F.binary_cross_entropy(output, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield Step(loss, net, output, y, optimizer)
        net.eval()
        seen = getattr(problem, rows)
        with torch.no_grad():
            value = float(measure(net(seen.x), seen.y).mean())
            loss = F.binary_cross_entropy(net(problem.valid.x), problem.valid.y)
        yield Epoch({"val_loss": float(loss), f"val_{figure}": value})


@pytest.mark.parametrize("figure", ["recall", "auc"])
@pytest.mark.parametrize("rows", ["train", "valid"])
def test_a_figure_of_the_training_rows_is_seen(figure: str, rows: str) -> None:
    measure = {"recall": metrics.recall, "auc": metrics.roc_auc}[figure]

    def steps(problem: Problem) -> Steps:
        return by_training_rows(problem, figure, measure, rows)

    own = plain("titanic-dnn", lambda: Flat(squashed=True), nn.BCELoss())
    protocol = Protocol(epochs=3, learning_rate=0.05, batch_size=64, valid_batch_size=1000,
                        average="samples")  # fmt: skip
    changed = replace(own.variants[0], steps=steps, metrics={figure: measure}, protocol=protocol)
    found = failing(replace(own, variants=(changed,)), (FIGURES,))
    assert (f"val_{figure} is" in found.get(FIGURES, "")) is (rows == "train")


def test_the_loss_of_thirty_of_thirty_eight_rows_is_seen() -> None:
    plainly = LOADED.example("covid-lstm").variant("single-start")
    steps, loss_of = plainly.steps, plainly.loss
    assert steps is not None
    assert loss_of is not None

    def short(problem: Problem) -> Iterator[Step | Epoch]:
        last: Any = None
        for own in steps(problem):
            if isinstance(own, Step):
                last = own.model
            elif "val_loss" in own.metrics:
                with torch.no_grad():
                    part = loss_of(last(problem.train.x[:30]), problem.train.y[:30])
                own = Epoch({**own.metrics, "val_loss": float(part)})
            yield own

    found = failing(alone("covid-lstm", "single-start", steps=short), (FIGURES,))
    assert "val_loss is" in found[FIGURES]
    assert "of all training rows" in found[FIGURES]


def test_a_forecast_that_begins_a_day_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    own = module_of("covid-lstm")
    roll_out = own.roll_out
    monkeypatch.setattr(own, "roll_out", lambda model, growth: roll_out(model, growth[:-1]))
    found = failing(alone("covid-lstm", "single-start"), (FIGURES,))
    assert "zero_" in found[FIGURES]
    assert "from the final model and the rows" in found[FIGURES]


def test_every_stated_figure_of_our_plugins_has_a_second_witness() -> None:
    """By its name, or, where only the plugin can define it, by its ``recompute``.

    Parameters are figures by themselves. Shares of several starts are not of one final model.
    """
    lacking = {
        (name, figure.metric)
        for name in LOADED.examples
        for variant in LOADED.example(name).variants
        if variant.trains and variant.facts and variant.recompute is None
        for figure in variant.facts.figures
        if figures.definition_of(variant, figure.metric.removeprefix("val_")) is None
        if not name.startswith("linear-regression")
    }
    assert lacking == {("covid-lstm", "converged"), ("covid-lstm", "best_loss")}


# --- exact values --------------------------------------------------------------------------------


def module_of(example: str) -> ModuleType:
    own = LOADED.example(example)
    return sys.modules[own.values[1].compute.__module__]


def exact(example: str, *names: str) -> str:
    own = LOADED.example(example)
    values = tuple(value for value in own.values if value.name in names)
    assert len(values) == len(names)
    if any(missing(value.needs) for value in values):
        pytest.skip(f"{values[0].needs} is not installed")
    return failing(replace(own, values=values), (EXACT,)).get(EXACT, "")


@pytest.mark.parametrize(
    "changed", [{"momentum": 0.5}, {"momentum": 0.9, "nesterov": True}, {"lr": 0.02}], ids=str
)
def test_a_minimum_found_in_another_way_is_seen(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    plain_sgd = torch.optim.SGD

    def another(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return plain_sgd(parameters, **{"lr": lr, **changed})

    assert exact("autograd", "minimum of f and where it lies") == ""
    monkeypatch.setattr(torch.optim, "SGD", another)
    assert "minimum of f" in exact("autograd", "minimum of f and where it lies")


def test_singular_values_a_thousandth_larger_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    own = module_of("tensors")
    u_s_v = own.u_s_v
    monkeypatch.setattr(own, "u_s_v", lambda: (u_s_v()[0], 1.001 * u_s_v()[1], u_s_v()[2]))
    assert "singular values" in exact("tensors", "singular values")


def merged(dataset: TensorDataset) -> TensorDataset:
    x, kinds = dataset.tensors
    return TensorDataset(x, kinds.clamp(max=1))


def test_merged_kinds_of_flowers_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    own = module_of("data-pipelines")
    flowers = own.flowers
    assert exact("data-pipelines", "flowers") == ""
    monkeypatch.setattr(own, "flowers", lambda: merged(flowers()))
    assert "flowers is [50, 100]" in exact("data-pipelines", "flowers")


def test_flowers_that_are_split_in_order_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    own = module_of("data-pipelines")
    everything = own.flowers()
    assert exact("data-pipelines", "the split is a partition") == ""
    monkeypatch.setattr(own, "split_flowers", lambda: [
        Subset(everything, range(120)), Subset(everything, range(120, 150)),
    ])  # fmt: skip
    assert "the split is" in exact("data-pipelines", "the split is a partition")


IMAGES = "a batch of augmented images, and its labels"


def test_labels_one_too_large_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    own = module_of("data-pipelines")
    assert exact("data-pipelines", IMAGES) == ""
    monkeypatch.setattr(own, "label", lambda index: torch.tensor([index + 1]).float())
    assert "(1.0, 2.0, 0.0)" in exact("data-pipelines", IMAGES)


def test_images_that_are_not_augmented_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    monkeypatch.setattr(transforms, "Compose", lambda own: own[-1])
    assert "(0.0, 1.0, 1.0)" in exact("data-pipelines", IMAGES)


# --- a start that is torch's ---------------------------------------------------------------------


def test_a_layer_that_keeps_torchs_start_is_seen() -> None:
    own = LOADED.example("ring-dnn").variant("low")
    start = own.start
    assert start is not None

    def other(rng: np.random.Generator) -> dict[str, Any]:
        values = dict(start(rng))
        bound = 1 / np.sqrt(len(values["w1"]))
        return {**values, "w1": rng.uniform(-bound, bound, np.shape(values["w1"]))}

    found = failing(alone("ring-dnn", "low", start=other), ("run-as-recorded",))
    assert "from epoch 1 on" in found["run-as-recorded"]


# --- real readers --------------------------------------------------------------------------------

Fault = Callable[[Splits], Splits]


def valid(splits: Splits) -> Rows:
    assert splits.valid is not None
    return splits.valid


def fare(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x = x.copy()
    x[:, 9] /= 100
    return x


def filled(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x = x.copy()
    x[:, 5] = np.where(x[:, 5] == 0, x[x[:, 5] > 0, 5].mean(), x[:, 5])
    return x


REAL: dict[str, tuple[str, Fault]] = {
    "training rows as validation rows":
        ("titanic-dnn", lambda s: Splits(s.train, Rows(s.train.x[:179], s.train.y[:179]))),
    "Fare divided by 100":
        ("titanic-dnn", lambda s: Splits(Rows(fare(s.train.x), s.train.y),
                                         Rows(fare(valid(s).x), valid(s).y))),
    "gaps filled only in the test rows":
        ("titanic-dnn", lambda s: Splits(s.train, Rows(filled(valid(s).x), valid(s).y))),
    "labels 1 and 2":
        ("titanic-dnn", lambda s: Splits(Rows(s.train.x, s.train.y + 1),
                                         Rows(valid(s).x, valid(s).y + 1))),
    "MNIST images transposed":
        ("mnist-cnn", lambda s: Splits(Rows(s.train.x.swapaxes(2, 3), s.train.y),
                                       Rows(valid(s).x.swapaxes(2, 3), valid(s).y))),
    "1 % of the test rows are training rows":
        ("mnist-cnn", lambda s: Splits(s.train, Rows(
            np.concatenate([s.train.x[:100], valid(s).x[100:]]),
            np.concatenate([s.train.y[:100], valid(s).y[100:]])))),
    "validation rows begin 500 too early":
        ("mnist-logistic", lambda s: Splits(s.train, Rows(
            np.concatenate([s.train.x[-500:], valid(s).x[:-500]]),
            np.concatenate([s.train.y[-500:], valid(s).y[:-500]])))),
    "blue first in the test images":
        ("cifar2-cnn", lambda s: Splits(s.train, Rows(valid(s).x[:, ::-1], valid(s).y))),
    "test reviews cut at the other end":
        ("imdb-cnn", lambda s: Splits(s.train, Rows(valid(s).x[:, ::-1], valid(s).y))),
    "vocabulary one word short":
        ("imdb-cnn", lambda s: Splits(*(Rows(np.where(p.x == 9_999, 0, p.x), p.y)
                                        for p in (s.train, valid(s))))),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_a_fault_of_a_real_reader_is_seen(name: str) -> None:
    example, fault = REAL[name]
    data = LOADED.example(example).variant().data
    assert data is not None
    if reason := missing_data(data, "real"):
        pytest.skip(reason)
    real = data.real
    assert real is not None
    wrong = replace(data, real=lambda root: fault(real(root)))
    found = failing(alone(example, data=wrong), ("data-as-recorded",), tier="real")
    assert "moved" in found["data-as-recorded"]
    # The second reading sees it too, so that a new record cannot make it the standard.
    assert (
        "plain reading" in found["data-as-recorded"]
        or "shape and dtype" in found["data-as-recorded"]
    )
