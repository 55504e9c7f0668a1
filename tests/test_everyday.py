"""examples/everyday: programs of many kinds, each of which gets every check or says why not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from refimpl import Step
from refimpl.conformance import check_example
from refimpl.executions import ensemble
from refimpl.loading.registry import load

SOURCE = Path(__file__).parent.parent / "examples" / "everyday" / "src" / "refimpl_everyday"
PROGRAMS = sorted(path.stem for path in SOURCE.glob("[a-z]*.py"))

LONGEST = 120
"""Lines of a program, its data and what its document states included; recipes are six of them."""


def given_by(program: str):
    loaded = load([str(SOURCE / f"{program}.py")])
    own = str(SOURCE / program)
    assert not [problem for problem in loaded.problems if str(SOURCE) in problem.origin]
    return [each.value for each in loaded.examples.values() if own in each.origin]


def test_there_are_eight_programs_and_the_recipes():
    assert len(PROGRAMS) == 9


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_check_passes(program):
    examples = given_by(program)
    assert examples
    for example in examples:
        stacks = [v for v in example.variants if ensemble.supports(v) and not ensemble.unfit(v)]
        together = ["ensemble"] if stacks else []
        answers = check_example(example, executions=["cpu-f64", *together])
        wrong = [a for a in answers if a.outcome != "passed"]
        exempt = [a.check for a in wrong if a.reason.startswith("exempt: ")]
        assert len(exempt) == len(wrong), [f"{a.id}: {a.reason}" for a in wrong]
        assert exempt == (["updates-as-stated"] if example.name == "recipe-exempt" else [])
        assert {"gradient-is-the-slope", "resumed-run-is-the-same"} <= {a.check for a in answers}


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name != "recipes"])
def test_a_program_is_short(program):
    assert len((SOURCE / f"{program}.py").read_text().splitlines()) <= LONGEST


# --- the page that leads to them -----------------------------------------------------------------

HOW = Path(__file__).parent.parent / "docs" / "how-do-i.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in HOW.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| wanted", "| ---"))
]


@pytest.mark.parametrize(("wanted", "how", "recipe", "lines"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_page_leads_to_a_recipe_that_does_it(wanted, how, recipe, lines):
    files = re.findall(r"`(\w+)\.py`", recipe)
    assert files
    assert set(files) <= set(PROGRAMS)
    text = "\n".join((SOURCE / f"{file}.py").read_text() for file in files)
    code = " ".join(re.findall(r"`([^`]+)`", how))
    for name in re.findall(r"(\w+)(?:=|\()", code) + re.findall(r"problem\.(\w+)", code):
        assert re.search(rf"\b{name}\b", text), f"{wanted}: no {name} in {files}"
    for file, count in zip(files, lines.split(", "), strict=True):
        if file != "recipes":
            assert len((SOURCE / f"{file}.py").read_text().splitlines()) == int(count)


def test_the_page_has_a_row_for_every_recipe():
    named = {file for row in ROWS for file in re.findall(r"`(\w+)\.py`", row[2])}
    assert named == set(PROGRAMS)


# --- what is not saved is seen -------------------------------------------------------------------


def outcome(example, variant, check):
    planted = replace(example, variants=(variant,))
    (answer,) = [a for a in check_example(planted, executions=[]) if a.check == check]
    return answer


def forgetting(steps, names):
    """The same loop, whose steps do not show what they keep under these names."""

    def loop(problem):
        resume = problem.resume

        def without(kept, name=""):
            return kept if name in names else resume(kept, name)

        object.__setattr__(problem, "resume", without)
        for step in steps(problem):
            if isinstance(step, Step):
                step.state = {n: kept for n, kept in step.state.items() if n not in names}
            yield step

    return loop


@pytest.mark.parametrize(
    ("program", "kept"),
    [("char_lstm", "schedule"), ("char_lstm", "state"), ("forecast", "average")],
)
def test_what_a_checkpoint_lacks_fails_where_the_run_is_resumed(program, kept):
    (example,) = given_by(program)
    sound = example.variants[0]
    variant = replace(sound, steps=forgetting(sound.steps, {kept}))
    answers = [
        outcome(example, variant, check)
        for check in ("resumed-run-is-the-same", "checkpoint-predicts-the-same")
    ]
    assert "failed" in {answer.outcome for answer in answers}, [a.reason for a in answers]


def test_a_wrong_gradient_of_one_of_two_losses_is_seen():
    (example,) = given_by("gan")
    sound = example.variants[0]

    def wrong(problem):
        for step in sound.steps(problem):
            gradients = step.used_gradients()
            gradients["g.0.weight"] = 1.01 * gradients["g.0.weight"]
            step.gradients = gradients
            yield step

    answer = outcome(example, replace(sound, steps=wrong), "gradient-is-the-slope")
    assert answer.outcome == "failed"
    assert "g.0.weight" in answer.reason
    assert "d.0.weight" not in answer.reason


def test_an_exemption_is_counted_with_its_reason_and_an_idle_one_fails():
    (example,) = given_by("vae")
    sound = example.variants[0]
    exempt = replace(sound, exempt={"output-shape": "the document shows none"})
    answer = outcome(example, exempt, "output-shape")
    assert (answer.outcome, answer.reason) == ("skipped", "exempt: the document shows none")
    idle = replace(sound, exempt={"layer-table": "there is none"})
    verdict = outcome(example, idle, "expected-failures")
    assert verdict.outcome == "failed"
    assert "exempt from 'layer-table', which is no check of it" in verdict.reason


def test_a_run_may_end_early_where_its_protocol_says_so():
    from refimpl.training.loop import train
    from refimpl.training.problem import pose

    early, *_ = [e for e in given_by("recipes") if e.name == "recipe-early-stopping"]
    variant = early.variants[0]
    history = train(variant, pose(variant))
    losses = history.curve("val_loss")
    assert len(losses) < 60
    assert min(losses) == losses[-3]


def test_noise_is_the_same_in_every_precision():
    from refimpl.training.problem import pose

    (example,) = given_by("vae")
    problem = pose(example.variants[0])
    problem.generator.manual_seed(3)
    drawn = problem.tensor(problem.draws().standard_normal(4))
    double = problem.but(precision="float64")
    assert torch.equal(double.tensor(double.draws().standard_normal(4)).float(), drawn)
