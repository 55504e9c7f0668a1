"""A plugin that is broken is reported as failed, never as absent.

So is one that expects failures that no check could show, or that gets fewer checks than it must.
"""

import pytest

from refimpl.checking.checks import EXPECTATIONS, IN_ORDER, MANIFEST, Result
from refimpl.conformance.checks import ALL
from refimpl.runner.pytest_plugin import (
    cells_of,
    report_result,
    verdicts_on_expected_failures,
    verdicts_on_manifest,
    verdicts_on_plugins,
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each example, registered or refused, its expected failures, and its manifest."""
    if "verdict" in metafunc.fixturenames:
        config = metafunc.config
        verdicts = verdicts_on_plugins(config, IN_ORDER)
        if not verdicts:
            raise pytest.Collector.CollectError("no example was found: nothing would be checked")
        asked = cells_of(config, ALL)
        verdicts += verdicts_on_expected_failures(config, EXPECTATIONS, asked)
        verdicts += verdicts_on_manifest(config, MANIFEST, asked)
        metafunc.parametrize("verdict", [pytest.param(v, id=v.id) for v in verdicts])


def test_plugin_is_in_order(verdict: Result, request: pytest.FixtureRequest) -> None:
    """The plugin keeps the contract, what it expects to fail is a check, and none is missing."""
    report_result(request, verdict)
