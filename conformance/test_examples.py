"""Every check of every example: one test each, named example/variant/check/execution/tier.

A plugin that is broken is reported as failed, never as absent. So is one that expects failures that
no check could show, or that gets fewer checks than the manifest says.
"""

import pytest

from refimpl.checking.checks import Cell, Result
from refimpl.conformance.checks import ALL
from refimpl.runner.pytest_plugin import parameter, plan_of, report_result


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each verdict and each cell of the plan."""
    if not {"verdict", "cell"} & set(metafunc.fixturenames):
        return
    plan = plan_of(metafunc.config, ALL)
    if not plan.verdicts:
        raise pytest.Collector.CollectError("no example was found: nothing would be checked")
    if "verdict" in metafunc.fixturenames:
        metafunc.parametrize("verdict", [pytest.param(v, id=v.id) for v in plan.verdicts])
    else:
        metafunc.parametrize("cell", [parameter(cell) for cell in plan.cells])


def test_plugin_is_in_order(verdict: Result, request: pytest.FixtureRequest) -> None:
    """The plugin keeps the contract, what it expects to fail is a check, and none is missing."""
    report_result(request, verdict)


def test_example(cell: Cell, request: pytest.FixtureRequest) -> None:
    """Run the check; its measurements are the answer."""
    report_result(request, plan_of(request.config, ALL).run(cell))
