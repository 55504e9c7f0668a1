"""A plugin of contract 1, kept as it was, runs unchanged: every check gets the same answer."""

from pathlib import Path

import pytest

from refimpl import Step
from refimpl.authoring.linting import lint
from refimpl.conformance import check_example
from refimpl.loading.registry import load

PLUGIN = Path(__file__).parent / "contract_1" / "legendre_sine.py"
"""docs/tutorial-example as it was when contract 2 came."""


@pytest.fixture(scope="module")
def example():
    loaded = load([str(PLUGIN)], only=["legendre-sine"])
    found = [each for each in loaded.problems if "legendre-sine" in each.examples]
    assert not found
    return loaded.example("legendre-sine")


def test_it_passes_every_check(example):
    answers = check_example(example, executions=["cpu-f64", "ensemble"])
    assert {answer.outcome for answer in answers} == {"passed"}
    assert len(answers) > 20


def test_it_has_the_defaults_of_its_contract(example):
    function, module = example.variants
    assert function.bare
    assert not function.has_module
    assert module.has_module
    assert not module.data_parallel


def test_lint_says_what_contract_2_writes_instead(example):
    texts = [advice.text for advice in lint(example).advice]
    assert any(text.startswith("it is written for contract 1") for text in texts), texts


def test_a_step_may_be_written_as_contract_1_wrote_it():
    model, optimizer = (lambda x: x), object()
    step = Step(1.0, {"w": 2.0}, 3.0, 4.0, model, optimizer, {"w": 5.0})
    assert (step.model, step.optimizer, step.gradients) == (model, optimizer, {"w": 5.0})
    assert step.parameters == {"w": 2.0}
    by_name = Step(loss=1.0, parameters={"w": 2.0}, model=model, optimizer=optimizer)
    assert (by_name.model, by_name.optimizer) == (model, optimizer)
