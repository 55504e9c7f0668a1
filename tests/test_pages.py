"""A learner's page says what the plugin says, and its picture is what the runs were."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from refimpl import (
    Erratum,
    Exact,
    Example,
    Facts,
    Failure,
    Figure,
    Layer,
    ModuleVariant,
    Protocol,
    Variant,
)
from refimpl.authoring import pages
from refimpl.authoring.info import summary_of
from refimpl.authoring.listings import listings
from refimpl.cli.main import cli
from refimpl.loading.discovery import Source
from refimpl.loading.registry import Registered, load

GOOD = Path(__file__).parent / "good_plugins" / "good_training.py"


@pytest.fixture(scope="module")
def good() -> Registered[Example]:
    return load([str(GOOD)], only=["good-training"]).examples["good-training"]


def page_of(registered, tmp_path, **changes) -> str:
    changed = replace(registered, value=replace(registered.value, **changes))
    return pages.page(changed, tmp_path)


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    table = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line[1:-1])] for line in lines[2:]]


# --- the text ------------------------------------------------------------------------------------


def test_it_says_what_the_plugin_says_of_itself(good, tmp_path):
    text = page_of(good, tmp_path)
    assert text.startswith("# A good example that trains\n")
    assert "A plugin that is in order: two variants of a line through the origin" in text
    assert (
        "- `ones`: Four rows of the same point. Stand-in: to train x (4, 1) and y (4, 1)." in text
    )


def test_it_shows_which_variants_are_the_same_computation(good, tmp_path):
    text = page_of(good, tmp_path)
    assert rows_of(text, "Its variants") == [
        ["`scratch`", "Gradient descent by hand.", "", "1"],
        ["`module`", "", "scratch", "1"],
    ]
    assert "refimpl compare good-training scratch module\n" in text


def test_a_layer_table_is_measured_and_shown_once_for_all_that_have_it(good, tmp_path):
    build = lambda: nn.Sequential(nn.Linear(1, 1, bias=False))  # noqa: E731
    module = replace(good.value.variant("module"), build=build, ladder=None, start=None)
    text = page_of(good, tmp_path, variants=(module, replace(module, name="again")))
    assert rows_of(text, "Layers of module, again") == [["`0`", "Linear", "(-1, 1)", "1"]]


def test_the_layers_of_what_cannot_run_everywhere_are_the_documented_ones(good, tmp_path):
    facts = Facts(parameters=1, layers=(Layer("fc", "Linear", (-1, 9), 1),))
    needy = replace(good.value.variant("module"), needs="torchtext", facts=facts)
    text = page_of(good, tmp_path, variants=(needy,))
    assert rows_of(text, "Layers of module") == [["`fc`", "Linear", "(-1, 9)", "1"]]


def test_figures_stand_beside_the_ranges_that_hold_on_each_tier(good, tmp_path):
    figures = (Figure("loss", 0.5, real=(0.25, 0.75)), Figure("rate", None, digits=None))
    variant = replace(good.value.variant("scratch"), facts=Facts(parameters=1, figures=figures))
    rows = rows_of(page_of(good, tmp_path, variants=(variant,)), "Where training ends")
    assert rows == [
        ["scratch", "`loss`", "0.5", "0.25 … 0.75", "0.25 … 0.75"],
        ["scratch", "`rate`", "", "", ""],
    ]


def test_figures_between_the_first_epoch_and_the_end_are_left_to_the_ledger(good, tmp_path):
    end = Figure("loss", 0.5, real=(0.25, 0.75))
    figures = (end, replace(end, epoch=1), replace(end, epoch=1, step=2), replace(end, epoch=2))
    variant = replace(good.value.variant("scratch"), facts=Facts(parameters=1, figures=figures))
    page = page_of(good, tmp_path, variants=(variant,))
    rows = rows_of(page, "Where training ends")
    assert [row[1] for row in rows] == ["`loss`", "`loss` after epoch 1"]
    assert f"`refimpl claims {good.value.name}` lists 2 more, of the steps and epochs betw" in page


def test_values_failures_and_errata_are_listed_and_cannot_break_their_tables(good, tmp_path):
    text = page_of(
        good,
        tmp_path,
        values=(Exact("a | b", list, "x|y"), Exact("long", list, list(range(99)))),
        failures=(Failure("dividing by zero", list, ZeroDivisionError),),
        errata=(Erratum("eig", "there is one", "there is\nnone", "torch>=2", lambda: False),),
    )
    short, long = rows_of(text, "What it prints exactly")
    assert short == [r"a \| b", "", r"`'x\|y'`"]
    assert long[2].endswith("…`")
    assert "- dividing by zero: `ZeroDivisionError`" in text
    assert rows_of(text, "What no longer holds") == [
        ["eig", "there is one", "there is none", "`torch>=2`"]
    ]


def test_an_example_that_trains_nothing_has_no_run_to_try(tmp_path):
    example = Example("made", "Made", "d", "s", values=(Exact("sum", lambda: 2, 2),))
    text = pages.page(Registered(example, Source("made", "module made", "made")), tmp_path)
    assert "refimpl info made" in text
    assert "refimpl run" not in text
    assert "*d, s · module made · " in text


def test_the_source_is_linked_to_where_page_and_plugin_are_of_one_project(good, tmp_path):
    (tmp_path / "pyproject.toml").touch()
    plugin = tmp_path / "src" / "made.py"
    plugin.parent.mkdir()
    plugin.write_text('"""Made."""')
    source = replace(good.source, path=plugin)
    text = pages.page(replace(good, source=source), tmp_path / "docs" / "examples")
    assert "[made.py](../../src/made.py)" in text
    assert good.origin in page_of(good, tmp_path)


def described(x):
    """What it is.

    And more.
    """


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        (Variant("a", described), "What it is."),
        (Variant("a", described, "Its own words."), "Its own words."),
        (ModuleVariant("a", build=described), "What it is."),
        (ModuleVariant("a", build=lambda: None), ""),
    ],
)
def test_a_variant_is_summed_up_by_its_own_words_its_loop_or_its_model(variant, says):
    assert summary_of(variant) == says


# --- the picture ---------------------------------------------------------------------------------


def test_one_of_each_ladder_is_drawn_and_the_same_to_the_byte(good, tmp_path):
    first, again = tmp_path / "first.svg", tmp_path / "again.svg"
    alone = ModuleVariant("alone", build=lambda: nn.Linear(1, 1), optimizer=torch.optim.SGD)
    example = replace(good.value, variants=(*good.value.variants, alone))
    assert pages.draw_curves(example, first)
    pages.draw_curves(example, again)
    assert first.read_bytes() == again.read_bytes()
    text = first.read_text()
    assert "scratch, training" in text
    assert "alone, training" in text
    assert "module, training" not in text


def test_a_run_of_one_epoch_has_no_curve(good, tmp_path):
    short = replace(good.value.variant("scratch"), protocol=Protocol(1, 0.1))
    picture = tmp_path / "picture.svg"
    assert not pages.draw_curves(replace(good.value, variants=(short,)), picture)
    assert not picture.exists()


# --- the command ---------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(cli, ["docs", *arguments], standalone_mode=False)


def test_the_command_writes_page_and_picture_and_can_leave_the_picture(tmp_path):
    options = ("good-training", "--plugin", str(GOOD), "--output", str(tmp_path / "pages"))
    written = run(*options).stdout.splitlines()
    page, picture = tmp_path / "pages/good-training.md", tmp_path / "pages/good-training.svg"
    assert written == [f"wrote {picture}", f"wrote {page}"]
    assert "](good-training.svg)" in page.read_text()
    picture.write_text("as it is")
    assert run(*options, "--no-curves").stdout.splitlines() == [f"wrote {page}"]
    assert picture.read_text() == "as it is"


def test_an_unknown_example_is_said_before_anything_is_written(tmp_path):
    outcome = run("autogard", "--output", str(tmp_path / "pages"))
    assert "no example 'autogard'; did you mean 'autograd'" in str(outcome.exception)
    assert not (tmp_path / "pages").exists()


# --- source, agreement, bugs ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def line() -> Registered[Example]:
    return load(only=["linear-regression-1d"]).examples["linear-regression-1d"]


def test_the_first_rung_of_a_ladder_is_shown_in_full_and_the_others_as_what_changed(line):
    shown = {own.name: own for own in listings(line.value)}
    assert "a_grad = -2 * error.mean(axis=0)" in shown["numpy"].text
    loss = shown["loss"]
    assert (loss.before, loss.language) == ("optimizer", "diff")
    changes = [row for row in loss.text.splitlines() if row[:1] in "+-" and '"""' not in row]
    assert changes == [
        "-def optimizer(problem):",
        "+def loss(problem):",
        '+    mse = nn.MSELoss(reduction="mean")',
        "-        loss = ((yb - yhat) ** 2).mean()",
        "+        loss = mse(yhat, yb)",
    ]


def test_a_rung_has_its_measured_agreement_which_the_page_keeps(line, tmp_path):
    two = replace(line.value, variants=line.value.variants[2:4])
    measured = pages.agreements_of(two)
    assert measured.keys() == {"loss"}
    assert measured["loss"].startswith("against `optimizer`: 100 tensors of 20 steps in float64, ")
    path = tmp_path / "line.md"
    path.write_text(pages.page(replace(line, value=two), tmp_path, None, measured))
    assert pages.agreements_in(path) == measured


def test_a_rung_that_computes_something_else_says_where(line):
    first, second = line.value.variants[1:3]

    def faster(problem):
        yield from second.steps(problem.but(protocol=replace(problem.protocol, learning_rate=0.2)))

    measured = pages.agreements_of(
        replace(line.value, variants=(first, replace(second, steps=faster)))
    )
    assert measured["optimizer"].startswith("against `autograd`: step 1, parameter")


def test_a_value_has_the_expression_that_computes_it(tmp_path):
    titanic = load(only=["titanic-dnn"]).examples["titanic-dnn"]
    rows = rows_of(pages.page(titanic, tmp_path), "What it prints exactly")
    assert rows[0] == [
        "shapes of x and y",
        "`titanic.PASSENGERS.load('stand-in').shapes`",
        f"`{titanic.value.values[0].expected}`",
    ]
    assert "`[*predicted(Net()).shape]`" in [row[1] for row in rows]


def test_a_page_beside_the_table_of_mutants_has_a_bug_that_was_caught(good, tmp_path):
    (tmp_path / "mutants.md").write_text(
        "## By example\n\n| example | killed |\n| --- | --- |\n| good-training | 2 |\n"
        "\n## By mutant\n\n| mutant | what | killed by | smallest |\n| --- | --- | --- | --- |\n"
        "| survives | It is too small | nowhere |  |\n"
        "| uphill | The sign is wrong | golden-trajectory (1) |  |\n"
    )
    folder = tmp_path / "examples"
    folder.mkdir()
    text = pages.page(good, folder)
    assert "The sign is wrong: the check `golden-trajectory` catches it." in text
    assert "refimpl mutants good-training --mutant uphill\n" in text
    assert "## Change this" not in pages.page(good, tmp_path)
