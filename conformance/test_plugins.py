"""A plugin that is broken is reported as failed, never as absent."""

import pytest

from refimpl.checking import Result
from refimpl.pytest_plugin import report_result, verdicts_on_plugins

CHECK = "plugin-in-order"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each example that was registered and each that was refused."""
    if "verdict" in metafunc.fixturenames:
        verdicts = verdicts_on_plugins(metafunc.config, CHECK)
        metafunc.parametrize("verdict", [pytest.param(v, id=v.id) for v in verdicts])


def test_plugin_is_in_order(verdict: Result, request: pytest.FixtureRequest) -> None:
    """Its plugin could be loaded and keeps the contract."""
    report_result(request, verdict)


def test_there_are_examples(pytestconfig: pytest.Config) -> None:
    """The registry found something to check."""
    found = [v for v in verdicts_on_plugins(pytestconfig, CHECK) if v.outcome == "passed"]
    assert found, "no example was found: nothing would be checked"
