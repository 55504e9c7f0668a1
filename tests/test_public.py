"""What authors of plugins import, and what it costs them."""

import dataclasses
import subprocess
import sys

import pytest

import refimpl
from refimpl import compatibility, contract, hookspecs
from refimpl.loading.fieldtypes import wrong_fields
from refimpl.loading.validation import HOOKS


@pytest.mark.parametrize("name", refimpl.__all__)
def test_every_public_name_is_there(name):
    assert getattr(refimpl, name) is not None
    assert name in dir(refimpl)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'Exampel'"):
        _ = refimpl.Exampel


@pytest.mark.parametrize(
    "statement",
    [
        "import refimpl",
        "from refimpl import hookimpl",
        "from refimpl.loading.catalogue import entries",
    ],
)
def test_importing_costs_neither_torch_nor_numpy(statement):
    loaded = modules_after(statement)
    assert "refimpl" in loaded
    assert loaded.isdisjoint({"torch", "numpy"})


def modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(run.stdout.split())


def test_the_contract_is_the_newest_one_known():
    assert contract.CONTRACT == compatibility.NEWEST


def test_every_hook_is_specified_and_documented():
    specified = [name for name in dir(hookspecs) if name.startswith("refimpl_")]
    assert sorted(HOOKS) == specified
    for name in specified:
        assert getattr(hookspecs, name).__doc__


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (1, None),
        (2, None),
        (3, "upgrade refimpl"),
        (0, "state contract=1"),
        (-3, "state contract=1"),
    ],
)
def test_contracts_that_run_and_contracts_that_do_not(stated, said):
    refusal = compatibility.refusal(stated)
    assert (refusal and refusal[1]) == said


def test_an_old_contract_is_told_every_change_since(monkeypatch):
    monkeypatch.setattr(compatibility, "NEWEST", 4)
    monkeypatch.setattr(compatibility, "OLDEST", 3)
    monkeypatch.setattr(compatibility, "CHANGES", {1: "rename a", 2: "rename b", 3: "rename c"})
    assert compatibility.refusal(1) == (
        "written for contract 1, this refimpl needs 3 or newer",
        "rename a; rename b; state contract=3",
    )


# --- the contract's annotations ------------------------------------------------------------------

CLASSES = [kind for kind in vars(contract).values() if dataclasses.is_dataclass(kind)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_annotation_of_the_contract_can_be_held_against_a_value(kind):
    nothing = kind.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(nothing, field.name, None)
    for wrong in wrong_fields(nothing):
        assert wrong.found == "None"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (contract.Layer("a", "Linear", (-1, 2), 3), []),
        (contract.Layer("a", "Linear", [2], 3), ["output must be a tuple of int, found list"]),
        (contract.Layer("a", "Linear", (2.0,), 3), ["output[0] must be int, found float 2.0"]),
        (contract.Layer("a", "Linear", (2,), True), ["parameters must be int, found bool True"]),
        (contract.Figure("a", 1), []),
        (
            contract.Figure("a", None, real=(1.0,)),
            ["real must be a tuple of 2 float or None, found a tuple of 1"],
        ),
        (
            contract.Protocol(1, 0.1, report="last"),
            ["report must be 'epoch' or 'last-batch', found str 'last'"],
        ),
        (contract.Failure("a", list, ValueError), []),
        (
            contract.Failure("a", list, "ValueError"),
            ["raises must be a subclass of BaseException, found str 'ValueError'"],
        ),
        (
            contract.Variant("a", names={1: "w"}, metrics={"m": 0}),
            [
                "metrics['m'] must be callable, found int 0",
                "names[key 1] must be str, found int 1",
            ],
        ),
        (
            contract.Facts(figures=(contract.Figure("loss", "0.4"),)),
            ["figures['loss'].documented must be float or None, found str '0.4'"],
        ),
        (
            contract.Example("a", "b", "c", "d", values=(contract.Exact("sum", 1, 1),)),
            ["values['sum'].compute must be callable, found int 1"],
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected_and_found(value, said):
    assert [str(wrong) for wrong in wrong_fields(value)] == said


def test_what_a_document_expects_is_not_looked_into():
    exact = contract.Exact("a layer", list, contract.Layer(1, 2, 3, 4))
    assert list(wrong_fields(exact)) == []
