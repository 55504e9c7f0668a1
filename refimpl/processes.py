"""Child processes: they end with their parent, and import nothing from the folder they stand in."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from refimpl.errors import RefimplError

SAFE_PATH = "PYTHONSAFEPATH"
"""The variable that keeps the current folder off the path of Python 3.11 and later."""

PARENT = "REFIMPL_PARENT"
"""The variable with the id of the process that started this one, and with which it is to end."""

ENDING = [getattr(signal, s) for s in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, s)]
"""What others end a process with, besides an interrupt and a kill."""

_OFTEN = 0.25
_PR_SET_PDEATHSIG = 1
_watched = False


def end_with_parent(at_once: bool = False, parent: int = 0) -> None:
    """End this process, whatever it does, as soon as its parent is gone.

    A thread looks every quarter of a second. ``at_once`` has Linux kill the process too, even
    inside a call that never returns; only for processes that their parent's main thread started.
    ``parent`` is the parent's id, for a process that may have lost it already.
    """
    global _watched
    if _watched:
        return
    _watched = True
    parent = parent or os.getppid()
    if at_once and sys.platform == "linux":
        import ctypes  # most commands do without it, and start sooner

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_watch, args=(parent,), daemon=True, name="end with parent").start()


def end_with_named_parent(at_once: bool = False) -> None:
    """The same if the environment names a parent, which is taken out of it."""
    parent = os.environ.pop(PARENT, "")
    if parent.isdigit():
        end_with_parent(at_once, int(parent))


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Inside the block, what ends this process interrupts it, as control-C does.

    So it can say what it keeps. Only a process whose main thread this is can handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_OFTEN)
    os._exit(1)


def safe_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a child that imports nothing from the current folder.

    Raises :class:`RefimplError` if Python is too old to be told, and a file there has the name of
    an installed module.
    """
    require_safe_folder()
    return {**environment, SAFE_PATH: "1"}


def require_safe_folder(version: tuple[int, ...] = sys.version_info[:2]) -> None:
    """Before Python 3.11, refuse a current folder whose files would be imported by children."""
    if version >= (3, 11):
        return
    from importlib.metadata import packages_distributions

    taken = set(sys.stdlib_module_names) | set(packages_distributions())
    for path in sorted(Path.cwd().iterdir()):
        name = path.stem if path.suffix == ".py" else path.name
        is_module = path.suffix == ".py" or (path / "__init__.py").is_file()
        if is_module and name in taken - {"refimpl"}:
            raise RefimplError(
                f"{path} would be imported instead of the module {name!r} that is installed; "
                "start refimpl in another folder, or use Python 3.11 or later"
            )
