"""Explains an exception that a plugin raised to the plugin's author."""

from __future__ import annotations

import difflib
import re
import traceback
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import refimpl
from refimpl import contract, data
from refimpl.contract import Example
from refimpl.errors import one_line
from refimpl.loading.catalogue import HOW_TO_NAME
from refimpl.loading.discovery import Source
from refimpl.loading.validation import Finding, check_fields
from refimpl.requirements import EXTRAS
from refimpl.whereabouts import innermost


class Explained(NamedTuple):
    """What is wrong, and the line of the plugin that raised it, if there is one."""

    findings: list[Finding]
    file: Path | None
    line: int | None


def explain(error: BaseException, source: Source, code: str) -> Explained:
    """Explain, as a finding of kind ``code``, an exception raised while loading ``source``.

    If ``Example(...)`` itself failed over a field of a wrong type, the findings are instead those
    about its fields, which say more than the exception does.
    """
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    findings = [finding for frame in frames for finding in _half_made(frame)]
    if not findings:
        text = _text(error)
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        findings = [Finding(code, reason, _hint(error, source))]
    return Explained(findings, *_place(error, source))


def _text(error: BaseException) -> str:
    """The message, without the paths and suggestions that some versions of Python add."""
    if isinstance(error, SyntaxError):
        return one_line(error.msg)
    text = one_line(error)
    if isinstance(error, ImportError) and error.path:
        text = text.replace(f" ({error.path})", "")
    return re.sub(r"\. Did you mean '\w+'\?$", "", text)


def _half_made(frame: FrameType) -> list[Finding]:
    """What is wrong with the fields of an example, if this frame was initialising one."""
    if frame.f_code is not Example.__post_init__.__code__:
        return []
    return list(check_fields(frame.f_locals["self"]))


def _place(error: BaseException, source: Source) -> tuple[Path | None, int | None]:
    """The innermost line that the plugin's author wrote."""
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename), error.lineno
    if source.path is None:
        return None, None
    found = innermost(error, lambda frame: Path(frame.f_code.co_filename).resolve() == source.path)
    return found or (source.path, None)


# --- what to do ----------------------------------------------------------------------------------


def _hint(error: BaseException, source: Source) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _about_missing(error.name, source)
    if isinstance(error, ImportError):
        return _nearest(r"cannot import name '(\w+)' from 'refimpl'", error, refimpl.__all__)
    if isinstance(error, SystemExit):
        return "move the code that runs as a program under if __name__ == '__main__'"
    if isinstance(error, NameError) and error.name in refimpl.__all__:
        return f"write from refimpl import {error.name}"
    if isinstance(error, TypeError):
        return _about_call(error)
    return ""


def _about_missing(module: str, source: Source) -> str:
    if source.module == module or source.module.startswith(f"{module}."):
        if source.origin.startswith("distribution"):
            return "its entry point names a module that does not exist; reinstall it"
        return _or_file(module) or HOW_TO_NAME
    package = module.partition(".")[0]
    if package == "refimpl":
        return "this version of refimpl does not have that module"
    if package in EXTRAS:
        return f"install {package}, or import it where it is used and say needs={package!r}"
    return f"install {package}"


def _or_file(module: str) -> str:
    file = Path(f"{module}.py")
    return f"did you mean the file {file}?" if file.is_file() else ""


def _about_call(error: TypeError) -> str:
    """The nearest field, if a class of the contract was given one that it does not have."""
    called = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument", str(error))
    kind = getattr(contract, called[1], getattr(data, called[1], None)) if called else None
    if kind is None:
        return ""
    return _nearest(r"keyword argument '(\w+)'", error, [field.name for field in fields(kind)])


def _nearest(pattern: str, error: Exception, known: list[str]) -> str:
    found = re.search(pattern, str(error))
    near = difflib.get_close_matches(found[1], known, n=1) if found else []
    return f"did you mean {near[0]!r}?" if near else ""
