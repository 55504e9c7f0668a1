"""What was given on the command line: looked up, or refused before any work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refimpl.errors import RefimplError, one_line
from refimpl.names import unknown

if TYPE_CHECKING:
    from refimpl.contract import Example
    from refimpl.loading.registry import Registry


def complain(message: str) -> None:
    """Say what is wrong, on one line of standard error."""
    click.echo(f"refimpl: {one_line(message)}", err=True)


def registry_of(name: str, plugins: Sequence[str]) -> Registry:
    """The registry with the plugin of this example; the others are not imported."""
    from refimpl.loading import registry

    return registry.load(plugins, only=[name])


def example_of(name: str, plugins: Sequence[str]) -> tuple[Example, str]:
    """An example and its origin; an unknown name is answered from the sources alone, at once."""
    from refimpl.loading.catalogue import entries

    found = entries(plugins)
    known = {entry.name for entry in found if entry.name}
    if name not in known and all(entry.complete for entry in found):
        raise unknown(f"there is no example {name!r}", name, known)
    loaded = registry_of(name, plugins)
    example = loaded.example(name)
    for problem in loaded.problems:
        complain(f"left out: {problem}")
    return example, loaded.examples[name].origin


@contextmanager
def located_errors(example: Example) -> Iterator[None]:
    """Add the line of the plugin to whatever its code raises."""
    from refimpl.whereabouts import describe_error

    try:
        yield
    except (RefimplError, BrokenPipeError):
        raise
    except Exception as error:
        raise RefimplError(f"{describe_error(example, error)} (--debug shows more)") from error


def require_device(device: str) -> None:
    """Refuse a device that is not here."""
    from refimpl.executions.built_in import on_device

    lacking = on_device(device).missing()
    if lacking:
        raise RefimplError(f"device {device!r} cannot be used here: {lacking}")


def require_plugins(
    context: click.Context, parameter: click.Parameter, plugins: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse a plugin that is not there at once, not after everything else was looked at."""
    if plugins:
        from refimpl.loading.catalogue import not_found

        for why in not_found(plugins):
            raise RefimplError(why)
    return plugins


def require_writable(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse what could not be written before the work, not after it; nothing is left there.

    Folders that are not there yet can be made where the nearest one that is can be written to.
    """
    if path is None or (os.path.exists(path) and not path.is_file() and not path.is_dir()):
        return path  # a pipe or a device is written to as it is
    begin = path.absolute() if os.path.isdir(path) else path.absolute().parent
    folder = next(each for each in (begin, *begin.parents) if os.path.exists(each))
    try:
        tempfile.NamedTemporaryFile(dir=folder, prefix=path.name, suffix=".part").close()
    except OSError as error:
        raise RefimplError(
            f"cannot write {path}: no file can be made in {folder} ({error.strerror}); "
            f"give {parameter.opts[0]} another place"
        ) from error
    return path


def require_distinct_files(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that would overwrite another one, or what is read."""
    taken = {path.absolute(): f"{path} is read" for path in inputs}
    for option, path in outputs.items():
        if path is None or (path.exists() and not path.is_file()):
            continue  # several things may go to a pipe or a device
        if path.absolute() in taken:
            raise RefimplError(f"{option} {path}: {taken[path.absolute()]}; give another file")
        taken[path.absolute()] = f"{option} goes there"


def require_results_or_nothing(path: Path | None) -> None:
    """Refuse to write results over a file that has something else in it."""
    if path is not None and path.is_file() and path.stat().st_size:
        with path.open("rb") as stream:
            if not stream.read(20).startswith(b'{"$report_type"'):
                raise RefimplError(
                    f"--results {path}: it is there and is no results file; give another file"
                )


def make_folder(path: Path | None) -> None:
    """Make the folder that this file goes to."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
