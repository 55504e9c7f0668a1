"""Loads the plugins, each on its own, and keeps what is right with them.

A plugin that is broken in any way is a :class:`PluginProblem` with its origin and reason;
the others stand.
"""

from __future__ import annotations

import importlib
import importlib.util
import operator
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Generic, TypeVar

import pluggy

from refimpl import hookspecs, validation
from refimpl.catalogue import HOW_TO_NAME, Page, duplicate, pages
from refimpl.contract import Example, Execution
from refimpl.discovery import Source
from refimpl.errors import UnknownNameError
from refimpl.names import unknown
from refimpl.plugin_problem import PluginProblem, one_line
from refimpl.validation import Finding

Kind = TypeVar("Kind", Example, Execution)


@dataclass(frozen=True)
class Registered(Generic[Kind]):
    """An example or execution that is in order, and the plugin that it came from."""

    value: Kind
    source: Source

    @property
    def origin(self) -> str:
        """Where its plugin came from, in words."""
        return self.source.origin


@dataclass(frozen=True)
class Registry:
    """What the plugins gave, by name, in the order in which they gave it; and what is wrong."""

    examples: dict[str, Registered[Example]] = field(default_factory=dict)
    executions: dict[str, Registered[Execution]] = field(default_factory=dict)
    problems: tuple[PluginProblem, ...] = ()

    def example(self, name: str) -> Example:
        """The example of that name.

        Raises :class:`UnknownNameError`, with the nearest match, or with the reason why the
        example was refused.
        """
        if name in self.examples:
            return self.examples[name].value
        raise self._missing("example", name, self.examples)

    def execution(self, name: str) -> Execution:
        """The execution of that name; raises as :meth:`example` does."""
        if name in self.executions:
            return self.executions[name].value
        raise self._missing("execution", name, self.executions)

    def _missing(self, what: str, name: str, known: Collection[str]) -> UnknownNameError:
        for problem in self.problems:
            if what == "example" and name in problem.examples:
                return UnknownNameError(f"example {name!r} was refused: {problem}")
        return unknown(f"there is no {what} {name!r}", name, known)


def load(plugins: Sequence[str] = (), *, only: Collection[str] | None = None) -> Registry:
    """Import the plugins and register what they give.

    ``plugins`` are further ones: paths of files or folders, or dotted modules. ``only`` names the
    examples that are wanted: plugins that, by their source, cannot give one of them are not
    imported, unless a name is found nowhere. Raises nothing but ``KeyboardInterrupt``.
    """
    loader = _Loader()
    for page in _wanted(pages(plugins), only):
        loader.add(page)
    return Registry(loader.examples, loader.executions, tuple(loader.problems))


def _wanted(found: Sequence[Page], only: Collection[str] | None) -> list[Page]:
    known = {name for page in found for name in page.names}
    if only is None or not known.issuperset(only):
        return list(found)
    return [page for page in found if page.may_hold(only)]
