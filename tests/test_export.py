"""An exported example needs no refimpl, and ends with the figures of refimpl run."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.authoring.export import PROVIDED, ExportError, _offered, export
from refimpl.authoring.scaffold import new_file
from refimpl.loading.registry import load

ALONE = (
    "import sys, runpy; sys.modules['refimpl'] = None; "
    "runpy.run_path(sys.argv[1], run_name='__main__')"
)
"""Runs a program in a process in which refimpl cannot be imported."""

EXPORTED = [
    ("titanic-dnn", "script"),  # a loop of its own
    ("linear-regression-1d", "numpy"),  # in float64, with the document's own start
    ("linear-regression-1d", "sequential"),  # the framework's loop, under the ladder's names
    ("ring-dnn", "high"),  # a Keras-like model, which is refimpl's
    ("ring-focal", "focal"),  # a loss of its own
    ("model-building", "module-list"),  # convolutions and dropout
]


def run(*words, where):
    done = subprocess.run(
        [sys.executable, *words], cwd=where, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def example_of(name):
    return load(only=[name]).example(name)


def test_refimpl_cannot_be_imported_where_the_exported_examples_are_run(tmp_path):
    (tmp_path / "program.py").write_text("import refimpl.metrics\n")
    words = [sys.executable, "-c", ALONE, "program.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize(("name", "variant"), EXPORTED)
def test_a_script_ends_with_the_figures_of_refimpl_run(tmp_path, name, variant):
    example = example_of(name)
    script, saved = export(example, example.variant(variant), "script", tmp_path)
    assert {path.suffix for path in (script, saved)} == {".py", ".npz"}
    alone = run("-c", ALONE, script.name, where=tmp_path)
    with_refimpl = run("-m", "refimpl", "run", name, "--variant", variant, where=tmp_path)
    assert alone[-1] == with_refimpl[-1]
    assert "loss=" in alone[-1]


def test_a_start_that_is_changed_changes_the_figures(tmp_path):
    import numpy as np

    example = example_of("titanic-dnn")
    script, saved = export(example, example.variant("script"), "script", tmp_path)
    before = run("-c", ALONE, script.name, where=tmp_path)
    with np.load(saved) as kept:
        arrays = dict(kept)
    arrays["start.linear1.bias"] = arrays["start.linear1.bias"] + 0.1
    np.savez(saved, **arrays)
    assert run("-c", ALONE, script.name, where=tmp_path)[-1] != before[-1]


def test_the_cells_of_a_notebook_print_the_same(tmp_path):
    words = "export titanic-dnn --notebook --output made"
    said = run("-m", "refimpl", *words.split(), where=tmp_path)
    assert said == ["wrote made/titanic_dnn_script.ipynb", "wrote made/titanic_dnn_script.npz"]
    made = tmp_path / "made"
    book = json.loads((made / "titanic_dnn_script.ipynb").read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"]) > 8
    code = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    (made / "cells.py").write_text("\n\n".join(code))
    alone = run("-c", ALONE, "cells.py", where=made)
    assert alone[-1] == run("-m", "refimpl", "run", "titanic-dnn", where=tmp_path)[-1]


@pytest.mark.parametrize("full", [False, True], ids=["small", "full"])
def test_what_refimpl_new_makes_can_be_exported(tmp_path, full):
    (plugin,) = new_file("made-new", tmp_path, full)
    words = f"made-new --plugin {plugin.name} --variant module".split()
    run("-m", "refimpl", "export", *words, "--script", where=tmp_path)
    alone = run("-c", ALONE, "made_new_module.py", where=tmp_path)
    assert alone[-1] == run("-m", "refimpl", "run", *words, where=tmp_path)[-1]


# --- what cannot be exported ---------------------------------------------------------------------


def refused(example, variant, folder):
    with pytest.raises(ExportError) as error:
        export(example, variant, "script", folder)
    assert list(folder.iterdir()) == []
    return str(error.value)


def test_a_loop_that_needs_more_of_the_problem_is_refused(tmp_path):
    example = example_of("covid-lstm")
    assert refused(example, example.variant("several-starts"), tmp_path) == (
        "covid-lstm several-starts cannot be exported: its loop uses problem.but; "
        "refimpl run trains it"
    )


BY_ITS_PROTOCOL = """
import torch
from torch import nn

from refimpl import Example, Facts, Protocol, Schedule, Stop, Variant, hookimpl
from refimpl.fixtures import plane

def halved(step):
    return 0.5 ** (step // 7)

@hookimpl
def refimpl_examples():
    return [Example(
        name="by-its-protocol", title="Clipped, scheduled, accumulated, ended early", document="d",
        section="1", data=plane.PLANE_SPLIT, loss=nn.MSELoss(),
        protocol=Protocol(epochs=12, learning_rate=0.2, batch_size=25, accumulate=3, clip=CLIP,
                          schedule=Schedule(halved, per="PER"), stop=Stop("val_loss", 2)),
        variants=(Variant("module", build=lambda: nn.Sequential(nn.Linear(2, 1)),
                          optimizer=torch.optim.SGD, facts=Facts()),),
    )]
"""


@pytest.mark.parametrize(("per", "clip", "ends_early"), [("step", 1.5, False), ("epoch", 99, True)])
def test_a_script_clips_schedules_accumulates_and_ends_early_as_the_protocol_says(
    tmp_path, per, clip, ends_early
):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(BY_ITS_PROTOCOL.replace("PER", per).replace("CLIP", str(clip)))
    words = ("by-its-protocol", "--plugin", plugin.name)
    with_refimpl = run("-m", "refimpl", "run", *words, where=tmp_path)
    run("-m", "refimpl", "export", *words, "--script", where=tmp_path)
    alone = run("-c", ALONE, "by_its_protocol_module.py", where=tmp_path)
    assert alone[-1] == with_refimpl[-1]
    assert with_refimpl[-2].startswith("epoch 12/12") != ends_early


EVERYDAY = Path(__file__).parent.parent / "examples" / "everyday" / "src" / "refimpl_everyday"


@pytest.mark.parametrize(
    ("name", "module"), [("everyday-gan", "gan"), ("recipe-two-halves", "recipes")]
)
def test_a_script_has_several_losses_optimizers_and_figures_of_its_own(tmp_path, name, module):
    words = (name, "--plugin", str(EVERYDAY / f"{module}.py"))
    with_refimpl = run("-m", "refimpl", "run", *words, where=tmp_path)
    run("-m", "refimpl", "export", *words, "--script", where=tmp_path)
    (script,) = tmp_path.glob("*.py")
    alone = run("-c", ALONE, script.name, where=tmp_path)
    assert alone[-1] == with_refimpl[-1]
    assert with_refimpl[-1].split()[0] in alone[-2]


def test_a_loop_that_another_function_made_is_refused(tmp_path):
    example = example_of("titanic-dnn")
    sound = example.variant("script")

    def made(problem):
        yield from sound.steps(problem)

    said = refused(example, replace(sound, steps=made), tmp_path)
    assert "is made by a function, so it has no source of its own" in said


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    example = example_of("titanic-dnn")
    (tmp_path / "titanic_dnn_script.npz").write_text("mine")
    with pytest.raises(ExportError, match="exists already; nothing was written"):
        export(example, example.variant("script"), "script", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["titanic_dnn_script.npz"]


def test_the_command_says_what_it_needs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "refimpl", "export", "titanic-dnn"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip() == "refimpl: say what to write: --script or --notebook"


def test_the_names_that_a_program_defines_are_those_that_an_example_may_not_have(tmp_path):
    import ast

    example = example_of("linear-regression-1d")
    script, _ = export(example, example.variant("sequential"), "script", tmp_path)
    tree = ast.parse(script.read_text())
    defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    targets = [t for n in tree.body if isinstance(n, ast.Assign) for t in ast.walk(n.targets[0])]
    defined |= {target.id for target in targets if isinstance(target, ast.Name)}
    assert defined - {"sequential"} == set(PROVIDED) - {"ends"}  # only of runs that may end early
    assert {"load", "start", "batches", "train", "valid", "lr"} <= _offered()
