"""The suite: what is asked of every example, and the pytest tests that ask it.

Three ways to ask, each with every check and each with the failures that a plugin says to expect:

- ``pytest --pyargs refimpl.conformance --example my-example``, from anywhere;
- :func:`parametrize_with_checks`, from the tests of the distribution that the plugin is in;
- :func:`check_example`, from Python, without pytest.

Importing this module costs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from refimpl.checking import Result
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
    """Ask an example everything that the suite asks, and give the answers.

    ``example`` is the object itself, registered or not, or the name of a registered one.
    ``tier``, ``device`` and ``executions`` are what ``--data``, ``--device`` and ``--execution``
    are to the suite. The first answer is whether the plugin is in order; it is the only one where
    it is not. Nothing that the plugin does raises here: an exception is a ``failed`` result.

    Raises :class:`~refimpl.errors.UnknownNameError` for a name, of an example or an execution,
    that there is not. ::

        results = check_example("my-example")
        assert all(result.outcome in ("passed", "skipped", "xfailed") for result in results)
    """
    from refimpl.conformance.asking import on_its_own

    return [ask() for _, ask in on_its_own(example, tier, device, executions)]


def parametrize_with_checks(*examples: Example | str) -> pytest.MarkDecorator:
    """Make one test of every check of these examples; the test is given each as ``check``.

    ``examples`` are as in :func:`check_example`. The options of the suite (``--data``,
    ``--device``, ``--execution``, ``--results`` …) hold for these tests too. ::

        @parametrize_with_checks("my-example")
        def test_my_example(check):
            check()
    """
    import pytest

    return pytest.mark.refimpl_checks.with_args(partial(_questions, examples))


def _questions(examples: Sequence[Example | str], config: pytest.Config) -> list[object]:
    from refimpl.conformance.asking import questions

    return questions(examples, config)
