"""The process in which ``refimpl check`` runs pytest; it ends with the command that started it."""

from __future__ import annotations

import os
import sys
import threading

from refimpl.errors import printable
from refimpl.processes import end_with_named_parent

MORE_PATH = "REFIMPL_CHECK_PATH"
"""What was on the path of the command, and is to be found by its child after all else."""


def main() -> None:
    """Run pytest with the arguments of this process."""
    end_with_named_parent(at_once=True)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    more = os.environ.pop(MORE_PATH, "").split(os.pathsep)
    sys.path += [folder for folder in more if folder and folder not in sys.path]

    import pytest

    from refimpl.cli.suite_screen import SuiteScreen

    screen = [] if "-v" in sys.argv else [SuiteScreen()]
    status = int(pytest.main(sys.argv[1:], plugins=screen))
    others = (t for t in threading.enumerate() if t is not threading.main_thread())
    left = [printable(thread.name) for thread in others if not thread.daemon]
    if left:
        print(f"threads were left behind, and are ended: {', '.join(left)}")
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
