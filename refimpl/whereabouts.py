"""Describes an exception of a plugin, with the line of the plugin that raised it."""

from __future__ import annotations

import functools
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from refimpl.contract import Example
from refimpl.errors import one_line

_NOT_OF_PLUGINS = ("torch", "numpy", "builtins", "functools")


_TIMEOUT = re.compile(r"Timeout \(>([\d.]+)s\) from pytest-timeout")


def describe_error(example: Example, error: BaseException) -> str:
    """An exception on one line: its type, its text and the place in the example's modules.

    That a check was stopped by its timeout is said in plain words.
    """
    if late := _TIMEOUT.match(str(error)):
        limit = f"{float(late[1]):g}"
        return f"it did not end within {limit} s, and was stopped{_place(example, error)}"
    return f"{type(error).__name__}: {one_line(error)}{_place(example, error)}"


def plugin_of(example: Example) -> str:
    """The modules that an example's own functions are in, a file by its name; or its own name."""
    return ", ".join(sorted(map(_shown, filter(None, _modules(example))))) or example.name


def _shown(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).name if file and module.startswith("refimpl_plugin_") else module


def _place(example: Example, error: BaseException) -> str:
    """`` (FILE:LINE)`` of the innermost line of the example's own modules, or ``""``.

    The file is named without its folders, so that the text is the same on every machine.
    """
    modules = _modules(example)
    found = innermost(error, lambda frame: frame.f_globals.get("__name__") in modules)
    if found is None:
        return ""
    file, line = found
    name = f"{file.parent.name}/{file.name}" if file.stem == "__init__" else file.name
    return f" ({name}:{line})"


def innermost(
    error: BaseException, own: Callable[[FrameType], bool]
) -> tuple[Path, int | None] | None:
    """The file and line of the innermost frame of an exception that is one's own, if any."""
    frames = list(traceback.walk_tb(error.__traceback__))
    own_frames = ((Path(f.f_code.co_filename), line) for f, line in reversed(frames) if own(f))
    return next(own_frames, None)


def files_of(example: Example) -> list[Path]:
    """The files of the modules that define an example's own functions."""
    found = (getattr(sys.modules.get(name), "__file__", None) for name in _modules(example))
    return sorted(Path(file) for file in found if file)


def names_something_of(example: Example, package: str) -> bool:
    """Whether a module of the example's own functions imports a package, or something from it."""
    for module in filter(None, map(sys.modules.get, _modules(example))):
        for value in tuple(vars(module).values()):
            of_module = isinstance(value, ModuleType)
            name = getattr(value, "__name__" if of_module else "__module__", None)
            if isinstance(name, str) and f"{name}.".startswith(f"{package}."):
                return True
    return False


def _modules(example: Example) -> set[str]:
    """The modules that define the functions of this example that the framework calls."""
    own = {getattr(given, "__module__", None) or "" for given in _called(example)}
    return {module for module in own if not _is_not_of_a_plugin(module)}


def _is_not_of_a_plugin(module: str) -> bool:
    package, _, inside = module.partition(".")
    if package == "refimpl":
        return not inside.startswith("plugins")
    return package in _NOT_OF_PLUGINS


def _called(example: Example) -> Iterator[Any]:
    for claim in example.values:
        yield unwrapped(claim.compute)
    for failure in example.failures:
        yield unwrapped(failure.attempt)
    for erratum in example.errata:
        yield unwrapped(erratum.holds)
    for variant in example.variants:
        for given in (variant.steps, variant.build, variant.start, variant.prepare, variant.loss):
            yield unwrapped(given)
        if variant.data is not None:
            yield unwrapped(variant.data.stand_in)
            yield unwrapped(variant.data.real)


def unwrapped(given: Any) -> Any:
    """What a :func:`functools.partial`, or one of another, calls in the end."""
    while isinstance(given, functools.partial):
        given = given.func
    return given
