"""The command line: all commands, and how errors are reported."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from refimpl._version import __version__
from refimpl.cli.commands import (
    authors,
    baselines,
    bisecting,
    claims,
    data,
    inspect,
    recording,
    reproducing,
    results,
    suite,
    training,
)
from refimpl.cli.commands.group import Group
from refimpl.cli.messages import complain
from refimpl.errors import RefimplError
from refimpl.processes import end_with_named_parent

NO_ARGUMENTS: type[Exception] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What newer versions of click raise with the help as its text; older ones print it themselves."""

COMMANDS = (
    inspect.list_command,
    inspect.info,
    inspect.env,
    inspect.errata,
    claims.claims,
    inspect.kernels,
    training.run,
    training.compare,
    reproducing.reproduce,
    suite.check,
    bisecting.bisect,
    suite.mutants,
    suite.golden,
    suite.manifest,
    recording.record,
    baselines.calibrate,
    baselines.audit,
    results.report,
    results.diff,
    results.badge,
    results.figures,
    data.data,
    authors.new,
    authors.lint,
    authors.export,
    authors.docs,
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. An error is one line on standard error and a non-zero exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _take_any_text()
    _refuse_silent_ends()
    end_with_named_parent()
    try:
        status = cli.main(given, prog_name="refimpl", standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, NO_ARGUMENTS):
            click.echo(error.format_message(), err=True)
        else:
            complain(error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        sys.exit(130)
    except RefimplError as error:
        if "--debug" in given:
            raise
        complain(str(error))
        sys.exit(1)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # click's answer to a reader that left
            sys.stderr.close()
            sys.exit(1)
        complain(f"a plugin ended the command, with status {error.code}")
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if "--debug" in given:
            raise
        where = os.fsdecode(error.filename) if error.filename else "the output cannot be written"
        complain(f"{where}: {error.strerror or error} (--debug shows more)")
        sys.exit(1)
    except Exception as error:
        if "--debug" in given:
            raise
        complain(f"{type(error).__name__}: {error} (--debug shows where)")
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _take_any_text() -> None:
    """Write what the encoding of the output lacks as an escape, instead of failing halfway."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _refuse_silent_ends() -> None:
    """Let no plugin end this process as if the command had succeeded."""
    end, own = os._exit, os.getpid()

    def end_aloud(status: int) -> NoReturn:
        if os.getpid() == own and status == 0:
            complain("a plugin ended the process before the command was done")
            sys.stdout.flush()
            status = 1
        end(status)

    if getattr(end, "__module__", None) != __name__:
        os._exit = end_aloud


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="refimpl")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Does PyTorch still do what its documents say?"""


for command in COMMANDS:
    cli.add_command(command)
