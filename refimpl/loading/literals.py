"""Reads the literals in a module's source, without running it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from functools import cached_property
from itertools import takewhile

_DEPTH = 20
"""How many names deep a value is followed; a name bound to itself never ends."""


class Literals:
    """The literals of one module.

    A name stands for what it is bound to, if it is bound only once at the top of the module.
    ``None`` stands for whatever cannot be determined without running it.
    """

    def __init__(self, source: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the import will repeat Python's warnings
            self.tree = ast.parse(source)

    def calls(self, name: str) -> Iterator[ast.Call]:
        """The calls of what ``refimpl`` calls ``name``, anywhere in the module, by line."""
        found = [
            node for node in self._nodes if isinstance(node, ast.Call) and self.called(node) == name
        ]
        return iter(sorted(found, key=lambda call: (call.lineno, call.col_offset)))

    def called(self, call: ast.Call) -> str:
        """What is called, by refimpl's own name for it; the module may have renamed it."""
        if isinstance(call.func, ast.Attribute):
            return call.func.attr
        if isinstance(call.func, ast.Name):
            return self._imported.get(call.func.id, call.func.id)
        return ""

    def text(self, node: ast.expr | None) -> str | None:
        """The string that ``node`` stands for."""
        value = self.value(node)
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
        return None

    def number(self, node: ast.expr | None) -> int | None:
        """The whole number that ``node`` stands for."""
        value = self.value(node)
        if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub):
            positive = self.number(value.operand)
            return None if positive is None else -positive
        if isinstance(value, ast.Constant) and type(value.value) is int:
            return value.value
        return None

    def items(self, node: ast.expr | None, depth: int = _DEPTH) -> list[ast.expr] | None:
        """The elements of the tuple or list that ``node`` stands for, with names followed."""
        value = self.value(node)
        if depth == 0:
            return None
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
            return _joined([self.items(side, depth - 1) for side in (value.left, value.right)])
        if isinstance(value, ast.Tuple | ast.List):
            return _joined(
                [
                    self.items(element.value, depth - 1)
                    if isinstance(element, ast.Starred)
                    else [self.value(element) or element]
                    for element in value.elts
                ]
            )
        return None

    def value(self, node: ast.expr | None) -> ast.expr | None:
        """The expression that ``node`` stands for: itself, or what its name is bound to."""
        for _ in range(_DEPTH):
            if not isinstance(node, ast.Name):
                return node
            node = self._constants.get(node.id)
        return None

    def function(self, name: str) -> ast.FunctionDef | None:
        """The function with that name at the top of the module."""
        return self._functions.get(name)

    @cached_property
    def _nodes(self) -> list[ast.AST]:
        """Everything in the module; cached, since walking it takes longer than all else here."""
        return list(ast.walk(self.tree))

    @cached_property
    def _functions(self) -> dict[str, ast.FunctionDef]:
        return {node.name: node for node in self.tree.body if isinstance(node, ast.FunctionDef)}

    @cached_property
    def _constants(self) -> dict[str, ast.expr | None]:
        constants: dict[str, ast.expr | None] = {}
        for name, value in _bindings(self.tree):
            constants[name] = None if name in constants else value
        return constants

    @cached_property
    def _imported(self) -> dict[str, str]:
        """refimpl's own names, by what they are called here."""
        return {
            alias.asname: alias.name
            for node in self._nodes
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("refimpl")
            for alias in node.names
            if alias.asname
        }


def arguments(call: ast.Call, positional: tuple[str, ...]) -> dict[str, ast.expr]:
    """The arguments that a call spells out, by name; see also :func:`hides_some`."""
    plain = takewhile(lambda value: not isinstance(value, ast.Starred), call.args)
    given = dict(zip(positional, plain, strict=False))
    return given | {word.arg: word.value for word in call.keywords if word.arg is not None}


def hides_some(call: ast.Call) -> bool:
    """Whether the call has arguments that it does not spell out: ``*these`` or ``**those``."""
    starred = any(isinstance(value, ast.Starred) for value in call.args)
    return starred or any(word.arg is None for word in call.keywords)


def returned(function: ast.FunctionDef) -> ast.expr | None:
    """What a function returns, if it has exactly one ``return``."""
    returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    return returns[0].value if len(returns) == 1 else None


def parameters(function: ast.FunctionDef) -> tuple[str, ...]:
    """The names of the parameters that a call may pass by position."""
    return tuple(a.arg for a in (*function.args.posonlyargs, *function.args.args))


def _bindings(tree: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    """Each name bound at the top of the module; ``None`` if not by a plain assignment."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name, None
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, statement.value
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id, None


def _joined(parts: list[list[ast.expr] | None]) -> list[ast.expr] | None:
    joined: list[ast.expr] = []
    for part in parts:
        if part is None:
            return None
        joined += part
    return joined
