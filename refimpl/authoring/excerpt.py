"""The part of a plugin's source that a function or class needs, without refimpl.

Definitions are followed by name: what a definition mentions is taken too, from the plugin or from
the module of refimpl that it is imported from, until only imports of other packages are left.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

from refimpl.errors import RefimplError


class ExcerptError(RefimplError):
    """Something cannot be written without refimpl; the message says what."""


@dataclass
class Excerpt:
    """Definitions and imports, gathered one name at a time.

    ``provided`` are the names of refimpl that the program itself defines.
    """

    provided: Collection[str]
    imports: dict[str, str] = field(default_factory=dict)
    """Import statements by the name that each binds."""
    _kept: dict[str, tuple[ModuleType, ast.stmt]] = field(default_factory=dict)
    _sources: dict[str, _Source] = field(default_factory=dict)

    def expression(self, value: object, module: ModuleType) -> str:
        """The source of an expression for ``value``, a field of an example in ``module``.

        What it mentions is gathered. Raises :class:`ExcerptError` if there is none.
        """
        if isinstance(value, partial):
            parts = [self.expression(value.func, module), *map(repr, value.args)]
            parts += [f"{name}={own!r}" for name, own in value.keywords.items()]
            self.imports["partial"] = "from functools import partial"
            return f"partial({', '.join(parts)})"
        for name, own in vars(module).items():
            if own is value and name in self._source(module).bound:
                self.gather(name, module)
                return name
        if isinstance(value, FunctionType) and value.__name__ == "<lambda>":
            return self._lambda(value, module)
        if isinstance(value, (type, FunctionType)):
            return self._named(value)
        if _is_default(value):
            return f"{self.expression(type(value), module)}()"
        raise ExcerptError(f"{value!r} has no name in {module.__name__}")

    def gather(self, name: str, module: ModuleType) -> None:
        """Take the definition of a module's global name, and of all that it mentions."""
        statement = self._source(module).bound.get(name)
        if statement is None:
            return  # a builtin
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            self._imported(name, statement, module)
            return
        there = self._kept.get(name)
        if name in self.provided or (there is not None and there[1] is not statement):
            raise ExcerptError(f"two things in it would be called {name}")
        if there is None:
            self._kept[name] = (module, statement)
            for mentioned in _mentioned(statement):
                self.gather(mentioned, module)

    def text(self) -> str:
        """The definitions, each once, those of refimpl's modules first."""
        blocks = []
        for module in sorted({m.__name__ for m, _ in self._kept.values()}, key=self._rank):
            own = {id(s): s for m, s in self._kept.values() if m.__name__ == module}
            for statement in sorted(own.values(), key=lambda s: s.lineno):
                blocks.append((statement, self._sources[module].text_of(statement)))
        used = {
            node.attr for s, _ in blocks for node in ast.walk(s) if isinstance(node, ast.Attribute)
        }
        texts = [_without_refimpl(statement, text, used) for statement, text in blocks]
        return "\n\n\n".join(texts)

    def attributes_of(self, name: str) -> set[str]:
        """The attributes that the definitions read of anything called ``name``."""
        return {
            node.attr
            for _, statement in self._kept.values()
            for node in ast.walk(statement)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == name
        }

    def _rank(self, module: str) -> int:
        order = list(self._sources)
        return -order.index(module)

    def _source(self, module: ModuleType) -> _Source:
        if module.__name__ not in self._sources:
            self._sources[module.__name__] = _Source(inspect.getsource(module))
        return self._sources[module.__name__]

    def _imported(
        self, name: str, statement: ast.Import | ast.ImportFrom, here: ModuleType
    ) -> None:
        whence = getattr(statement, "module", None) or ""
        level = getattr(statement, "level", 0)
        (alias,) = (a for a in statement.names if (a.asname or a.name.partition(".")[0]) == name)
        if level == 0 and whence.partition(".")[0] != "refimpl" and alias.name != "refimpl":
            one = (
                ast.Import([alias])
                if isinstance(statement, ast.Import)
                else (ast.ImportFrom(whence, [alias], 0))
            )
            self.imports[name] = ast.unparse(one)
            return
        if name in self.provided:
            return
        value = getattr(here, name)
        home = inspect.getmodule(value)
        if isinstance(value, ModuleType) or home is None or alias.name != name:
            raise ExcerptError(f"it uses {whence}.{alias.name}")
        self.gather(name, home)

    def _named(self, value: type | FunctionType) -> str:
        """A class or function of an installed package, by its shortest public path."""
        home, name = value.__module__, value.__qualname__
        if home.partition(".")[0] == "refimpl" and name.isidentifier():
            self.gather(name, sys.modules[home])
            return name
        if "." in name or "<" in name:
            raise ExcerptError(f"{name} is made by a function, so it has no source of its own")
        parts = home.split(".")
        for depth in range(1, len(parts) + 1):
            short = ".".join(parts[:depth])
            if getattr(sys.modules.get(short), name, None) is value:
                self.imports[parts[0]] = f"import {parts[0]}"
                return f"{short}.{name}"
        raise ExcerptError(f"{home}.{name} cannot be imported")

    def _lambda(self, value: FunctionType, module: ModuleType) -> str:
        source, line = self._source(module), value.__code__.co_firstlineno
        found = [
            node
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Lambda) and node.lineno == line
        ]
        if len(found) != 1 or value.__closure__ or value.__defaults__:
            raise ExcerptError(f"the lambda in line {line} depends on what is around it")
        for mentioned in _mentioned(found[0]):
            self.gather(mentioned, module)
        return f"({ast.unparse(found[0])})"


class _Source:
    """A module's text, and the statement that binds each of its global names."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.tree = ast.parse(text)
        self.bound = {name: s for s in self.tree.body for name in _bound_by(s)}

    def text_of(self, statement: ast.stmt) -> str:
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(d.lineno for d in decorators)])
        return "\n".join(self.lines[first - 1 : statement.end_lineno])


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, (ast.Import, ast.ImportFrom)):
        yield from (a.asname or a.name.partition(".")[0] for a in statement.names)
    elif isinstance(statement, ast.Assign):
        targets = [node for target in statement.targets for node in ast.walk(target)]
        yield from (node.id for node in targets if isinstance(node, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


def _mentioned(node: ast.AST) -> Iterator[str]:
    """Every name that is read, but for annotations, which the program does not evaluate."""
    for name, part in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for each in part if isinstance(part, list) else [part]:
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load):
                yield each.id
            elif isinstance(each, ast.AST):
                yield from _mentioned(each)


def _without_refimpl(statement: ast.stmt, text: str, used: Collection[str]) -> str:
    """The definition without the methods that need refimpl and that nothing calls."""
    lines, first = text.splitlines(), statement.lineno
    first = min([first, *(d.lineno for d in getattr(statement, "decorator_list", []))])
    for part in reversed(getattr(statement, "body", [])):
        if _imports_refimpl(part):
            name = getattr(part, "name", "")
            if not isinstance(statement, ast.ClassDef) or not name or name in used:
                raise ExcerptError("it imports refimpl inside a function")
            del lines[part.lineno - 1 - first : part.end_lineno - first + 1]
    return "\n".join(lines).rstrip()


def _imports_refimpl(node: ast.AST) -> bool:
    return any(
        (getattr(each, "module", None) or "").partition(".")[0] == "refimpl"
        or any(alias.name.partition(".")[0] == "refimpl" for alias in each.names)
        for each in ast.walk(node)
        if isinstance(each, (ast.Import, ast.ImportFrom))
    )


def _is_default(value: Any) -> bool:
    """Whether it is a module, such as a loss, as its class makes it without arguments."""
    from torch import nn

    if not isinstance(value, nn.Module) or any(True for _ in value.parameters()):
        return False
    try:
        return bool(vars(type(value)()) == vars(value))
    except TypeError:  # it needs arguments
        return False
