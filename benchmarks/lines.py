"""Counts the lines that a user writes for a training: those of what really ran.

A function that ran counts whole, with its class's first line; blank lines, comments and docstrings
do not count. Of a plugin, what it declares of the training counts as well.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

Given = TypeVar("Given")

DECLARED = frozenset(["data", "protocol", "loss", "metrics", "prepare", "build", "optimizer"])
"""What an example or variant says of its training."""

NO_CODE = frozenset(
    [
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENCODING, tokenize.ENDMARKER,
    ]
)  # fmt: skip

Function = tuple[Path, int]
"""The file of a function and its first line."""

Lines = frozenset[int]
Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Source:
    """A file of Python that is counted."""

    text: str

    @property
    def tree(self) -> ast.Module:
        """What the file says."""
        return ast.parse(self.text)

    @property
    def code(self) -> Lines:
        """The lines that are neither blank nor comment nor docstring."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        spans = (range(t.start[0], t.end[0] + 1) for t in tokens if t.type not in NO_CODE)
        lines = {line for span in spans for line in span}
        for node in ast.walk(self.tree):
            if isinstance(node, Definition | ast.Module) and ast.get_docstring(node) is not None:
                lines -= _lines_of(node.body[0])
        return frozenset(lines)

    def ran(self, first_lines: Collection[int]) -> Lines:
        """The lines of the functions in which these that ran begin, or lie."""
        found: set[int] = set()
        for header, function in self._functions():
            if not _lines_of(function).isdisjoint(first_lines):
                found |= header | _lines_of(function)
        return self.code & found

    def _functions(self) -> Iterator[tuple[Lines, ast.FunctionDef]]:
        """Each function of the module and of its classes, with its class's first lines."""
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef):
                yield frozenset(), node
            elif isinstance(node, ast.ClassDef):
                for own in node.body:
                    if isinstance(own, ast.FunctionDef):
                        yield _header(node), own

    def declared(self, variant: str) -> Lines:
        """The lines that declare the training of a variant, and the helper that declares alike."""
        calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        named = next(c for c in calls if c.args and _constant(c.args[0]) == variant)
        own = {keyword.arg for keyword in named.keywords}
        found: set[int] = set()
        for keyword in _declaring(next(c for c in calls if _name(c.func) == "Example")):
            if keyword.arg not in own:
                found |= self._kept(keyword)
        for call in (named, *self._helper(named, found)):
            dropped = (k for k in call.keywords if k.arg and k.arg not in DECLARED)
            found |= _lines_of(call) - frozenset().union(*map(_lines_of, dropped))
            found |= {call.lineno, *(a.lineno for a in call.args)}
            for keyword in _declaring(call):
                found |= self._kept(keyword)
        return self.code & found

    def _helper(self, call: ast.Call, found: set[int]) -> Iterator[ast.Call]:
        """The call of ``Variant`` in the function that makes a variant, if there is one."""
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == _name(call.func):
                found |= _header(node)
                inner = (own for own in ast.walk(node) if isinstance(own, ast.Call))
                yield next(own for own in inner if _name(own.func) == "Variant")

    def _kept(self, keyword: ast.keyword) -> Lines:
        """The lines of a keyword, and of the constant of the module that it names."""
        found = set(_lines_of(keyword))
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and _names(node.targets[0], keyword.value):
                found |= _lines_of(node)
        return frozenset(found)


def written(ran: Collection[Function], files: Collection[Path]) -> int:
    """How many lines of these files ran."""
    sources = {file: Source(file.read_text(encoding="utf-8")) for file in files}
    return sum(
        len(source.ran([line for path, line in ran if path == file]))
        for file, source in sources.items()
    )


def watched(run: Callable[[], Given]) -> tuple[Given, frozenset[Function]]:
    """What ``run`` gives, and the functions that ran."""
    seen: set[tuple[str, int]] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            seen.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        given = run()
    finally:
        sys.setprofile(before)
    return given, frozenset((Path(file), line) for file, line in seen)


def _lines_of(node: ast.AST) -> Lines:
    decorated = [own.lineno for own in getattr(node, "decorator_list", ())]
    first, last = min([node.lineno, *decorated]), node.end_lineno  # type: ignore[attr-defined]
    return frozenset(range(first, last + 1))


def _header(node: Definition) -> Lines:
    """The lines of a definition before its body."""
    return frozenset(range(node.lineno, node.body[0].lineno))


def _declaring(call: ast.Call) -> list[ast.keyword]:
    return [keyword for keyword in call.keywords if keyword.arg in DECLARED]


def _constant(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _names(target: ast.expr, value: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == _name(value)


def _name(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else None
