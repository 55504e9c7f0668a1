"""The catalogue reads plugins without running them."""

import dataclasses
import subprocess
import sys
import textwrap

import pytest

from refimpl import contract
from refimpl.contract import Example
from refimpl.loading import catalogue, discovery

REST = 'title="t", document="d", section="s"'


@pytest.fixture(autouse=True)
def only_what_is_named(monkeypatch):
    """No plugins but those that a test names."""
    for place in ("BUILT_IN", "IN_TREE", "GROUP"):
        monkeypatch.setattr(discovery, place, "refimpl.nowhere")


@pytest.fixture
def read(tmp_path):
    """Reads the entries of a plugin with this source."""

    def read(source, name="plugin.py"):
        path = tmp_path / name
        path.write_bytes(textwrap.dedent(source).encode() if isinstance(source, str) else source)
        return catalogue.entries([str(path)])

    return read


# --- what can be read ----------------------------------------------------------------------------


def test_an_example_is_read_without_running_its_plugin(read, tmp_path):
    (entry,) = read("""
        from refimpl import Example, ModuleVariant, Variant
        EXAMPLE = Example(
            name="ring", title="A ring", document="20-days", section="3-1",
            variants=(Variant("low", None), ModuleVariant(summary="", name="mid")),
        )
        raise SystemExit("this must not be run")
    """)
    assert entry == catalogue.Entry(
        name="ring",
        title="A ring",
        document="20-days",
        section="3-1",
        variants=("low", "mid"),
        contract=contract.CONTRACT,
        origin=f"file {tmp_path / 'plugin.py'}",
        plugin="plugin",
        line=3,
    )
    assert entry.complete


@pytest.mark.parametrize(
    "source",
    [
        f'Example("a", {REST})',
        'Example("a", "t", "d", "s")',
        f'NAME = "a"\nExample(NAME, {REST})',
        f'NAME: str = "a"\nOTHER = NAME\nExample(name=OTHER, {REST})',
        f'import refimpl\nrefimpl.Example("a", {REST})',
        f'from refimpl.contract import Example as Documented\nDocumented("a", {REST})',
        f'def refimpl_examples():\n    yield Example("a", {REST})',
        f'COMMON = {{}}\nExample("a", {REST}, variants=(), contract=1, **COMMON)',
        f'def steps():\n    NAME = "b"\nNAME = "a"\nExample(NAME, {REST})',
    ],
)
def test_ways_to_write_a_name(read, source):
    (entry,) = read(source)
    assert entry.complete
    assert entry.name == "a"


@pytest.mark.parametrize(
    "variants",
    [
        '(Variant("x"), Variant(name="y"))',
        '[Variant("x"), ModuleVariant("y")]',
        "(FIRST, SECOND)",
        "BOTH",
        "(*BOTH,)",
        "(FIRST,) + (SECOND,)",
        '(helper("x"), helper(name="y", steps=None))',
        '(helper("x"), just_y())',
    ],
)
def test_ways_to_write_variants(read, variants):
    (entry,) = read(f"""
        FIRST = Variant("x")
        Y = "y"
        SECOND = ModuleVariant(Y)
        BOTH = (FIRST, SECOND)
        def helper(name, steps=None, **more):
            more = dict(more, ladder="l")
            return Variant(name, steps, **more)
        def just_y():
            return Variant("y")
        Example("a", {REST}, variants={variants})
    """)
    assert entry.variants == ("x", "y")


def test_an_example_that_trains_nothing_has_no_variants(read):
    (entry,) = read(f'Example("a", {REST})')
    assert entry.variants == ()


def test_every_example_of_a_plugin_is_read_in_its_order(read):
    found = read(f'TWO = [Example("b", {REST}), Example("a", {REST})]')
    assert [entry.name for entry in found] == ["b", "a"]


def test_a_plugin_of_executions_has_no_entries(read):
    assert read("def refimpl_executions():\n    return []") == ()


# --- what cannot ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ('f"a-{1}"', ""),
        ("NAME", ""),
        ("NAME", 'NAME = "a"\nNAME = "b"\n'),
        ("NAME", 'if 1:\n    NAME = "a"\n'),
        ("NAME", "NAME = NAME\n"),
        ("NAME", 'NAME = "a"\nNAME += "b"\n'),
        ("NAME", 'NAME = "a"\ndef NAME():\n    pass\n'),
        ("3", ""),
    ],
)
def test_a_name_that_is_no_literal_is_unknown(read, name, before):
    (entry,) = read(f"{before}Example({name}, {REST})")
    assert entry.name is None
    assert entry.title == "t"
    assert not entry.complete
    assert entry.problem is None


@pytest.mark.parametrize(
    "variants",
    [
        "tuple(Variant(name) for name in NAMES)",
        "(Variant(name),)",
        '(replace(Variant("x"), name="y"),)',
        "UNKNOWN",
        "TURN",
        '(branching("x"),)',
        "(3,)",
    ],
)
def test_variants_that_are_no_literals_are_unknown(read, variants):
    (entry,) = read(f"""
        TURN = (*TURN, Variant("x"))
        def branching(name):
            if name:
                return Variant(name)
            return Variant("other")
        Example("a", {REST}, variants={variants})
    """)
    assert entry.variants is None
    assert entry.name == "a"
    assert not entry.complete


@pytest.mark.parametrize("call", ['Example("a", **REST)', 'Example("a", *REST)'])
def test_what_stars_hide_is_unknown(read, call):
    (entry,) = read(call)
    assert entry.name == "a"
    assert (entry.title, entry.variants, entry.contract) == (None, None, None)


@pytest.mark.parametrize(
    "source",
    ["", "from elsewhere import EXAMPLE\ndef refimpl_examples():\n    return [EXAMPLE]"],
)
def test_a_plugin_without_an_example_to_read_has_an_entry_that_says_so(read, source):
    (entry,) = read(source)
    assert entry.name is None
    assert not entry.complete
    assert entry.problem is None


def test_a_module_without_source_has_an_entry_that_says_so():
    (entry,) = catalogue.entries(["_struct"])
    assert entry.origin == "module _struct"
    assert not entry.complete


# --- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "code", "line"),
    [
        ("x = 1\ndef f(:\n", "syntax-error", 2),
        (b"\xff\xfe\x00", "syntax-error", None),
        (b'NAME = "\xe9"\n', "syntax-error", None),
    ],
)
def test_a_source_that_cannot_be_parsed_is_an_entry_with_a_problem(read, source, code, line):
    (entry,) = read(source)
    assert entry.problem.code in (code, "unreadable")
    if line is not None:
        assert entry.problem.line == line


def test_a_source_that_is_too_deep_is_an_entry_with_a_problem(read):
    (entry,) = read("x = " + "-" * 200_000 + "1")
    assert entry.problem is not None


def test_a_file_that_is_not_there_is_an_entry_with_a_problem(tmp_path):
    (entry,) = catalogue.entries([str(tmp_path / "nothing.py")])
    assert entry.problem.code == "not-found"
    assert "name a .py file" in entry.problem.hint


def test_reading_warns_of_nothing(read, recwarn):
    read('x = "\\d"')
    assert not recwarn.list


@pytest.mark.parametrize(
    ("contract", "said"),
    [("3", "written for contract 3"), ("-1", "written for contract -1"), ("NEWER", "contract 9")],
)
def test_a_contract_that_does_not_run_here_is_seen_in_the_source(read, contract, said):
    (entry,) = read(f'NEWER = 9\nExample("a", {REST}, contract={contract})')
    assert said in entry.problem.reason
    assert entry.problem.examples == ("a",)
    assert not entry.complete


def test_the_second_example_of_a_name_has_a_problem(read):
    first, second = read(f'TWO = [Example("a", {REST}), Example("a", {REST})]')
    assert first.problem is None
    assert second.problem.code == "duplicate-example"
    assert first.origin in second.problem.reason


# --- how it fits the contract --------------------------------------------------------------------


def test_positional_arguments_are_those_of_the_contract():
    names = tuple(field.name for field in dataclasses.fields(Example))
    assert names[: len(catalogue.POSITIONAL)] == catalogue.POSITIONAL


def test_variant_classes_are_those_of_the_contract():
    assert all(hasattr(contract, name) for name in catalogue.VARIANT_CLASSES)
    assert contract.ModuleVariant is contract.Variant


def test_listing_imports_neither_torch_nor_numpy_nor_any_plugin():
    program = (
        "import sys\n"
        "from refimpl.loading.catalogue import entries\n"
        "entries()\n"
        "heavy = {'torch', 'numpy', 'refimpl.contract', 'refimpl.plugins'}\n"
        "print(*heavy.intersection(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == ""
