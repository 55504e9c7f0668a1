"""Find the version of torch that changed an answer."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refimpl.cli.commands.options import debug_option, plugin_option
from refimpl.cli.messages import say
from refimpl.errors import RefimplError, one_line
from refimpl.processes import PARENT

if TYPE_CHECKING:
    from refimpl.checking.bisection import Answer


@click.command()
@click.argument("example")
@click.option("--check", "check_name", required=True, metavar="NAME", help="The check to run.")
@click.option("--from", "oldest", required=True, metavar="VERSION", help="The older version.")
@click.option("--to", "newest", required=True, metavar="VERSION", help="The newer version.")
@click.option("--variant", metavar="NAME", help="Of this variant only.")
@click.option("--figure", metavar="NAME", help="Look at this figure of the check only, such as "
              "the name of an erratum.")  # fmt: skip
@click.option("--versions", metavar="A,B,…", help="The versions to choose from (default: the "
              "releases between the two that the index has).")  # fmt: skip
@click.option("--package", default="torch", show_default=True, metavar="NAME",
              help="The package to try versions of; the rest stays as here.")  # fmt: skip
@click.option("--index-url", metavar="URL", help="Install from this index, such as one of "
              "nightlies.")  # fmt: skip
@click.option("--find-links", metavar="PATH", help="Install from the wheels in this folder too.")
@click.option("--with", "besides", multiple=True, metavar="REQUIREMENT",
              help="Install this too, such as 'numpy<2' (repeatable).")  # fmt: skip
@plugin_option
@debug_option
def bisect(
    example: str,
    check_name: str,
    oldest: str,
    newest: str,
    variant: str | None,
    figure: str | None,
    versions: str | None,
    package: str,
    index_url: str | None,
    find_links: str | None,
    besides: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Find the version that changed the answer of a check.

    Each version gets an environment in the cache. A bisection that was killed goes on where it
    ended when the same command is given again.
    """
    from refimpl.checking.bisection import Memory, between
    from refimpl.checking.bisection import bisect as halve
    from refimpl.checking.version_environments import Environments, InstallError

    options = [part for option, value in (("--index-url", index_url), ("--find-links", find_links))
               if value for part in (option, value)]  # fmt: skip
    environments = Environments(package, tuple(options), besides)
    given = versions.replace(",", " ").split() if versions else environments.versions()
    chosen = between(given, oldest, newest)
    what = ["refimpl", "check", example, "--check", check_name]
    what += ["--variant", variant] if variant else []
    what += [part for plugin in plugins for part in ("--plugin", plugin)]
    key = hashlib.sha256(repr((what, figure)).encode()).hexdigest()[:12]
    memory = Memory(environments.root / f"answers-{key}.jsonl")

    def ask(version: str) -> Answer:
        from refimpl.checking.bisection import Answer

        click.echo(f"{package} {version}: installing and checking …", err=True)
        try:
            python = environments.python(version)
        except InstallError as error:
            return Answer(trouble=f"it cannot be installed ({error})")
        return _ask(python, what, figure)

    def told(version: str, answer: Answer) -> None:
        found = ", ".join(f"{name}: {value}" for name, value in answer.found.items())
        says = answer.trouble or f"{answer.outcome}{f' ({found})' if found else ''}"
        say(f"{package} {version}: {says}")

    change = halve(chosen, ask, memory, told)
    for line in change.lines(f"{example} · {check_name}"):
        say(line)


def _ask(python: Path, what: list[str], figure: str | None) -> Answer:
    """Run the check in an environment; what cannot be run gives no answer."""
    from refimpl.checking.bisection import Answer, answer_of
    from refimpl.checking.results import read

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.jsonl"
        command = [str(python), "-m", *what, "-n", "0", "--results", str(file)]
        ran = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            env={**os.environ, PARENT: str(os.getpid())},
        )  # fmt: skip
        try:
            results = read(file).checks
        except RefimplError:
            words = (ran.stderr or ran.stdout).strip().splitlines() or ["no output"]
            return Answer(trouble=f"the check cannot be run ({one_line(words[-1])})")
    wanted = what[what.index("--check") + 1]
    own = [answer_of(result, figure) for result in results if result.check == wanted]
    answered = [answer for answer in own if not answer.trouble]
    if not answered:
        return own[0] if own else Answer(trouble="the check was not run")
    failed = any(answer.outcome == "failed" for answer in answered)
    found = {name: value for answer in answered for name, value in answer.found.items()}
    return Answer("failed" if failed else answered[0].outcome, found)
