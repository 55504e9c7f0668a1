"""Failures of one cause are one finding, which names what they share and says it in words."""

from dataclasses import replace
from pathlib import Path

import pytest
from fakes.runs import failed, passed

from refimpl.checking.checks import Measurement, Place, true
from refimpl.cli.main import cli
from refimpl.conformance.checks import ALL
from refimpl.report.findings import CLOSER, EXPECT, EXPORT, REFERENCE, findings, next_steps
from refimpl.report.verdict import sentence

HEADER = {"device": "cpu", "environment": {"packages": {"torch": "2.14.1"}}}

NETS = {
    ("titanic-dnn", "script"): ("layer:Linear", "layer:ReLU", "loss:BCELoss", "optimizer:Adam"),
    ("ring-dnn", "mid"): ("layer:Linear", "loss:BCELoss", "optimizer:Adam"),
    ("linear-regression-2d", "high"): ("layer:Linear", "loss:MSELoss", "optimizer:Adam"),
    ("linear-regression-1d", "loss"): ("loss:MSELoss", "optimizer:SGD"),
}
"""What the variants of some made-up examples are made of."""


def run(wrong, check="golden-trajectory", **measured):
    """One check of every net; it fails where ``wrong`` says so of what the net is made of."""
    results = []
    for (example, variant), uses in NETS.items():
        result = passed(example, check, variant=variant, uses=uses)
        if wrong(uses):
            place = measured.get("place")
            message = measured.get("message", "it diverges")
            own = Measurement("agreement", False, "= True", False, message, place=place)
            result = replace(result, outcome="failed", reason=message, measurements=(own,))
        results.append(result)
    return results


def having(name):
    return lambda uses: any(part.endswith(f":{name}") for part in uses)


def test_a_loss_that_is_off_by_a_factor_is_named_with_the_factor():
    place = Place(1, "loss", "", 0.69321, 0.6931406889)
    (finding,) = findings(run(having("BCELoss"), place=place))
    assert finding.sentence == "BCELoss is 1e-4 too large"
    assert finding.extent == ("2 checks in ring-dnn, titanic-dnn; first seen in the loss of step 1")


def test_an_optimizer_that_updates_otherwise_is_named():
    (finding,) = findings(run(having("Adam"), place=Place(1, "parameter", "b", 0.1, 0.11)))
    assert finding.sentence == "Adam makes another update"
    assert len(finding.results) == 3


def test_a_layer_that_is_off_in_evaluation_is_named_with_the_mode():
    place = Place(1, "output", "", 1.01, 1.0)
    message = "in evaluation the output is 1.01, expected 1"
    results = run(having("Linear"), "evaluates-as-stated", place=place, message=message)
    (finding,) = findings(results)
    assert finding.sentence == "Linear is 1.0% too large in evaluation"


def test_a_kernel_that_is_named_is_one_finding_with_what_fails_besides_in_its_variants():
    where = "step 1, aten::addmm in linear1: found 1.2, expected 1.1"
    off = replace(true("kernels", False, "it is off", where), isolates="aten::addmm")
    shows = failed("titanic-dnn", "kernels", variant="script", measurements=(off,))
    besides = failed("titanic-dnn", "golden-trajectory", variant="script")
    elsewhere = failed("autograd", "exact-values", variant="-", reason="a is 1, expected 2")
    found = findings([besides, elsewhere, shows])
    assert [f.sentence for f in found] == ["the kernel aten::addmm is wrong", "a is 1, expected 2"]
    assert found[0].results == (shows, besides)


def alone(what, message="it is off", **place):
    """A figure about one thing of torch, by itself."""
    own = Place(0, "output", what, **place) if place else None
    return replace(true(what, False, message), isolates=what, place=own)


def test_a_loss_that_a_probe_names_is_named_though_variants_without_it_are_probed_too():
    place = Place(1, "loss", "", 0.69321, 0.6931406889)
    probed = [
        failed(example, "right-at-the-ends", variant=variant, uses=uses,
               measurements=(alone("BCELoss"),))
        for (example, variant), uses in NETS.items()
    ]  # fmt: skip
    (finding,) = findings([*run(having("BCELoss"), place=place), *probed])
    assert finding.sentence == "BCELoss is 1e-4 too large"
    assert len(finding.results) == 6


def test_a_layer_that_is_off_by_a_factor_when_called_alone_is_named_with_factor_and_mode():
    own = alone("Linear", "Linear linear1 in evaluation is off", found=1.01, expected=1.0)
    shows = failed("titanic-dnn", "each-layer-is-right", variant="script", measurements=(own,))
    (finding,) = findings([shows])
    assert finding.sentence == "Linear is 1.0% too large in evaluation"
    assert finding.first_seen == ""


@pytest.mark.parametrize(
    ("found", "expected", "says"),
    [
        (float("nan"), 0.5, "BCELoss is not finite"),
        (float("inf"), 100.0, "BCELoss is not finite"),
        (1.5, 0.5, "BCELoss is 3 times what it should be"),
        (-0.5, 0.5, "BCELoss is -1 times what it should be"),
    ],
)
def test_what_is_far_off_or_not_finite_is_said_so(found, expected, says):
    own = alone("BCELoss", found=found, expected=expected)
    shows = [
        failed("imdb-cnn", "right-at-the-ends", variant=variant, measurements=(own,))
        for variant in ("keep-first", "keep-last")
    ]
    (finding,) = findings(shows)
    assert finding.sentence == says


def test_one_number_that_is_far_off_shows_no_factor():
    own = alone("Conv2d", found=-8.4, expected=1.0)
    shows = failed("layers", "values-compute-rightly", measurements=(own, own))
    (finding,) = findings([shows])
    assert finding.sentence == "Conv2d is wrong"


def test_a_kernel_is_named_before_the_layer_that_calls_it_and_another_kernel_apart():
    layer, kernel = alone("Linear"), alone("aten::addmm")
    results = [
        failed("titanic-dnn", "each-layer-is-right", variant="script", measurements=(layer,)),
        failed("titanic-dnn", "each-kernel-is-right", variant="script", measurements=(kernel,)),
        failed("mnist-cnn", "each-kernel-is-right", variant="script",
               measurements=(alone("aten::mean"),)),
    ]  # fmt: skip
    sentences = [finding.sentence for finding in findings(results)]
    assert sentences == ["the kernel aten::addmm is wrong", "the kernel aten::mean is wrong"]


def test_what_a_passing_variant_has_as_well_is_not_to_blame():
    results = run(lambda uses: "layer:ReLU" in uses or "optimizer:SGD" in uses)
    assert [finding.sentence for finding in findings(results)] == ["it diverges", "it diverges"]


def test_two_causes_are_two_findings():
    loss = run(having("BCELoss"), place=Place(1, "loss", "", 1.0001, 1.0))
    tables = [failed("tensors", "exact-values", variant="-", reason="trace is 1, expected 2")]
    assert [finding.sentence for finding in findings([*loss, *tables])] == [
        "BCELoss is 1e-4 too large", "trace is 1, expected 2"
    ]  # fmt: skip


def test_a_failure_of_one_example_says_what_is_wrong_in_words_and_the_figure_second():
    message = "the gradient of c is wrong: the loss changes by 2, the gradient says 3"
    slope = failed("autograd", "gradient-is-the-slope", message)
    (finding,) = findings([slope])
    assert finding.sentence == "the gradient of c is wrong"
    assert finding.figure == message


def test_what_to_do_next_is_a_command_for_the_check_a_program_to_report_and_where_to_read():
    results = run(having("BCELoss"), place=Place(1, "loss", "", 1.0001, 1.0))
    (finding,) = findings(results)
    assert dict(next_steps(finding)) == {
        "look closer": "refimpl golden ring-dnn",
        "to report it": "refimpl export ring-dnn --variant mid --script",
        "if it is known": EXPECT,
        "more on how to read it": REFERENCE,
    }


def test_a_function_that_torch_lacks_is_called_gone_and_not_computed_by_hand():
    gone = "AttributeError: module 'torch' has no attribute 'trace' (tensors.py:529)"
    (finding,) = findings([failed("tensors", "exact-values", gone)])
    steps = dict(next_steps(finding))
    assert steps["read"].startswith("torch has no torch.trace: mend what uses it, or list it as")
    bisect = "refimpl bisect tensors --check exact-values --from OLD --to NEW"
    assert steps["since when"] == bisect


def test_the_commands_name_the_plugins_that_the_run_was_given():
    results = run(having("BCELoss"), place=Place(1, "loss", "", 1.0001, 1.0))
    (finding,) = findings(results)
    assert dict(next_steps(finding, ["mine.py"]))["look closer"].endswith(" --plugin mine.py")


def test_every_command_that_is_advised_is_one():
    for template in (*CLOSER.values(), EXPORT):
        words = template.format(example="e", variant="v", execution="x").split()
        cli.commands[words[1]].make_context(words[1], words[2:])  # parses, and runs nothing
    assert {check.name for check in ALL} >= CLOSER.keys()
    heading = REFERENCE.partition("#")[2].replace("-", " ")
    page = Path(__file__).parent.parent / "docs" / "reference.md"
    assert f"### {heading.capitalize()}\n" in page.read_text("utf-8")


def test_without_a_failure_there_is_no_finding():
    assert findings([passed(), replace(failed(), outcome="xfailed")]) == ()


# --- the sentence --------------------------------------------------------------------------------


def test_the_sentence_of_a_run_in_which_all_holds():
    gone = Measurement("torch.qr", "wrong", "= wrong", True)
    results = [passed(), passed("tensors", "errata", variant="-", measurements=(gone,))]
    assert sentence(HEADER, results) == (
        "torch 2.14.1 on CPU does what the documents say: 2 checks. "
        "1 statement is listed as erratum."
    )


def test_the_sentence_of_a_run_with_findings_spells_them_out():
    place = Place(1, "loss", "", 1.0001, 1.0)
    says = sentence(HEADER, run(having("BCELoss"), place=place), shown=3)
    assert says == (
        "torch 2.14.1 on CPU does not do what the documents say: 1 finding in 4 checks. "
        "1. BCELoss is 1e-4 too large (2 checks in ring-dnn, titanic-dnn; "
        "first seen in the loss of step 1)."
    )


@pytest.mark.parametrize("complete", [False, True])
def test_a_run_that_was_cut_short_does_not_say_that_all_holds(complete):
    assert ("does what" in sentence(HEADER, [passed()], complete)) is complete


def test_the_sentence_says_of_which_examples_if_not_of_all():
    says = sentence({**HEADER, "examples": ["tensors"]}, [passed("tensors")])
    assert says.startswith("torch 2.14.1 on CPU does what the documents say of tensors: 1 check.")
