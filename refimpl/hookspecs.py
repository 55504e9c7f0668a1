"""The hooks that a plugin may implement; each is a function without arguments.

A plugin is a module (or another object) with at least one of these functions, marked with
:data:`hookimpl`::

    from refimpl import Example, hookimpl

    EXAMPLE = Example(name="my-example", ...)

    @hookimpl
    def refimpl_examples():
        return [EXAMPLE]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from refimpl.contract import Example, Execution

PROJECT = "refimpl"
"""The name by which pluggy distinguishes our marks from those of other projects."""

hookspec = pluggy.HookspecMarker(PROJECT)
"""Marks the specifications below."""

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's function as the implementation of the hook of the same name."""


@hookspec
def refimpl_examples() -> Iterable[Example]:
    """Return the documented examples of this plugin, in the order in which they are to be listed.

    Called once, right after the plugin is imported. It should only return what the module has
    created: each example is validated separately, and one that violates the contract is reported
    and left out, while the plugin's other examples stay.
    """
    raise NotImplementedError


@hookspec
def refimpl_executions() -> Iterable[Execution]:
    """Return additional ways to run a computation: a device, a precision, a wrapper.

    Called once, right after the plugin is imported, whether or not this machine can run them:
    :attr:`Execution.missing <refimpl.contract.Execution>` later says what the machine lacks.
    """
    raise NotImplementedError
