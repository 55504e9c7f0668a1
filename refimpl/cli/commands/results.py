"""What results files show: one page, and the documents' figures."""

from __future__ import annotations

from pathlib import Path

import click

from refimpl.cli.commands.arguments import require_distinct_files
from refimpl.cli.commands.options import debug_option, output_option, plugin_option
from refimpl.cli.messages import say
from refimpl.errors import RefimplError, escaped, printable
from refimpl.writing import write_text

EXISTING = click.Path(exists=True, readable=True, path_type=Path)


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option("-o", "--output", default="report.html", show_default=True,
               help="File to write the page to; its folder must exist.")  # fmt: skip
@click.option("--against", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Show what changed since these earlier results (repeatable).")  # fmt: skip
@click.option("--history", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Show the verdicts of these earlier results, or of a folder of them, and the "
              "trend of each figure.")  # fmt: skip
@output_option("--markdown", help="Also write a Markdown summary, for the page of a CI job.")
@click.option("--expect", multiple=True, metavar="NAME",
              help="Expect a file NAME.jsonl and show it as not run if it is missing; "
              "py3{10,11}-torch26 stands for two names (repeatable).")  # fmt: skip
@click.option("--exit-code", is_flag=True, help="Exit with 1 unless everything passed.")
@debug_option
def report(
    results: tuple[Path, ...],
    output: Path,
    against: tuple[Path, ...],
    history: tuple[Path, ...],
    markdown: Path | None,
    expect: tuple[str, ...],
    exit_code: bool,
) -> int:
    """Make one HTML page from results files, or folders of them.

    The page is self-contained: it loads nothing from elsewhere.
    """
    from refimpl.report.columns import names_meant
    from refimpl.report.command import write_report

    require_distinct_files({"-o": output, "--markdown": markdown}, (*results, *against, *history))
    made = write_report(results, output, against, markdown, names_meant(expect), history)
    click.echo(printable(f"{made.verdict.headline}: {made.verdict.sentence}"))
    say(f"wrote {output}" + (f" and {markdown}" if markdown else ""))
    return int(exit_code and made.verdict.state != "passed")


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option("-o", "--output", help="Write the table to this file instead of printing it; "
               "missing folders are created.")  # fmt: skip
@plugin_option
@debug_option
def figures(results: tuple[Path, ...], output: Path | None, plugins: tuple[str, ...]) -> None:
    """Show documented figures beside those measured on real data.

    The output is a Markdown table.
    """
    from refimpl.checking.results import read
    from refimpl.loading import registry
    from refimpl.report.figures import lines, markdown

    examples = {name: r.value for name, r in registry.load(plugins).examples.items()}
    table = markdown(list(lines([read(path) for path in results], examples)))
    if output is None:
        click.echo(escaped(table), nl=False)
    else:
        head = (
            "# The documents' figures, measured on real data\n\n"
            "Made by `refimpl figures RESULTS -o FILE` from the results files of "
            "`refimpl check --data real`; not written by hand.\n\n"
        )
        write_text(output, head + table)
        say(f"wrote {output}")


@click.command()
@click.argument("old", type=EXISTING)
@click.argument("new", type=EXISTING)
@debug_option
def diff(old: Path, new: Path) -> int:
    """What changed between two results files.

    Or between two folders of them.

    Exits with 1 if something no longer holds, fails, or is not checked any more.
    """
    from refimpl.cli.verdict_text import changes_text
    from refimpl.report.changes import BAD, since
    from refimpl.report.columns import columns

    found = since(columns([new]), columns([old]))
    if not found:
        raise RefimplError(f"{old} and {new} are of different devices or data: nothing to compare")
    click.echo(escaped(changes_text(found)), nl=False)
    return int(any(line.kind in BAD for own in found for line in own.lines))


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option("-o", "--output", default="badge.svg", show_default=True,
               help="Write the badge to this file.")  # fmt: skip
@debug_option
def badge(results: tuple[Path, ...], output: Path) -> None:
    """Draw the verdict as a badge.

    It is green only if every environment passed.
    """
    from refimpl.report.badge import badge as drawn
    from refimpl.report.columns import columns

    found = columns(results)
    if not found:
        raise RefimplError(f"there is no results file in {', '.join(map(str, results))}")
    write_text(output, drawn(found))
    say(f"wrote {output}")
