"""Executions are composed by name; what cannot be composed is refused in one line."""

from __future__ import annotations

import copy
import itertools
import os
from dataclasses import replace

import pytest
import torch
from fakes.sound import EXAMPLE, MODULE
from torch import nn

from refimpl import Execution
from refimpl.checking.checks import Subject, obstacle
from refimpl.checking.results import result_from
from refimpl.composition import CompositionError, compose, on_device, parts_of, question_of
from refimpl.conformance import check_example
from refimpl.contract import Variant
from refimpl.errors import RefimplError, UnknownNameError
from refimpl.executions.exported import Exported
from refimpl.loading import registry
from refimpl.loading.registry import Registry
from refimpl.parity.against_oracle import compare_execution, precision_of
from refimpl.requirements import ESCAPES_AUTOCAST, REFUSES_BCE

STEPS = 3
PAIRED = ("f64", "bf16", "compile", "channels-last", "ensemble", "ddp", "export", "fsdp")
IMPOSSIBLE = {
    ("compile", "export"): "both set the compiler",
    ("ensemble", "export"): "ensemble does not call the module that export wraps",
    ("ensemble", "fsdp"): "both set how steps are made",
    ("ddp", "fsdp"): "both set how steps are made",
    ("channels-last", "fsdp"): "both set the memory format",
    ("f64", "bf16"): "both set the precision",
    ("compile", "ensemble"): "ensemble does not call the module that compile wraps",
    ("channels-last", "ensemble"): "ensemble does not call the module that channels-last wraps",
    ("ensemble", "ddp"): "both set how steps are made",
}
EXAMPLES = ("ring-dnn", "titanic-dnn", "mnist-logistic", "mnist-cnn")
LONG = bool(os.environ.get("REFIMPL_LONG"))


@pytest.fixture(scope="module")
def loaded() -> Registry:
    return registry.load(only=EXAMPLES)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "device", "name"),
    [
        ("f64", "cpu", "cpu+f64"),
        ("compile+bf16", "cpu", "cpu+bf16+compile"),
        ("compile+channels-last+bf16+cpu", "cpu", "cpu+bf16+channels-last+compile"),
        ("compile", "cuda", "cuda+compile"),
        ("cuda+compile", "cuda", "cuda+compile"),
        ("cuda+bf16", "cpu", "cuda+bf16"),
        ("ddp+f64+xpu", "cpu", "xpu+f64+ddp"),
        ("deterministic+data-parallel+cuda:1", "cpu", "cuda:1+data-parallel+deterministic"),
        ("cpu", "cpu", "cpu"),
        ("mps", "cpu", "mps"),
        ("cpu-f64", "cpu", "cpu+f64"),
        ("autocast-bf16", "cpu", "cpu+bf16"),
        ("ddp-nccl-2", "cpu", "cuda+ddp"),
    ],
)
def test_a_name_has_one_order_however_it_is_written(
    loaded: Registry, asked: str, device: str, name: str
) -> None:
    made = loaded.execution(asked, device)
    assert made.name == name
    assert made.device == name.split("+")[0]


def test_device_precision_and_steps_come_from_the_part_that_sets_them(loaded: Registry) -> None:
    made = loaded.execution("ddp+bf16+compile")
    assert (made.device, made.dtype, made.rounding) == ("cpu", None, "bfloat16")
    assert made.steps is not None
    assert made.wrap is not None
    assert not made.sees_outputs
    assert loaded.execution("cuda+f64").dtype == "float64"


@pytest.mark.parametrize(
    ("asked", "device", "says"),
    [
        ("f64+bf16", "cpu", "f64+bf16: f64 and bf16 both set the precision; name one of them"),
        ("cuda+mps", "cpu", "cuda+mps: cuda and mps both set the device; name one of them"),
        ("cuda+bf16", "mps", "--device mps and execution cuda+bf16 both set the device"),
        ("compile+graphs", "cpu", "compile and graphs both set the compiler"),
        ("ddp+data-parallel", "cpu", "both set the replicas"),
        ("bf16+bf16", "cpu", "it names bf16 twice"),
        ("recomputed+recomputed", "cpu", "no execution 'recomputed'"),
        ("cuda+cuda", "cpu", "it names cuda twice"),
        ("ensemble+compile", "cpu", "ensemble does not call the module that compile wraps"),
        ("bf61+compile", "cpu", "bf61+compile: there is no execution 'bf61'; did you mean 'bf16'"),
        ("bf16+", "cpu", "there is no execution ''"),
    ],
)
def test_what_cannot_be_composed_is_refused_in_one_line(
    loaded: Registry, asked: str, device: str, says: str
) -> None:
    with pytest.raises(RefimplError) as refused:
        loaded.execution(asked, device)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_part_named_twice_is_refused() -> None:
    mine = Execution("mine", "a wrapper", wrap=nn.Sequential)
    with pytest.raises(CompositionError, match="it names mine twice"):
        compose([mine, mine])


def test_wraps_are_put_on_from_the_inside_out_and_contexts_are_all_entered() -> None:
    order: list[str] = []

    def noted(what: str):
        def wrap(module: nn.Module) -> nn.Module:
            order.append(what)
            return module

        return wrap

    parts = [
        Execution("a", "", wrap=noted("replicas"), sets=("the replicas",)),
        Execution("b", "", wrap=noted("compiler"), sets=("the compiler",)),
        Execution("c", "", wrap=noted("other")),
        Execution("d", "", wrap=noted("format"), sets=("the memory format",)),
    ]
    made = compose(parts)
    assert made.wrap is not None
    made.wrap(nn.Linear(1, 1))
    assert order == ["format", "other", "compiler", "replicas"]
    assert made.name == "cpu+d+c+b+a"


def test_what_any_part_lacks_is_missing_and_what_all_support_is_supported() -> None:
    lacking = Execution("lacking", "", missing=lambda: "needs luck")
    picky = Execution("picky", "", supports=lambda variant: False)
    unfit = Execution("unfit", "", unfit=lambda variant: "needs no LSTM")
    assert compose([picky, lacking]).missing() == "needs luck"
    assert not compose([lacking, picky]).supports(MODULE)
    made = compose([unfit])
    assert obstacle(Subject(EXAMPLE, MODULE, made, "stand-in")) == "needs no LSTM"


def test_questions_are_the_same_on_every_device() -> None:
    assert question_of(on_device("cuda")) == question_of(on_device("cpu")) == "plain"
    parts = [Execution("f64", "", dtype="float64")]
    assert question_of(compose(parts, "mps")) == question_of(compose(parts)) == "f64"
    assert parts_of("cuda:1+bf16") == ("cuda:1", "bf16")


def test_results_of_earlier_versions_have_todays_names() -> None:
    record = {
        "example": "e", "variant": "v", "check": "c", "tier": "stand-in", "outcome": "skipped",
        "reason": "needs a CUDA device",
    }  # fmt: skip
    for old, today in (("channels-last", "cuda+channels-last"), ("ddp-gloo-2", "cpu+ddp")):
        assert result_from({**record, "execution": old}).execution == today
    assert result_from({**record, "execution": "cuda+bf16"}).execution == "cuda+bf16"


def test_autocast_on_a_gpu_says_that_torch_refuses_bce_there(loaded: Registry) -> None:
    on_gpu, here = loaded.execution("cuda+bf16"), loaded.execution("bf16")
    titanic = loaded.example("titanic-dnn").variant("script")
    assert on_gpu.unfit(titanic) == REFUSES_BCE
    assert here.unfit(titanic) is None
    assert on_gpu.unfit(loaded.example("mnist-cnn").variant("script")) is None


def test_tf32_has_the_digits_of_float16(loaded: Registry) -> None:
    tf32 = loaded.execution("cuda+tf32")
    assert str(precision_of(tf32)) == "torch.float16"
    assert tf32.missing() is not None or on_device("cuda").missing() is None


def test_one_check_of_a_composition_by_its_name() -> None:
    answers = check_example(EXAMPLE, executions=["f64+ensemble"])
    compared = [a for a in answers if a.check == "same-on-every-execution"]
    assert {(a.execution, a.outcome) for a in compared} == {("cpu+f64+ensemble", "passed")}


def test_an_unknown_device_is_no_part(loaded: Registry) -> None:
    with pytest.raises(UnknownNameError, match="no execution 'cuda-x'"):
        loaded.execution("cuda-x+bf16")


# --- two at a time -------------------------------------------------------------------------------

COMPOSITIONS = [
    *PAIRED,
    *("+".join(pair) for pair in itertools.combinations(PAIRED, 2) if pair not in IMPOSSIBLE),
]
SLOW = {"compile", "export", "ddp", "fsdp"}
QUICK = [name for name in COMPOSITIONS if not SLOW & {*parts_of(name)}]


@pytest.mark.parametrize("pair", IMPOSSIBLE, ids="+".join)
def test_every_impossible_pair_is_refused_in_one_line(
    loaded: Registry, pair: tuple[str, str]
) -> None:
    with pytest.raises(CompositionError, match=IMPOSSIBLE[pair]):
        loaded.execution("+".join(pair))


def agrees(variant: Variant, name: str, loaded: Registry) -> None:
    execution = loaded.execution(name)
    if not execution.supports(variant):
        pytest.skip(f"{name} does not support {variant.name}")
    if lacking := execution.missing():
        pytest.skip(lacking)
    if refused := execution.unfit(variant):
        pytest.skip(refused)
    comparison = compare_execution(variant, execution, "stand-in", STEPS)
    assert comparison.agrees, str(comparison)
    assert not comparison.within_float32


@pytest.mark.parametrize("name", QUICK)
def test_a_composition_is_within_its_budget(loaded: Registry, name: str) -> None:
    images = "channels-last" in name
    variant = loaded.example("mnist-cnn" if images else "titanic-dnn").variant("script")
    agrees(variant, name, loaded)


def test_ddp_computes_in_the_precision_that_it_is_composed_with(loaded: Registry) -> None:
    """It computed in float32 once, and passed."""
    agrees(loaded.example("titanic-dnn").variant("script"), "ddp+bf16", loaded)


def test_a_net_of_convolutions_alone_is_not_narrow_in_an_ensemble_on_the_cpu_and_is_refused(
    loaded: Registry,
) -> None:
    both = loaded.execution("bf16+ensemble")
    convolutions = loaded.example("mnist-logistic").variant("device")
    says = both.unfit(convolutions)
    assert says == ESCAPES_AUTOCAST
    assert obstacle(Subject(loaded.example("mnist-logistic"), convolutions, both, "stand-in"))
    # It holds still: once torch reaches them, this fails, and the refusal can go.
    assert compare_execution(convolutions, both, "stand-in", 1).within_float32
    for other in ("bf16", "ensemble", "f64+ensemble", "cuda+bf16+ensemble"):
        assert loaded.execution(other).unfit(convolutions) is None
    assert both.unfit(loaded.example("titanic-dnn").variant("script")) is None


@pytest.mark.parametrize("name", ["export", "bf16+export", "fsdp", "bf16+fsdp"])
def test_exported_graphs_and_sharded_parameters_train_as_the_oracle(
    loaded: Registry, name: str
) -> None:
    agrees(loaded.example("titanic-dnn").variant("script"), name, loaded)


def test_an_exported_graph_keeps_running_statistics_modes_and_other_batches() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))
    own, twin = Exported(net), copy.deepcopy(net)
    for rows in (8, 8, 3):
        x = torch.randn(rows, 4)
        torch.manual_seed(1)
        made = own(x)
        torch.manual_seed(1)
        torch.testing.assert_close(made, twin(x))
    assert net[1].num_batches_tracked == 3
    torch.testing.assert_close(net[1].running_mean, twin[1].running_mean)
    with torch.no_grad():
        net[3].bias.add_(1)
    assert torch.allclose(own.eval()(x), twin.eval()(x) + 1)


def test_a_wrong_layer_under_export_is_found_in_step_1(loaded: Registry) -> None:
    def wrong(module: nn.Module) -> nn.Module:
        right = module.forward
        module.forward = lambda x: right(x) * 1.001
        return Exported(module)

    variant = loaded.example("titanic-dnn").variant("script")
    exported = replace(loaded.execution("export"), wrap=wrong)
    parted = compare_execution(variant, exported, "stand-in", STEPS).divergence
    assert parted is not None
    assert parted.step == 1


def test_a_narrow_run_that_a_process_makes_in_float32_is_found(loaded: Registry) -> None:
    variant = loaded.example("titanic-dnn").variant("script")
    ddp, bf16 = loaded.execution("ddp"), loaded.execution("bf16")
    claimed = replace(ddp, rounding=bf16.rounding)
    assert compare_execution(variant, claimed, "stand-in", STEPS).within_float32


@pytest.mark.skipif(not LONG, reason="minutes: every composition, four examples (REFIMPL_LONG=1)")
@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_every_composition_of_every_variant(loaded: Registry, name: str, example: str) -> None:
    own = loaded.example(example)
    execution = loaded.execution(name)
    variants = [v for v in own.variants if execution.supports(v) and not execution.unfit(v)]
    if not variants:
        pytest.skip(f"{name} supports no variant of {example}")
    agrees(variants[-1], name, loaded)
