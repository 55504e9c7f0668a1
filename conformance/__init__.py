"""The suite: the checks of every example, and the pytest tests that run them.

There are three ways to run it, each with every check and with the failures that a plugin expects:

- ``pytest --pyargs refimpl.conformance --example my-example``, from anywhere;
- :func:`parametrize_with_checks`, from the tests of the distribution that the plugin is in;
- :func:`check_example`, from Python, without pytest.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from refimpl.checking.checks import Result
    from refimpl.contract import Example
    from refimpl.data import Tier

__all__ = ["check_example", "parametrize_with_checks"]


def check_example(
    example: Example | str,
    *,
    tier: Tier = "stand-in",
    device: str = "cpu",
    executions: Sequence[str] | None = None,
) -> list[Result]:
    """Run every check of the suite on an example and return the results.

    ``example`` is the object itself, registered or not, or the name of a registered one.
    ``tier``, ``device`` and ``executions`` are the suite's ``--data``, ``--device`` and
    ``--execution``. The first result says whether the plugin is in order; if it is not, there is
    no other. An exception that the plugin raises is not passed on but becomes a ``failed`` result.

    Raises :class:`~refimpl.errors.UnknownNameError` if there is no example, tier, device or
    execution of a given name, and :class:`~refimpl.errors.RefimplError` if the device or execution
    cannot be used here, or supports no variant of the example. ::

        results = check_example("my-example")
        assert all(result.outcome in ("passed", "skipped", "xfailed") for result in results)
    """
    from refimpl.checking.plan import plan_one, require_executions
    from refimpl.checking.requests import Request
    from refimpl.conformance.checks import ALL
    from refimpl.loading.registry import load_for

    request = Request((), tier, device, executions or ())
    planned = plan_one(load_for(example), example, request, ALL)
    require_executions([planned], request)
    return [*planned.verdicts, *map(planned.run, planned.cells)]


def parametrize_with_checks(*examples: Example | str) -> pytest.MarkDecorator:
    """Make one test for each check of these examples; the test gets the check as ``check``.

    ``examples`` are as in :func:`check_example`. The options of the suite (``--data``,
    ``--device``, ``--execution``, ``--results`` …) apply to these tests too. ::

        @parametrize_with_checks("my-example")
        def test_my_example(check):
            check()
    """
    import pytest

    return pytest.mark.refimpl_checks.with_args(partial(_questions, examples))


def _questions(examples: Sequence[Example | str], config: pytest.Config) -> list[object]:
    from refimpl.conformance.checks import ALL
    from refimpl.runner.pytest_plugin import questions_about

    return questions_about(examples, config, ALL)
