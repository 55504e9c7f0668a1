"""Virtual environments in which one package has another version and the rest is as here.

They are made with uv if it is there, else with venv and pip, and kept in the cache. An environment
counts only once it is complete, so that one whose making was killed is made again.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from refimpl.data import cache_root
from refimpl.errors import RefimplError, one_line

COMPLETE = "complete"
"""The file that says that everything is installed."""

LISTED = re.compile(r"Available versions: (.*)")


class InstallError(RefimplError):
    """A version cannot be installed, or the index cannot be asked which there are."""


@dataclass(frozen=True)
class Environments:
    """Where environments are kept, of which package, and with which options of the installer.

    ``options`` are those of pip that uv has too, such as ``--index-url URL``; ``besides`` are
    further requirements, such as ``numpy<2``.
    """

    package: str = "torch"
    options: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def root(self) -> Path:
        """The folder of these environments, which differs by interpreter, index and package."""
        key = repr((sys.version, sys.prefix, self.options, self.besides))
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        return (self.folder or cache_root() / "environments") / f"{self.package}-{digest}"

    def python(self, version: str) -> Path:
        """The interpreter of the environment with this version, which is made if need be.

        Raises :class:`InstallError` with the installer's last words if that fails.
        """
        home = self.root / version
        python = _python_in(home)
        if (home / COMPLETE).is_file():
            return python
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        wanted = [f"{self.package}=={version}", *self.besides]
        uv = shutil.which("uv")
        if uv:
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(home)])
            _see_the_rest(python)
            install = [uv, "pip", "install", "--quiet", "--python", str(python)]
        else:
            _run([sys.executable, "-m", "venv", str(home)])
            _see_the_rest(python)
            install = [str(python), "-m", "pip", "install", "--quiet", "--no-input",
                       "--disable-pip-version-check"]  # fmt: skip
        _run([*install, *self.options, *wanted])
        (home / COMPLETE).touch()
        return python

    def versions(self) -> list[str]:
        """The versions that the index has for this interpreter, as pip lists them."""
        asked = [sys.executable, "-m", "pip", "index", "versions", self.package,
                 "--disable-pip-version-check", *self.options]  # fmt: skip
        found = LISTED.search(_run(asked))
        if found is None:
            raise InstallError(
                f"pip does not say which versions of {self.package} there are; give --versions"
            )
        return [version.strip() for version in found[1].split(",")]


def _python_in(home: Path) -> Path:
    windows = sys.platform == "win32"
    return home / ("Scripts/python.exe" if windows else "bin/python")


def _see_the_rest(python: Path) -> None:
    """Let an environment see the packages of this one, behind its own."""
    ours = sysconfig.get_paths()["purelib"]
    asked = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    theirs = Path(_run([str(python), "-c", asked]).strip())
    line = f"import site; site.addsitedir({ours!r})\n"
    (theirs / "refimpl_rest.pth").write_text(line, encoding="utf-8")


def _run(command: Sequence[str]) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise InstallError(f"{command[0]} cannot be run: {error}") from error
    if ran.returncode:
        words = [line for line in (ran.stderr + ran.stdout).splitlines() if line.strip()]
        errors = [line for line in words if "error" in line.lower()] or words or ["no output"]
        raise InstallError(one_line(errors[-1]))
    return ran.stdout
