"""Plugins are loaded each on its own; the wrong ones are reported, the good ones stand."""

import ast
import re
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl import Execution, Variant
from refimpl.errors import UnknownNameError
from refimpl.loading import discovery, validation
from refimpl.loading.refusal import Refusal
from refimpl.loading.registry import load
from refimpl.training.loop import written_steps

HERE = Path(__file__).parent
GOOD = HERE / "good_plugins" / "good.py"
GOOD_TRAINING = HERE / "good_plugins" / "good_training.py"
WRONG = sorted((HERE / "wrong_plugins").glob("*.py"))

PLUGIN = """
from refimpl import Exact, Example, hookimpl

@hookimpl
def refimpl_examples():
    return [Example("{name}", "t", "d", "s", values=(Exact("sum", lambda: 2, 2),))]
"""


@pytest.fixture(autouse=True)
def only_what_is_named(monkeypatch):
    """No plugins but those that a test names, and none of its modules left behind."""
    for place in ("BUILT_IN", "IN_TREE", "GROUP"):
        monkeypatch.setattr(discovery, place, "refimpl.nowhere")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("refimpl_plugin_", "made_")):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """Writes a file below the test's folder."""

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        return str(file)

    return write


@pytest.fixture
def distribution(write, tmp_path, monkeypatch):
    """Installs a distribution with these entry points and modules, as far as anyone can see."""
    monkeypatch.setattr(discovery, "GROUP", "refimpl.plugins")
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, version, points, **modules):
        folder = f"{name}-{version}.dist-info"
        write(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        write(f"{folder}/entry_points.txt", "[refimpl.plugins]\n" + textwrap.dedent(points))
        for module, text in modules.items():
            write(f"{module}.py", text)

    return install


def problems_of(registry, plugin) -> list[Refusal]:
    return [problem for problem in registry.problems if problem.plugin == plugin]


# --- wrong plugins -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything_at_once():
    """One registry of every wrong plugin between two good ones."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("BUILT_IN", "IN_TREE", "GROUP"):
            patch.setattr(discovery, place, "refimpl.nowhere")
        return load([str(GOOD), *map(str, WRONG), str(GOOD_TRAINING)])


def promised(path: Path) -> str:
    """The first paragraph of a wrong plugin: the message that its author should see."""
    paragraph = path.read_text().split('"""')[1]
    return " ".join(paragraph.split()).replace("{GOOD}", str(GOOD))


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_plugin_is_refused_with_the_message_it_promises(everything_at_once, path):
    (problem,) = problems_of(everything_at_once, path.stem)
    assert problem.message == promised(path)
    assert problem.origin == f"file {path}"
    assert "\n" not in str(problem)


def test_there_are_at_least_twenty_wrong_plugins():
    assert len(WRONG) >= 20


def test_no_wrong_plugin_passes_and_no_good_one_is_lost(everything_at_once):
    assert list(everything_at_once.examples) == ["good", "good-training"]
    assert list(everything_at_once.executions) == ["good-double"]
    assert everything_at_once.examples["good"].origin == f"file {GOOD}"


def test_every_kind_of_finding_has_a_wrong_plugin(everything_at_once):
    source = Path(validation.__file__).read_text()
    codes = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    assert len(codes) > 20
    assert codes <= {problem.code for problem in everything_at_once.problems}


def test_an_example_that_its_plugin_makes_and_does_not_return_is_refused_by_name(write):
    made = 'Example("{}", "A toy", "tests", "0", values=(Exact("one", lambda: 1, 1),))'
    path = write(
        "keeps_one.py",
        f"""
        from refimpl import Exact, Example, hookimpl

        KEPT = {made.format("kept-back")}

        @hookimpl
        def refimpl_examples():
            return [{made.format("given")}]
        """,
    )
    loaded = load([str(path)])
    (problem,) = problems_of(loaded, "keeps_one")
    assert "given" in loaded.examples
    assert (problem.code, problem.examples, problem.line) == ("not-given", ("kept-back",), 4)
    assert problem.message == (
        "kept-back is made here, and refimpl_examples does not return it, so it is not checked; "
        "return it, or take it out"
    )


def test_a_problem_points_at_the_example_in_the_file(everything_at_once):
    (problem,) = problems_of(everything_at_once, "lonely_ladder")
    lines = problem.file.read_text().splitlines()
    assert "Example(" in lines[problem.line - 1]
    assert problem.examples == ("lonely-ladder",)


def test_a_problem_points_at_the_line_that_raised(everything_at_once):
    (problem,) = problems_of(everything_at_once, "hook_raises")
    lines = problem.file.read_text().splitlines()
    assert "raise KeyError" in lines[problem.line - 1]
    assert "KeyError" in problem.trace


def test_everything_wrong_with_an_example_is_said(write):
    path = write(
        "made.py",
        """
        from refimpl import Example, Variant, hookimpl

        @hookimpl
        def refimpl_examples():
            return [Example("made", "t", "d", "s", (Variant("V"),))]
        """,
    )
    codes = {problem.code for problem in load([path]).problems}
    assert codes == {"bad-name", "no-facts", "missing-field", "missing-fact"}


def test_one_wrong_example_does_not_take_its_neighbour_along(write):
    path = write(
        "made.py",
        """
        from refimpl import Exact, Example, hookimpl

        @hookimpl
        def refimpl_examples():
            yield Example("empty", "t", "d", "s")
            yield Example("full", "t", "d", "s", values=(Exact("sum", lambda: 2, 2),))
        """,
    )
    registry = load([path])
    assert list(registry.examples) == ["full"]
    assert [problem.examples for problem in registry.problems] == [("empty",)]


def test_a_name_that_is_no_text_is_refused_and_not_among_the_names_missed(write):
    path = write("made.py", PLUGIN.replace('"{name}"', '["made"]'))
    (problem,) = load([path]).problems
    assert problem.message == "the example: name must be str, found list"
    assert problem.examples == ()


def test_an_error_in_a_helper_is_placed_where_the_plugin_calls_for_it(write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    helper = write("made_helper.py", "x = 1\ny = (\n")
    path = write("made.py", "\n\nimport made_helper\n")
    (problem,) = load([path]).problems
    assert problem.reason.startswith("SyntaxError")
    assert (problem.file, problem.line) == (Path(helper), 2)


def test_an_object_that_breaks_when_looked_at_is_a_problem(write):
    path = write(
        "made.py",
        """
        from refimpl import Example, hookimpl

        class Odd(dict):
            def items(self):
                raise LookupError("no items here")

        @hookimpl
        def refimpl_examples():
            return [Example("odd", "t", "d", "s", metrics=Odd())]
        """,
    )
    (problem,) = load([path]).problems
    assert (problem.code, problem.message) == ("unreadable", "LookupError: no items here")
    assert problem.examples == ("odd",)


def test_pytest_outcomes_raised_at_import_are_problems(write):
    path = write("made.py", 'import pytest\npytest.skip("not here", allow_module_level=True)')
    (problem,) = load([path]).problems
    assert problem.reason == "Skipped: not here"


def test_the_keyboard_still_interrupts(write):
    with pytest.raises(KeyboardInterrupt):
        load([write("made.py", "raise KeyboardInterrupt")])


# --- steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        "lambda problem: descend(problem, 2)",
        "partial(descend, factor=2)",
        "delegating",
        "wrapped",
        "Descent()",
        "iter",
    ],
)
def test_steps_that_may_well_be_a_generator_are_let_pass(write, steps):
    path = write(
        "made.py",
        f"""
        from functools import partial, wraps
        from refimpl import *

        def descend(problem, factor=1):
            yield from ()

        def delegating(problem):
            return descend(problem, 2)

        @wraps(descend)
        def wrapped(problem):
            return descend(problem)

        class Descent:
            def __call__(self, problem):
                return descend(problem)

        E = Example(
            "made", "t", "d", "s", (Variant("script", {steps}, start=dict),),
            data=DataSet("none", list), protocol=Protocol(1, 0.1), facts=Facts(parameters=1),
        )

        @hookimpl
        def refimpl_examples():
            return [E]
        """,
    )
    registry = load([path])
    assert registry.problems == ()
    assert list(registry.examples) == ["made"]


# --- where plugins are found ---------------------------------------------------------------------


def test_a_distribution_is_found_by_its_entry_point(distribution):
    distribution("foo", "1.2", "ring = made_foo", made_foo=PLUGIN.format(name="foo-ring"))
    registry = load()
    assert registry.problems == ()
    assert registry.examples["foo-ring"].origin == "distribution foo 1.2"
    assert registry.examples["foo-ring"].source.plugin == "ring"


def test_an_entry_point_may_name_an_object_in_a_module(distribution):
    text = """
        from refimpl import Exact, Example, hookimpl

        class Plugin:
            @hookimpl
            def refimpl_examples(self):
                return [Example("inner", "t", "d", "s", values=(Exact("sum", lambda: 2, 2),))]

        inner = Plugin()
    """
    distribution("foo", "1.2", "inner = made_foo:inner", made_foo=text)
    registry = load()
    assert registry.problems == ()
    assert list(registry.examples) == ["inner"]


def test_a_broken_distribution_does_not_stop_the_next_one(distribution, tmp_path):
    distribution(
        "bar",
        "0.1",
        """
        a-broken = made_broken
        b-missing = made_missing.part
        c-object = made_object:not_there
        """,
        made_broken="import torchtypo",
        made_object="",
    )
    distribution("foo", "1.2", "ring = made_foo", made_foo=PLUGIN.format(name="foo-ring"))
    registry = load()
    assert list(registry.examples) == ["foo-ring"]
    broken, missing, absent = registry.problems
    assert str(broken) == (
        f"plugin a-broken (distribution bar 0.1) at {tmp_path}/made_broken.py:1: "
        "ModuleNotFoundError: No module named 'torchtypo'; install torchtypo"
    )
    assert str(missing) == (
        "plugin b-missing (distribution bar 0.1): ModuleNotFoundError: No module named "
        "'made_missing'; its entry point names a module that does not exist; reinstall it"
    )
    assert absent.reason == "AttributeError: module 'made_object' has no attribute 'not_there'"


def test_in_tree_plugins_are_found_without_being_named(write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(discovery, "IN_TREE", "made_tree")
    write("made_tree/__init__.py", "")
    write("made_tree/b.py", PLUGIN.format(name="b"))
    write("made_tree/a.py", PLUGIN.format(name="a"))
    write("made_tree/_helper.py", "raise SystemExit")
    registry = load()
    assert registry.problems == ()
    assert list(registry.examples) == ["a", "b"]
    assert registry.examples["a"].origin == "in-tree made_tree.a"


def test_a_folder_with_relative_imports_is_a_plugin(write):
    write("made/ring.py", PLUGIN.format(name="ring"))
    path = Path(write("made/__init__.py", "from .ring import refimpl_examples"))
    registry = load([str(path.parent)])
    assert registry.problems == ()
    assert registry.examples["ring"].origin == f"folder {path.parent}"


def test_a_module_on_the_path_is_a_plugin(write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    write("made_package/__init__.py", "")
    write("made_package/ring.py", PLUGIN.format(name="ring"))
    assert list(load(["made_package.ring"]).examples) == ["ring"]


@pytest.mark.parametrize("named", ["made.py", "./made.py", "made"])
def test_a_plugin_is_named_from_the_working_folder(write, tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    write("made.py", PLUGIN.format(name="ring"))
    write("made/__init__.py", PLUGIN.format(name="ring"))
    assert list(load([named]).examples) == ["ring"]


@pytest.mark.parametrize("named", ["nothing.py", "./nothing", "nothing.at.all"])
def test_a_plugin_that_is_not_there_is_a_problem(named):
    (problem,) = load([named]).problems
    assert problem.message.endswith(
        "name a .py file, a folder with an __init__.py, or a module as it is imported"
    )


def test_a_file_named_without_its_suffix_is_recognised(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("made_plugin.py", PLUGIN.format(name="ring"))
    (problem,) = load(["made_plugin"]).problems
    assert problem.hint == "did you mean the file made_plugin.py?"


def test_a_plugin_named_twice_counts_once(write):
    path = write("made.py", PLUGIN.format(name="ring"))
    registry = load([path, path])
    assert registry.problems == ()
    assert list(registry.examples) == ["ring"]


def test_of_two_examples_of_a_name_the_first_one_stays(write):
    first = write("first.py", PLUGIN.format(name="ring"))
    second = write("second.py", PLUGIN.format(name="ring"))
    registry = load([first, second])
    assert registry.examples["ring"].origin == f"file {first}"
    (problem,) = registry.problems
    assert (problem.origin, problem.code) == (f"file {second}", "duplicate-example")
    assert f"already, from file {first}" in problem.reason


def test_of_two_executions_of_a_name_the_first_one_stays(write):
    text = """
        from refimpl import Execution, hookimpl

        @hookimpl
        def refimpl_executions():
            return [Execution("cuda:0", "the first GPU", device="cuda:0")]
    """
    first, second = write("first.py", text), write("second.py", text)
    registry = load([first, second])
    assert registry.execution("cuda:0").device == "cuda:0"
    (problem,) = registry.problems
    assert problem.code == "duplicate-execution"
    assert problem.reason == f"there is an execution 'cuda:0' already, from file {first}"


@pytest.mark.parametrize("named", ["a_ring", "a-ring", " b , a-ring"])
def test_a_disabled_plugin_is_left_out(write, monkeypatch, named):
    monkeypatch.setenv(discovery.DISABLE_VARIABLE, named)
    blocked = write("a_ring.py", PLUGIN.format(name="a-ring"))
    other = write("c_ring.py", PLUGIN.format(name="c-ring"))
    registry = load([blocked, other])
    assert list(registry.examples) == ["c-ring"]
    assert registry.problems == ()


# --- only ----------------------------------------------------------------------------------------

READABLE = """
from refimpl import Exact, Example, hookimpl
E = Example(name="{name}", title="t", document="d", section="s", values=(Exact("x", list, []),))

@hookimpl
def refimpl_examples():
    return [E]
"""


@pytest.fixture
def three(write):
    """Three plugins: of ``a``, of ``b``, and of what only an import can tell."""
    return [
        write("a.py", READABLE.format(name="a")),
        write("b.py", READABLE.format(name="b")),
        write("c.py", READABLE.format(name="c").replace('"c"', '"".join("c")')),
    ]


def test_only_what_is_wanted_is_imported(three):
    assert list(load(three[:2], only=["b"]).examples) == ["b"]


def test_what_cannot_be_read_is_imported_as_it_may_be_wanted(three):
    assert list(load(three, only=["b"]).examples) == ["b", "c"]


def test_a_name_that_no_source_has_means_everything_is_imported(three):
    assert list(load(three[:2], only=["b", "z"]).examples) == ["a", "b"]


def test_executions_are_always_there(three):
    registry = load([*three[:2], str(GOOD_TRAINING)], only=["b"])
    assert list(registry.executions) == ["good-double"]


# --- asking --------------------------------------------------------------------------------------


def test_an_example_is_given_by_name(write):
    registry = load([str(GOOD)])
    assert registry.example("good").title == "A good example"


def test_an_unknown_name_gets_the_nearest_match():
    registry = load([str(GOOD), str(GOOD_TRAINING)])
    with pytest.raises(UnknownNameError, match="no example 'goood'; did you mean 'good'"):
        registry.example("goood")
    with pytest.raises(UnknownNameError, match="no execution 'good-d'; did you mean 'good-double'"):
        registry.execution("good-d")


def test_a_refused_example_is_answered_with_the_reason(everything_at_once):
    for name, reason in (("hook-raises", "KeyError"), ("lonely-ladder", "compared with nothing")):
        with pytest.raises(UnknownNameError, match=f"{name}' was refused: .*{reason}"):
            everything_at_once.example(name)


def test_the_training_example_of_these_tests_is_one_the_framework_can_run():
    from refimpl.training.problem import pose

    variant = load([str(GOOD_TRAINING)]).example("good-training").variant()
    steps = list(written_steps(variant, pose(variant)))
    assert steps[1].loss < steps[0].loss


def test_wrong_plugins_parse_except_for_one():
    broken = []
    for path in WRONG:
        try:
            ast.parse(path.read_text())
        except SyntaxError:
            broken.append(path.stem)
    assert broken == ["syntax_error"]


def test_an_execution_of_an_older_plugin_may_still_say_suits():
    with pytest.warns(DeprecationWarning, match="suits= is now supports="):
        older = Execution("older", "", suits=lambda variant: variant.name == "this")
    assert older.supports(Variant("this"))
    assert not replace(older, name="other").supports(Variant("that"))
