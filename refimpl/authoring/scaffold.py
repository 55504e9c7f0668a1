"""New plugins, made from templates: one file, or a distribution of their own.

The new example passes every check, and its author replaces it piece by piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path

from packaging.version import Version

from refimpl._version import __version__
from refimpl.compatibility import NEWEST
from refimpl.errors import RefimplError
from refimpl.loading.catalogue import entries
from refimpl.loading.discovery import IN_TREE, find_spec

SMALL, FULL = "small.py.jinja", "full.py.jinja"
DISTRIBUTION = "distribution"


class ScaffoldError(RefimplError):
    """The plugin cannot be made here or under that name."""


@dataclass(frozen=True)
class Names:
    """What an example, its module and its distribution are called."""

    name: str
    module: str
    distribution: str

    @property
    def stem(self) -> str:
        """The example's name as a Python identifier."""
        return self.name.replace("-", "_")

    @property
    def title(self) -> str:
        """A first title, for the author to improve."""
        return self.name.replace("-", " ").capitalize()


def new_file(name: str, folder: Path, full: bool = False) -> list[Path]:
    """Make a plugin of one file in ``folder``; return the files made.

    ``full`` shows more of the contract: a loop of one's own, a ladder, a layer table, exact values.
    Raises :class:`ScaffoldError` if the name is unsuitable or taken, or if a file is in the way.
    """
    names = _named(name, module=name.replace("-", "_"))
    return _write(folder, {f"{names.module}.py": FULL if full else SMALL}, names)


def new_distribution(name: str, folder: Path, full: bool = False) -> list[Path]:
    """Make an installable distribution with one plugin under ``folder``; return the files made.

    Raises :class:`ScaffoldError` as :func:`new_file` does.
    """
    names = _named(name, module=f"refimpl_{name.replace('-', '_')}")
    package = f"src/{names.module}"
    templates = {
        "pyproject.toml": f"{DISTRIBUTION}/pyproject.toml.jinja",
        "README.md": f"{DISTRIBUTION}/README.md.jinja",
        f"{package}/__init__.py": FULL if full else SMALL,
        f"{package}/expected-failures.toml": f"{DISTRIBUTION}/expected-failures.toml.jinja",
        f"tests/test_{names.stem}.py": f"{DISTRIBUTION}/test_example.py.jinja",
    }
    return _write(folder, templates, names)


def is_in_tree(path: Path) -> bool:
    """Whether refimpl finds a plugin in this file by itself, as one of its own."""
    spec = find_spec(IN_TREE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return any(path.parent.resolve() == Path(folder).resolve() for folder in folders)


def _named(name: str, module: str) -> Names:
    """The names to use; raises if the example's name is unsuitable or taken."""
    from refimpl.loading.validation import check_example_name

    for finding in check_example_name(name):
        raise ScaffoldError(f"{finding.reason}; {finding.hint}")
    if not module.isidentifier() or iskeyword(module):
        raise ScaffoldError(
            f"an example {name!r} would be a module {module!r}, which Python cannot import; "
            "choose a name that begins with a letter and is not a Python keyword"
        )
    for entry in entries():
        if entry.name == name:
            raise ScaffoldError(
                f"there is an example {name!r} already, from {entry.origin}; choose another name"
            )
    return Names(name, module, f"refimpl-{name}")


def _write(folder: Path, templates: Mapping[str, str], names: Names) -> list[Path]:
    """Render each template to its path under ``folder``: all of them, or none."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    release = Version(__version__)
    environment = Environment(
        loader=PackageLoader("refimpl.authoring"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    texts = {
        folder / path: environment.get_template(template).render(
            name=names.name, title=names.title, stem=names.stem, module=names.module,
            distribution=names.distribution, refimpl=f"{release.major}.{release.minor}",
            contract=NEWEST,
        )
        for path, template in templates.items()
    }  # fmt: skip
    try:
        for path in texts:
            if path.exists():
                raise ScaffoldError(f"{path} exists already; nothing was written")
        _write_all(texts)
    except OSError as error:
        at = error.filename or folder
        raise ScaffoldError(f"cannot write {at}: {error.strerror}; nothing was written") from error
    return list(texts)


def _write_all(texts: Mapping[Path, str]) -> None:
    """Write new files and the folders that they need; if one fails, remove what was made."""
    made: list[Path] = []
    try:
        for path, text in texts.items():
            for folder in reversed([f for f in path.parents if not f.exists()]):
                folder.mkdir()
                made.append(folder)
            with path.open("x", encoding="utf-8") as stream:
                made.append(path)
                stream.write(text)
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):  # someone else has put something into the folder
                path.rmdir() if path.is_dir() else path.unlink()
        raise
