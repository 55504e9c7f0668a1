"""Every check of every example: one test each, named example/variant/check/execution/tier."""

import pytest

from refimpl.checking.checks import Cell
from refimpl.conformance.checks import ALL
from refimpl.runner.pytest_plugin import answer, cells_of, parameter, report_result


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each cell that the options ask for."""
    if "cell" in metafunc.fixturenames:
        metafunc.parametrize("cell", [parameter(cell) for cell in cells_of(metafunc.config, ALL)])


def test_example(cell: Cell, request: pytest.FixtureRequest) -> None:
    """Ask the check's question of the example; its measurements are the answer."""
    report_result(request, answer(request.config, cell))
