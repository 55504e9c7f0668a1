"""Finds the plugins by name and path, without running any of their code."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path
from zlib import crc32

from refimpl.errors import RefimplError

BUILT_IN = "refimpl.executions.built_in"
IN_TREE = "refimpl.plugins"
GROUP = "refimpl.plugins"
"""The entry-point group in which an installed distribution names its plugins."""

DISABLE_VARIABLE = "REFIMPL_DISABLE"
"""Names of plugins to leave out, separated by commas."""


@dataclass(frozen=True)
class Source:
    """A plugin that was found but not yet read.

    ``module`` is the name under which it is imported; ``attribute`` is the object in it that is the
    plugin, if that is not the module itself. ``path`` is its source file, if that can be found
    without an import. ``standalone`` modules are loaded from their path, the others by name.
    """

    plugin: str
    origin: str
    module: str
    path: Path | None = None
    attribute: str = ""
    standalone: bool = False


def sources(plugins: Sequence[str] = ()) -> list[Source]:
    """Every plugin in the order in which they are loaded, except disabled ones.

    Built-in, in-tree, installed distributions, and then ``plugins``: paths of files, folders
    with an ``__init__.py``, or dotted modules. A plugin found twice counts once.
    """
    found = [
        *_built_in(),
        *_in_tree(),
        *_installed(),
        *(named(plugin) for plugin in plugins),
    ]
    blocked = disabled()
    return [source for source in _once(found) if _plain(source.plugin) not in blocked]


def disabled() -> frozenset[str]:
    """The names that ``REFIMPL_DISABLE`` blocks; ``-`` and ``_`` are equivalent in them."""
    names = os.environ.get(DISABLE_VARIABLE, "").split(",")
    return frozenset(_plain(name) for name in names if name.strip())


def find_spec(module: str) -> ModuleSpec | None:
    """Where a dotted module is, without running it or its parent packages."""
    path: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _ask_finders(".".join(parts[:depth]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations or ()
    return spec


def _ask_finders(module: str, path: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        look = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = look(module, path) if look else None
        if spec is not None:
            return spec
    return None


# --- the four places -----------------------------------------------------------------------------


def _built_in() -> Iterator[Source]:
    path = _source_file(BUILT_IN)
    if path is not None:
        yield Source("executions", f"built-in {BUILT_IN}", BUILT_IN, path)


def _in_tree() -> Iterator[Source]:
    """The modules directly in ``refimpl.plugins``; those named ``_…`` are their helpers."""
    spec = find_spec(IN_TREE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    names = sorted(found.name for found in pkgutil.iter_modules(folders))
    for name in names:
        if not name.startswith("_"):
            module = f"{IN_TREE}.{name}"
            yield Source(name, f"in-tree {module}", module, _source_file(module))


def _installed() -> Iterator[Source]:
    points = [(_distribution(point), point) for point in _entry_points()]
    for distribution, point in sorted(points, key=lambda found: (found[0], found[1].name)):
        module, _, attribute = point.value.partition(":")
        module, attribute = module.strip(), attribute.partition("[")[0].strip()
        yield Source(point.name, distribution, module, _source_file(module), attribute)


def _entry_points() -> Sequence[EntryPoint]:
    """The entry points of the group; :class:`RefimplError` names a distribution that has none."""
    try:
        return list(entry_points(group=GROUP))
    except Exception:  # what it raises depends on Python's version, and names nothing
        for distribution in distributions():
            try:
                list(distribution.entry_points)
            except Exception as error:
                name = distribution.metadata["Name"] or "a distribution without a name"
                raise RefimplError(
                    f"the entry_points.txt of {name} cannot be read ({error}); "
                    f"reinstall it, or: python -m pip uninstall {name}"
                ) from error
        raise


def named(plugin: str) -> Source:
    """The plugin with that path or module name, whether or not it exists."""
    path = Path(plugin).expanduser()
    if path.suffix == ".py":
        return _standalone(f"file {plugin}", path.stem, path)
    if path.name != plugin or (path / "__init__.py").is_file():
        return _standalone(f"folder {plugin}", path.resolve().name, path / "__init__.py")
    module, _, attribute = plugin.partition(":")
    return Source(plugin, f"module {plugin}", module, _source_file(module), attribute)


def _standalone(origin: str, name: str, path: Path) -> Source:
    path = path.resolve()
    return Source(name, origin, _module_name(name, path), path, standalone=True)


# --- helpers -------------------------------------------------------------------------------------


def _distribution(point: EntryPoint) -> str:
    if point.dist is None:
        return "distribution of unknown name"
    return f"distribution {point.dist.metadata['Name']} {point.dist.version}"


def _source_file(module: str) -> Path | None:
    """The file of a module's source; ``None`` if there is none to read."""
    try:
        spec = find_spec(module)
    except Exception:  # a third party's finder; the import will show what is wrong
        return None
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    return Path(spec.origin).resolve() if spec.origin.endswith(".py") else None


def _module_name(name: str, path: Path) -> str:
    """A module name that is unique to this file and the same in every process."""
    letters = "".join(c if c.isalnum() else "_" for c in name)
    return f"refimpl_plugin_{letters}_{crc32(os.fsencode(path)):08x}"


def _plain(name: str) -> str:
    return name.strip().replace("-", "_")


def _once(found: Iterable[Source]) -> list[Source]:
    """The first source of each plugin, so that naming an in-tree file is not a duplicate."""
    first: dict[tuple[object, str], Source] = {}
    for source in found:
        first.setdefault((source.path or source.module, source.attribute), source)
    return list(first.values())
