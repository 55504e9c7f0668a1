"""Checks arguments of the command line before any work begins."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refimpl.cli.messages import complain
from refimpl.errors import RefimplError
from refimpl.names import unknown

if TYPE_CHECKING:
    from refimpl.contract import Example
    from refimpl.loading.registry import Registry


def registry_of(name: str, plugins: Sequence[str]) -> Registry:
    """The registry with the plugin of this example; other plugins are not imported."""
    from refimpl.loading import registry

    return registry.load(plugins, only=[name])


def example_of(name: str, plugins: Sequence[str]) -> tuple[Example, str]:
    """An example and its origin. An unknown name is refused without importing a plugin.

    One that does not state its facts yet is given too: it can be run while it is being written.
    """
    from refimpl.loading.catalogue import entries

    found = entries(plugins)
    known = {entry.name for entry in found if entry.name}
    if name not in known and all(entry.complete for entry in found):
        raise unknown(f"there is no example {name!r}", name, known)
    loaded = registry_of(name, plugins)
    unstated = loaded.unstated.get(name)
    example = unstated.value if unstated else loaded.example(name)
    for problem in loaded.problems:
        complain(f"not checked yet: {problem}" if unstated else f"not loaded: {problem}")
    return example, (unstated or loaded.examples[name]).origin


@contextmanager
def located_errors(example: Example) -> Iterator[None]:
    """Add the line of the plugin to any exception that its code raises."""
    from refimpl.whereabouts import describe_error

    try:
        yield
    except (RefimplError, BrokenPipeError):
        raise
    except Exception as error:
        raise RefimplError(f"{describe_error(example, error)} (--debug shows more)") from error


def require_device(device: str) -> None:
    """Raise :class:`RefimplError` if this machine does not have the device."""
    from refimpl.composition import on_device

    lacking = on_device(device).missing()
    if lacking:
        raise RefimplError(f"device {device!r} cannot be used here: {lacking}")


def require_plugins(
    context: click.Context, parameter: click.Parameter, plugins: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse a plugin that does not exist, before any other work."""
    if plugins:
        from refimpl.loading.catalogue import not_found

        for why in not_found(plugins):
            raise RefimplError(why)
    return plugins


def require_writable(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse an output path that cannot be written, before the work. Nothing is left behind.

    Missing folders can be created if the nearest existing one is writable.
    """
    if path is None or (os.path.exists(path) and not path.is_file() and not path.is_dir()):
        return path  # a pipe or a device is written to as it is
    begin = path.absolute() if os.path.isdir(path) else path.absolute().parent
    folder = next(each for each in (begin, *begin.parents) if os.path.exists(each))
    try:
        tempfile.NamedTemporaryFile(dir=folder, prefix=path.name, suffix=".part").close()
    except OSError as error:
        raise RefimplError(
            f"cannot write {path}: cannot create a file in {folder} ({error.strerror}); "
            f"choose another place for {parameter.opts[0]}"
        ) from error
    return path


def require_distinct_files(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that would overwrite another output or an input."""
    taken = {path.absolute(): "that file is an input" for path in inputs}
    for option, path in outputs.items():
        if path is None or (path.exists() and not path.is_file()):
            continue  # several things may go to a pipe or a device
        if path.absolute() in taken:
            raise RefimplError(f"{option} {path}: {taken[path.absolute()]}; choose another file")
        taken[path.absolute()] = f"{option} writes to it too"


def require_results_or_nothing(path: Path | None) -> None:
    """Refuse to overwrite a file that is not a results file."""
    if path is not None and path.is_file() and path.stat().st_size:
        with path.open("rb") as stream:
            if not stream.read(20).startswith(b'{"$report_type"'):
                raise RefimplError(
                    f"--results {path}: the file exists and is not a results file; choose another"
                )


def make_folder(path: Path | None) -> None:
    """Make the folder of this file."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
