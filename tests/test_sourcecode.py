"""What is printed to be pasted is the value again, and looks as if it had been formatted."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refimpl
from refimpl import Facts, Figure, Layer, Sizes
from refimpl.authoring.sourcecode import WIDTH, source_of

numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(max_size=40)
shapes = st.lists(st.integers(-1, 10**6), max_size=4).map(tuple)
layers = st.builds(Layer, words, words, shapes, st.integers())
ranges = st.none() | st.tuples(numbers, numbers)
figures = st.builds(Figure, words, st.none() | numbers, st.none() | st.integers(0, 9), ranges)
facts = st.builds(
    Facts,
    parameters=st.none() | st.integers(),
    layers=st.lists(layers, max_size=3).map(tuple),
    state_dict=st.lists(words, max_size=3).map(tuple),
    sizes=st.none() | st.builds(Sizes, numbers, numbers, numbers, numbers),
    output=st.none() | shapes,
    figures=st.lists(figures, max_size=2).map(tuple),
)


@given(facts)
def test_the_source_of_facts_makes_them_again(given_facts):
    assert eval(source_of(given_facts), vars(refimpl)) == given_facts


FACTS = Facts(
    parameters=651,
    layers=(Layer("linear1", "Linear", (-1, 20), 320), Layer("relu1", "ReLU", (-1, 20), 0)),
    sizes=Sizes(0.000057, 0.000549, 0.002483, 0.00309),
    state_dict=("linear1.weight",),
    figures=(Figure("val_accuracy", 0.81, real=(0.75, 0.85)),),
)


def test_it_reads_as_the_plugins_are_written():
    assert source_of(FACTS) == (
        "Facts(\n"
        "    parameters=651,\n"
        '    layers=(Layer("linear1", "Linear", (-1, 20), 320), '
        'Layer("relu1", "ReLU", (-1, 20), 0)),\n'
        '    state_dict=("linear1.weight",),\n'
        "    sizes=Sizes(input=0.000057, forward_backward=0.000549, parameters=0.002483, "
        "total=0.00309),\n"
        '    figures=(Figure("val_accuracy", 0.81, real=(0.75, 0.85)),),\n'
        ")"
    )


def test_what_fits_on_a_line_stays_on_it():
    assert source_of(Facts(parameters=2)) == "Facts(parameters=2)"
    assert source_of(Facts()) == "Facts()"


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is not installed")
@pytest.mark.parametrize("rows", [1, 2, 3, 9])
def test_a_formatter_leaves_it_as_it_is(rows):
    row = Layer("a.rather.long.name.of.a.layer", "Linear", (-1, 20, 1000, 1000), 320)
    source = f"facts = {source_of(Facts(parameters=1, layers=(row,) * rows))}\n"
    command = ["ruff", "format", "--isolated", "--line-length", str(WIDTH), "-"]
    run = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    assert run.stdout == source
