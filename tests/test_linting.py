"""Lint says what a fact should read and what a variant does that the suite shows only later."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import refimpl
from refimpl import (
    DataSet,
    Example,
    Facts,
    Figure,
    Layer,
    ModuleVariant,
    Protocol,
    Rows,
    Sizes,
    Splits,
    Step,
    Variant,
)
from refimpl.authoring.linting import lint
from refimpl.authoring.sourcecode import source_of
from refimpl.cli.main import cli
from refimpl.loading.registry import load
from refimpl.training.global_rng import NOBODY_SEEDS, draws_from

ROWS, BATCH = 40, 10


def points() -> Splits:
    x = np.linspace(-1, 1, ROWS, dtype=np.float32)[:, None]
    return Splits(Rows(x, 2 * x + 1))


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


def train(problem, batches=None, after_each=lambda output: None):
    """A sound loop; ``after_each`` is what a test plants in it."""
    model = problem.load(Line())
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.lr)
    parameters = dict(model.named_parameters())
    for x, y in batches or problem.batches():
        output = model(x)
        loss = nn.functional.mse_loss(output, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_each(output)
        yield Step(loss, parameters, output, y, model, optimizer)


TRUE_FACTS = Facts(
    parameters=2,
    trainable=2,
    layers=(Layer("linear", "Linear", (-1, 1), 2),),
    state_dict=("linear.weight", "linear.bias"),
    sizes=Sizes(0.000004, 0.000008, 0.000008, 0.000019),
    output=(BATCH, 1),
    figures=(Figure("loss", 0.0, real=(0.0, 0.1)),),
)


def example_of(steps=train, facts=TRUE_FACTS, data=points, **fields) -> Example:
    variant = Variant("script", steps, **{"build": Line, **fields})
    return Example(
        "line", "A line", "tests", "1", (variant,), data=DataSet("line", data), facts=facts,
        protocol=Protocol(epochs=3, learning_rate=0.1, batch_size=BATCH), loss=nn.MSELoss(),
    )  # fmt: skip


def said(example, level=None, **options) -> str:
    advice = lint(example, **options).advice
    return "\n".join(a.text for a in advice if level in (None, a.level))


def test_a_sound_example_is_told_nothing():
    linted = lint(example_of())
    assert linted.advice == ()
    assert linted.sound
    assert linted.facts["script"] == TRUE_FACTS


# --- facts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"parameters": 3}, "parameters=3 should read parameters=2"),
        ({"trainable": 1}, "trainable=1 should read trainable=2"),
        ({"output": (10,)}, "output=(10,) should read output=(10, 1)"),
        ({"state_dict": ("w",)}, "should read state_dict=('linear.weight', 'linear.bias')"),
        ({"sizes": Sizes(1.0, 1.0, 1.0, 3.0)}, "should read sizes=Sizes(input=4e-06"),
        (
            {"layers": (Layer("linear", "Linear", (-1, 2), 2),)},
            "row 1 of layers should read Layer(name='linear', kind='Linear', output=(-1, 1)",
        ),
        ({"layers": TRUE_FACTS.layers * 2}, "layers has 2 rows, the live model 1"),
        ({"parameters": None}, "states no parameters=; the model has 2"),
    ],
)
def test_a_wrong_fact_is_named_with_what_it_should_read(wrong, text):
    example = example_of(facts=replace(TRUE_FACTS, **wrong))
    linted = lint(example)
    assert text in said(example, "error")
    assert not linted.sound
    assert linted.facts["script"] == TRUE_FACTS


def test_what_a_document_leaves_open_is_left_open():
    few = Facts(parameters=7, output=(1, 1))
    assert lint(example_of(facts=few)).facts["script"] == Facts(parameters=2, output=(BATCH, 1))


def test_all_that_could_be_stated_is_there_for_the_asking():
    linted = lint(example_of(facts=Facts(parameters=2)), every_fact=True)
    assert linted.facts["script"] == replace(TRUE_FACTS, figures=())


def test_facts_that_state_nothing_are_filled_in():
    linted = lint(example_of(facts=Facts()))
    assert linted.facts["script"] == replace(TRUE_FACTS, figures=())
    assert not linted.sound


# --- global generators ---------------------------------------------------------------------------

DRAWS = {
    "torch": lambda: torch.rand(1).numpy(),
    "NumPy": lambda: np.random.rand(1),
    "Python": lambda: np.array([random.random()]),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_from_a_global_generator_is_named(name):
    (found,) = draws_from(lambda: [np.zeros(2), DRAWS[name]()])
    assert found.startswith(name)
    assert found.endswith("global generator")


def test_a_draw_that_is_seeded_on_the_spot_is_none():
    def compute():
        torch.manual_seed(0)
        return [torch.rand(2).numpy(), np.random.default_rng(0).random(2)]

    assert draws_from(compute) == []


def test_a_draw_that_is_thrown_away_is_none():
    def compute():
        nn.Linear(3, 3)
        return [np.ones(3)]

    assert draws_from(compute) == []


def test_a_draw_that_nobody_seeds_is_told_by_the_rerun():
    assert draws_from(lambda: [np.random.default_rng().random(2)]) == [NOBODY_SEEDS]


def test_the_generators_are_left_as_they_were():
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for draw in DRAWS.values():
        draws_from(lambda draw=draw: [draw()])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def shuffled_by_torch(problem):
    def batches():
        for _ in problem.epochs():
            for rows in torch.randperm(ROWS).split(BATCH):
                yield problem.train.x[rows], problem.train.y[rows]

    yield from train(problem, batches())


def test_an_order_of_its_own_is_an_error():
    text = said(example_of(shuffled_by_torch), "error")
    assert text.startswith("its steps draw from torch's global generator; take order and start")


def test_a_start_of_its_own_is_an_error():
    def start(rng):
        return {"linear.weight": np.random.randn(1, 1), "linear.bias": np.zeros(1)}

    text = said(example_of(start=start), "error")
    assert text.startswith("its start is drawn from NumPy's global generator")


def test_a_stand_in_that_is_never_the_same_is_warned_of():
    def noisy():
        x = np.linspace(-1, 1, ROWS, dtype=np.float32)[:, None]
        return Splits(Rows(x, x + np.random.default_rng().random(x.shape, dtype=np.float32)))

    text = said(example_of(data=noisy), "warning")
    assert text.startswith(f"data set 'line' is drawn from {NOBODY_SEEDS}")


def test_dropout_by_its_layer_is_the_frameworks_business():
    class Net(Line):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x):
            return self.dropout(self.linear(x))

    example = example_of(facts=Facts(parameters=2))
    module = ModuleVariant("module", build=Net, optimizer=torch.optim.SGD)
    assert said(replace(example, variants=(module,))) == ""


# --- steps ---------------------------------------------------------------------------------------


def only_after_the_epoch(problem):
    for epoch in problem.epochs():
        *_, last = train(problem, problem.epoch_batches(epoch))
        yield last


def never(problem):
    for _ in train(problem):
        if problem.lr < 0:
            yield


def epochs_of_its_own(problem):
    for _ in range(5):
        yield from train(problem, problem.epoch_batches(0))


def breaks_off(problem):
    yield from train(problem)
    raise LookupError("no such column")


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (never, "variant 'script' never yields a Step"),
        (only_after_the_epoch, "makes 1 of the 4 steps of an epoch; yield one Step after each"),
        (epochs_of_its_own, "does not stop after the 4 steps of a protocol with one epoch"),
        (breaks_off, "LookupError: no such column"),
    ],
)
def test_steps_that_are_missing_or_too_many_are_errors(steps, text):
    assert text in said(example_of(steps), "error")


def bare_steps(problem):
    for step in train(problem):
        yield Step(step.loss, step.parameters)


def test_a_step_that_shows_little_is_warned_of():
    facts = replace(TRUE_FACTS, layers=(), sizes=None, output=None)
    warnings = said(example_of(bare_steps, facts), "warning").splitlines()
    assert [text.split()[2] for text in warnings] == ["output=,", "target=,", "model=,"]


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_target_of_another_shape_is_warned_of():
    def flat():
        rows = points().train
        return Splits(Rows(rows.x, rows.y[:, 0]))

    text = said(example_of(data=flat), "warning")
    assert (
        "has outputs (10, 1) but targets (10,); a loss of the two would compare every pair" in text
    )


def renamed(problem):
    for step in train(problem):
        parameters = {"w": step.parameters["linear.weight"], "b": step.parameters["linear.bias"]}
        yield replace(step, parameters=parameters)


def test_parameters_that_are_not_those_of_the_start_are_an_error():
    text = said(example_of(renamed), "error")
    assert "starts from linear.weight, linear.bias but yields the parameters w, b" in text


# --- what the plugin raises ----------------------------------------------------------------------


def test_a_data_set_that_cannot_be_made_is_said_once():
    def nothing():
        raise OSError("no such file: rows.csv")

    (advice,) = lint(example_of(data=nothing)).advice
    assert advice.level == "error"
    assert advice.text.startswith("data set 'line': OSError: no such file: rows.csv (test_linting")


def test_a_data_set_that_is_none_is_said_once():
    (advice,) = lint(example_of(data=list)).advice
    assert advice.text == (
        "data set 'line': list() gives list, not Splits; give Splits(train=Rows(x, y))"
    )


def test_the_line_of_the_plugin_that_raised_is_named():
    assert re.search(
        r"LookupError: no such column \(test_linting\.py:\d+\)", said(example_of(breaks_off))
    )


# --- the command ---------------------------------------------------------------------------------

PLUGIN = """
import torch
from torch import nn
from refimpl import *
import numpy as np


def rows():
    return Splits(Rows(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32)))


EXAMPLE = Example(
    name="made-line", title="t", document="TODO", section="s",
    data=DataSet("ones", rows), protocol=Protocol(epochs=1, learning_rate=0.1), loss=nn.MSELoss(),
    facts={facts},
    variants=(
        ModuleVariant(
            "module", build=lambda: nn.Sequential(nn.Linear(3, 1)), optimizer=torch.optim.SGD
        ),
    ),
)


@hookimpl
def refimpl_examples():
    return [EXAMPLE]
"""


@pytest.fixture
def command(tmp_path):
    """Lints a plugin with these facts; gives the exit code and what was printed."""

    def command(facts, *options):
        path = tmp_path / f"made_{abs(hash(facts))}.py"
        path.write_text(PLUGIN.replace("{facts}", facts))
        arguments = ["lint", "made-line", "--plugin", str(path), *options]
        run = CliRunner().invoke(cli, arguments, standalone_mode=False)
        assert run.exception is None
        return run.return_value, run.stdout, path

    return command


@pytest.mark.parametrize("facts", ["Facts(parameters=3)", "Facts()", "Facts(trainable=1)"])
def test_what_the_command_prints_can_be_pasted_and_is_then_right(command, facts):
    code, printed, _ = command(facts)
    assert code == 1
    pasted = printed.partition("# module\n")[2]
    assert eval(pasted, vars(refimpl)).parameters == 4
    code, printed, path = command(pasted)
    assert (code, "error" in printed) == (0, False)
    assert list(load([str(path)], only=["made-line"]).examples) == ["made-line"]


def test_what_is_left_to_do_is_pointed_at(command):
    _, printed, path = command("Facts(parameters=4)")
    line = (
        path.read_text()
        .splitlines()
        .index('    name="made-line", title="t", document="TODO", section="s",')
    )
    assert f"warning: TODO remains: line {line + 1} of " in printed


def test_every_fact_is_printed_for_the_asking(command):
    code, printed, _ = command("Facts(parameters=4)", "--facts")
    assert code == 0
    facts = eval(
        printed.partition("# module\n")[2].rpartition("\n")[0].rpartition("\n")[0], vars(refimpl)
    )
    assert facts.layers == (Layer("0", "Linear", (-1, 1), 4),)
    assert source_of(facts) in printed


def test_an_example_that_was_refused_for_more_than_its_facts_is_said_so(tmp_path):
    path = tmp_path / "made_wrong.py"
    path.write_text(PLUGIN.replace("{facts}", "Facts()").replace("epochs=1", "epochs=0"))
    run = CliRunner().invoke(
        cli, ["lint", "made-line", "--plugin", str(path)], standalone_mode=False
    )
    assert "was refused: plugin made_wrong" in str(run.exception)
