"""What the answers about an example depend on: the digest of every file that can change them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from refimpl.checking.checks import Result
from refimpl.loading.catalogue import entries
from refimpl.loading.registry import Registry
from refimpl.store import digests

DATA_MODULES = "refimpl.fixtures"

OF_EXAMPLES = ("plugins", "fixtures")

SAME = ("tier", "device", "reseed", "environment", "data")
"""Fields of a header that must be the same for an answer to be that of an earlier run."""


def contents(loaded: Registry) -> dict[str, str]:
    """For each example, the digest of its plugin, its data, the framework and the suite.

    A data module is one that the plugin imports, directly or through another. Of other files, those
    that are named after another example are left out.
    """
    framework = _digest(_python_of("refimpl")) + _digest(_python_of("refimpl.conformance"))
    names = {entry.name for entry in entries() if entry.name}
    found = {}
    for name, registered in loaded.examples.items():
        plugin = registered.source.path
        if plugin is None:
            continue
        own = sorted(plugin.parent.rglob("*.py")) if plugin.name == "__init__.py" else [plugin]
        brought = registered.value.baselines
        own += sorted(_files_of(brought)) if brought else _fixtures(name, names - {name})
        own += sorted(_data_modules(own))
        found[name] = digests.of_bytes((framework + _digest(own)).encode())
    return found


def unchanged(
    checks: tuple[Result, ...], before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[Result]:
    """The answers of an earlier run, by its header, that a run with another header would repeat.

    A failure is no such answer: it is always run again.
    """
    if any(before.get(key) != now.get(key) for key in SAME):
        return []
    cells, was, is_now = now.get("cells"), before.get("contents", {}), now.get("contents", {})
    return [
        check
        for check in checks
        if check.outcome != "failed"
        and check.example in is_now
        and was.get(check.example) == is_now[check.example]
        and check.id in (cells or ())
    ]


def _digest(paths: list[Path]) -> str:
    return digests.of_bytes(b"".join(digests.of_file(path).encode() for path in paths))


def _python_of(package: str) -> list[Path]:
    folder = Path(str(files(package)))
    modules = sorted(folder.rglob("*.py"))
    # In an installed refimpl, plugins and fixtures are inside it.
    return [path for path in modules if path.relative_to(folder).parts[0] not in OF_EXAMPLES]


def _files_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")


def _fixtures(name: str, others: set[str]) -> list[Path]:
    """The files among the fixtures, but for modules, that are not another example's."""
    root = Path(str(files(DATA_MODULES)))

    def is_of_another(path: Path) -> bool:
        parts = path.relative_to(root).parts
        named = [other for other in (*others, name) if any(p.startswith(other) for p in parts)]
        return bool(named) and max(named, key=len) != name

    return sorted(
        path for path in _files_of(root) if path.suffix != ".py" and not is_of_another(path)
    )


def _data_modules(paths: list[Path]) -> set[Path]:
    """The modules of fixtures that these files import, and those that they import in turn."""
    root = Path(str(files(DATA_MODULES)))
    found: set[Path] = set()
    left = [path for path in paths if path.suffix == ".py"]
    while left:
        for node in ast.walk(ast.parse(left.pop().read_bytes())):
            for module in _imported(node):
                path = root / f"{module}.py"
                if path.is_file() and path not in found:
                    found.add(path)
                    left.append(path)
    return found


def _imported(node: ast.AST) -> Iterator[str]:
    """The names of modules of fixtures that a node imports."""
    inside = f"{DATA_MODULES}."
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        modules = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
    else:
        return
    yield from (m.removeprefix(inside).split(".")[0] for m in modules if m.startswith(inside))
