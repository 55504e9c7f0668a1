"""What the answers about an example depend on: the digest of every file that can change them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from refimpl.checking import expectations
from refimpl.checking.checks import Result
from refimpl.loading.catalogue import entries
from refimpl.loading.registry import Registry
from refimpl.store import digests

DATA_MODULES = "refimpl.fixtures"

OF_EXAMPLES = ("plugins", "fixtures")

SAME = ("tier", "device", "reseed", "environment", "data")
"""Fields of a header that must be the same for an answer to be that of an earlier run."""


def contents(loaded: Registry, expected_failures: Sequence[Path] = ()) -> dict[str, str]:
    """For each example, the digest of its plugin, its data, the framework and the suite.

    Expected failures decide outcomes too: those beside the plugin, and those of other files.

    A data module is one that the plugin imports, directly or through another. Of other files, those
    that are named after another example are left out.
    """
    read = _Read()
    framework = read.digest(
        [*_python_of("refimpl"), *_python_of("refimpl.conformance"), *expected_failures]
    )
    fixtures = _fixtures({entry.name for entry in entries() if entry.name})
    found = {}
    for name, registered in loaded.examples.items():
        plugin = registered.source.path
        if plugin is None:
            continue
        own = sorted(plugin.parent.rglob("*.py")) if plugin.name == "__init__.py" else [plugin]
        expected = expectations.beside(registered.source)
        own += [expected] if expected else []
        brought = registered.value.baselines
        own += (
            sorted(digests.files_of(brought))
            if brought
            else [*fixtures.get("", ()), *fixtures.get(name, ())]
        )
        own += sorted(read.data_modules(own))
        found[name] = digests.of_bytes((framework + read.digest(own)).encode())
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


def _python_of(package: str) -> list[Path]:
    folder = Path(str(files(package)))
    modules = sorted(folder.rglob("*.py"))
    # In an installed refimpl, plugins and fixtures are inside it.
    return [path for path in modules if path.relative_to(folder).parts[0] not in OF_EXAMPLES]


def _fixtures(names: set[str]) -> dict[str, list[Path]]:
    """The files among the fixtures, but for modules, by the example that they are named after.

    Those that are named after none are at the empty name.
    """
    root = Path(str(files(DATA_MODULES)))
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in digests.files_of(root) if path.suffix != ".py"):
        parts = path.relative_to(root).parts
        named = [name for name in names if any(part.startswith(name) for part in parts)]
        found.setdefault(max(named, key=len, default=""), []).append(path)
    return found


class _Read:
    """What files contain and import; each is read once, though many examples depend on it."""

    def __init__(self) -> None:
        self._root = Path(str(files(DATA_MODULES)))
        self._digest = cache(digests.of_file)
        self._imports = cache(self._imported_by)

    def digest(self, paths: list[Path]) -> str:
        """One digest of these files."""
        return digests.of_bytes(b"".join(self._digest(path).encode() for path in paths))

    def data_modules(self, paths: list[Path]) -> set[Path]:
        """The modules of fixtures that these files import, and those that they import in turn."""
        found: set[Path] = set()
        left = [path for path in paths if path.suffix == ".py"]
        while left:
            new = self._imports(left.pop()) - found
            found |= new
            left += new
        return found

    def _imported_by(self, path: Path) -> set[Path]:
        nodes = ast.walk(ast.parse(path.read_bytes()))
        modules = {self._root / f"{name}.py" for node in nodes for name in _imported(node)}
        return {module for module in modules if module.is_file()}


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
