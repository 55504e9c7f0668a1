"""What the documents state, where it is asserted, and what became of it on this machine."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refimpl.cli.commands.options import debug_option, output_option, plugin_option
from refimpl.cli.messages import complain, say

if TYPE_CHECKING:
    from refimpl.checking.claims import Judged


@click.command()
@click.argument("names", nargs=-1, metavar="[DOCUMENT|EXAMPLE]...")
@click.option("--results", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              metavar="FILE", help="Take the verdicts from this run of refimpl check.")  # fmt: skip
@output_option("--pages", folder=True, help="Write a page for each document into this folder.")
@click.option("--summary", is_flag=True, help="Only the counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@plugin_option
@debug_option
def claims(
    names: tuple[str, ...],
    results: Path | None,
    pages: Path | None,
    summary: bool,
    as_json: bool,
    plugins: tuple[str, ...],
) -> int:
    """Show what the documents state, and whether it holds here.

    Takes the names of documents, or of examples (default: all). Without --results, the checks that
    need no training are run now, and the figures of a run are shown as not run. Exits with 1 if a
    statement fails, or if a ledger points at no assertion or misses one.
    """
    from refimpl.authoring import claims_page
    from refimpl.checking import claims_run
    from refimpl.loading import registry

    checks = import_module("refimpl.conformance.checks").ALL
    ledgers = claims_run.chosen(registry.load(plugins), names)
    wrong = claims_run.faults(ledgers, checks)
    if pages is not None:
        for path in claims_page.write(claims_run.stated(ledgers), pages):
            say(f"wrote {path}")
        return _complain(wrong)
    lines = claims_run.judged(ledgers, checks, results)
    if as_json:
        click.echo(json.dumps([line.as_dict() for line in lines], indent=2, default=str))
    else:
        _print(lines, summary)
    return max(_complain(wrong), int(any(line.verdict == "FAILS" for line in lines)))


def _complain(wrong: list[str]) -> int:
    for fault in wrong:
        complain(fault)
    return 1 if wrong else 0


def _print(lines: list[Judged], summary: bool) -> None:
    from refimpl.checking.claims import SIGNS, counts
    from refimpl.cli.rendering import print_claims

    if not summary:
        print_claims(lines)
    found = counts(lines)
    click.echo(
        f"{found['statements']} statements: {found['asserted']} asserted of {found['checkable']} "
        "that can be checked"
    )
    click.echo(", ".join(f"{found[verdict]} {sign} {verdict}" for verdict, sign in SIGNS.items()))
