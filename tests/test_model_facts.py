"""Constructor arguments that no shape shows are facts: each planted change is seen and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from fakes.checks_of import failing
from torch import nn
from torch.nn import functional as F

from refimpl import Example, Step
from refimpl.conformance.checks import facts
from refimpl.contract import Steps
from refimpl.loading import registry
from refimpl.records import files, of_models
from refimpl.training.problem import Problem

LOADED = registry.load()
CHECK = "layers-as-recorded"

Change = Callable[[nn.Module], None]


def test_every_variant_that_trains_here_has_its_facts() -> None:
    lacking = [
        f"{example.name}/{variant.name}"
        for example in LOADED.chosen(())
        for variant in example.variants
        if variant.trains and variant.needs is None
        and variant.name not in files.read(files.path_of("models", example.name)).records
    ]  # fmt: skip
    assert lacking == [], "refimpl record --kind models"


def planted(example: str, variant: str, change: Change) -> Example:
    """An example with this variant alone, whose module is changed once it is made."""
    own = LOADED.example(example)
    plain = own.variant(variant)
    build = plain.build
    assert build is not None

    def built() -> nn.Module:
        module = build()
        change(module)
        return module

    steps = plain.steps
    if steps is not None:
        written = steps

        def changed(problem: Problem) -> Steps:
            for step in written(problem):
                if isinstance(step, Step) and step.module is not None:
                    change(step.module)
                yield step

        steps = changed
    return replace(own, variants=(replace(plain, build=built, steps=steps),))


def set_on(kind: type[nn.Module], **values: object) -> Change:
    def change(module: nn.Module) -> None:
        for layer in module.modules():
            if isinstance(layer, kind):
                for name, value in values.items():
                    setattr(layer, name, value)

    return change


def gelu_for_relu(module: nn.Module) -> None:
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.GELU())


PLANTED = {
    "Dropout 0.25 for 0.1": (
        "mnist-cnn", "script", set_on(nn.Dropout2d, p=0.25), "p is 0.25, recorded 0.1"),
    "Dropout 0.3 in one of seven builds": (
        "model-building", "module-dict", set_on(nn.Dropout2d, p=0.3), "p is 0.3, recorded 0.1"),
    "nn.LSTM(dropout=0.1)": (
        "covid-lstm", "single-start", set_on(nn.LSTM, dropout=0.1),
        "lstm.dropout is 0.1, recorded 0"),
    "another padding mode": (
        "mnist-logistic", "cnn", set_on(nn.Conv2d, padding_mode="circular"),
        "padding_mode is circular, recorded zeros"),
    "another padding_idx": (
        "imdb-cnn", "keep-first", set_on(nn.Embedding, padding_idx=0),
        "padding_idx is 0, recorded 1"),
    "GELU for ReLU": (
        "titanic-dnn", "script", gelu_for_relu, "relu1.kind is GELU, recorded ReLU"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_constant_that_no_shape_shows_is_seen(name: str) -> None:
    example, variant, change, said = PLANTED[name]
    assert said in failing(planted(example, variant, change), (CHECK,))[CHECK]


def another_function(problem: Problem) -> Steps:
    """ring-dnn's mid-level net, with a leaky unit in the place of the plain one."""
    relu, F.relu = F.relu, partial(F.leaky_relu, negative_slope=0.02)  # type: ignore[assignment]
    torch_relu, torch.relu = torch.relu, partial(F.leaky_relu, negative_slope=0.02)
    try:
        steps = LOADED.example("ring-dnn").variant("mid").steps
        assert steps is not None
        yield from steps(problem)
    finally:
        F.relu, torch.relu = relu, torch_relu


def test_another_function_in_the_place_of_a_layer_is_seen() -> None:
    own = LOADED.example("ring-dnn")
    wrong = replace(own, variants=(replace(own.variant("mid"), steps=another_function),))
    assert "leaky_relu(negative_slope=0.02)" in failing(wrong, (CHECK,))[CHECK]


def test_unchanged_it_passes() -> None:
    own = LOADED.example("titanic-dnn")
    assert failing(replace(own, variants=(own.variant("script"),)), (CHECK,)) == {}


def test_an_example_without_records_is_not_checked() -> None:
    own = LOADED.example("titanic-dnn")
    other = replace(own, name="not-recorded")
    assert facts._recorded_model(_subject(other)) is None


def _subject(example: Example) -> facts.Subject:
    from refimpl.composition import CPU

    return facts.Subject(example, example.variants[0], CPU, "stand-in")


class TestLayers:
    @pytest.mark.parametrize(
        ("layer", "expected"),
        [
            (nn.BatchNorm1d(4, eps=1e-3, momentum=0.2),
             {"eps": 1e-3, "momentum": 0.2, "affine": True}),
            (nn.LeakyReLU(0.02), {"negative_slope": 0.02}),
            (nn.GELU("tanh"), {"approximate": "tanh"}),
            (nn.Conv2d(1, 2, 3, padding=1, bias=False), {"padding": [1, 1], "bias": False}),
            (nn.LSTM(2, 3, num_layers=2, dropout=0.1, bias=False),
             {"dropout": 0.1, "num_layers": 2, "bias": False}),
        ],
        ids=lambda own: type(own).__name__,
    )  # fmt: skip
    def test_arguments_are_read_off_the_layer(
        self, layer: nn.Module, expected: dict[str, object]
    ) -> None:
        found = of_models.layers(layer)["the module itself"]
        assert found["kind"] == type(layer).__name__
        assert {name: found[name] for name in expected} == expected

    def test_a_layer_of_ones_own_has_those_that_it_keeps(self) -> None:
        class Noise(nn.Module):
            def __init__(self, spread: float) -> None:
                super().__init__()
                self.spread = spread

        assert of_models.layers(nn.Sequential(Noise(0.5)))["0"] == {"spread": 0.5}


class TestVersions:
    """What only one of two versions of torch has as an argument says nothing."""

    def test_a_new_argument_with_its_default_is_no_difference(self) -> None:
        recorded = {"kind": "Dropout", "p": 0.1}
        assert of_models.comparable({"kind": "Dropout", "p": 0.1, "inplace": False}, recorded) == (
            recorded
        )

    def test_a_new_argument_with_another_value_is(self) -> None:
        found = {"kind": "Dropout", "p": 0.1, "inplace": True}
        assert of_models.comparable(found, {"kind": "Dropout", "p": 0.1}) == found

    def test_an_argument_that_is_gone_is_no_difference(self) -> None:
        recorded = {"kind": "Dropout", "p": 0.1, "once_there": 3}
        assert of_models.comparable({"kind": "Dropout", "p": 0.1}, recorded) == recorded

    def test_a_lost_argument_that_the_layer_still_takes_is(self) -> None:
        assert of_models.comparable({"kind": "Dropout"}, {"kind": "Dropout", "p": 0.1}) == {
            "kind": "Dropout"
        }


def test_a_named_number_that_the_loop_reads_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    own = LOADED.example("covid-lstm")
    several = own.variant("several-starts")
    assert several.steps is not None
    monkeypatch.setitem(several.steps.__globals__, "CONVERGED", 2.0)
    found = failing(replace(own, variants=(several,)), (CHECK,))
    assert "constants.CONVERGED is 2, recorded 1" in found[CHECK]
