"""What ``refimpl check`` and ``refimpl diff`` end with: counts, findings, changes, the verdict."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from refimpl.cli.rendering import stdout
from refimpl.report.changes import ON_PURPOSE, TITLES, Since
from refimpl.report.findings import Finding, findings, listed, next_steps
from refimpl.report.rerun import RunOptions, rerun_command
from refimpl.report.verdict import about, number_of, sentence

if TYPE_CHECKING:
    from refimpl.checking.checks import Result

FINDINGS_SHOWN = 40
HEADS_SHOWN = 5
BRIEF = 400
LINES_SHOWN = 10
CAUSES_SHOWN = 3


def conformance_table(
    results: Sequence[Result],
    width: int,
    options: RunOptions,
    header: Mapping[str, Any],
    complete: bool = True,
    changes: Sequence[Since] = (),
    compared: bool = False,
) -> str:
    """The counts of each example's checks, what was found, what changed, and the verdict last."""
    out = io.StringIO()
    console = Console(file=out, width=max(width, 60), force_terminal=False, highlight=False)
    console.print(_counts(results))
    _print_reasons(console, "skipped", [r for r in results if r.outcome == "skipped"])
    _print_reasons(console, "failed as expected", [r for r in results if r.outcome == "xfailed"])
    _print_held_later(console, [r for r in results if r.held_later])
    found = findings(results)
    _print_findings(console, found, options)
    for since in changes:
        _print_changes(console, since)
    console.print()
    console.print(Text(sentence(header, results, complete)))
    _print_heads(console, found)
    for since in changes:
        console.print(Text(since.sentence))
    if compared and not changes:
        console.print("The earlier results are of another device or tier: nothing was compared.")
    return out.getvalue()


def _counts(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("example", no_wrap=True)
    counted = {"passed": "passed", "failed": "failed", "skipped": "skipped", "xfailed": "expected"}
    if all(result.outcome != "xfailed" for result in results):
        del counted["xfailed"]
    for name in ("checks", *counted.values(), "measured", "seconds"):
        table.add_column(name, justify="right")
    by_example: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_example[result.example].append(result)
    for example, own in sorted(by_example.items()):
        table.add_row(example, *_row(own, counted))
    table.add_section()
    table.add_row("all", *_row(results, counted), style="bold")
    return table


def _row(results: Sequence[Result], counted: Iterable[str]) -> list[str]:
    outcomes: list[str] = [result.outcome for result in results]
    measured = sum(len(r.measurements) for r in results)
    seconds = sum(r.seconds for r in results)
    return [
        str(len(results)),
        *(str(outcomes.count(outcome)) for outcome in counted),
        str(measured),
        f"{seconds:.1f}",
    ]


def _print_findings(console: Console, found: Sequence[Finding], options: RunOptions) -> None:
    """Each finding with its figure, its checks, and what to do next."""
    for number, finding in enumerate(found[:FINDINGS_SHOWN], start=1):
        console.print()
        console.print(Text(f"{number}. {about(finding)}"), soft_wrap=True)
        for line in (
            finding.figure[:BRIEF],
            f"checks: {finding.by_check}",
            f"rerun: {rerun_command(finding.results, options)}",
            *(f"{head}: {text}" for head, text in next_steps(finding, options.plugins)),
        ):
            if line:
                console.print(Text(f"   {line}"), soft_wrap=True)
    if len(found) > FINDINGS_SHOWN:
        console.print(f"… and {number_of(len(found) - FINDINGS_SHOWN, 'more finding')}")


def _print_heads(console: Console, found: Sequence[Finding]) -> None:
    """The findings in a line each, which the eye finds at the end of a long output."""
    for number, finding in enumerate(found[:HEADS_SHOWN], start=1):
        console.print(Text(f"{number}. {about(finding)}"))
    if len(found) > HEADS_SHOWN:
        console.print(f"… and {len(found) - HEADS_SHOWN} more, above")


def changes_text(changes: Sequence[Since]) -> str:
    """What changed in each environment, and each in a sentence, as text for a terminal."""
    out = io.StringIO()
    console = Console(file=out, width=stdout().width, force_terminal=False, highlight=False)
    for since in changes:
        _print_changes(console, since)
        console.print()
        console.print(Text(since.sentence))
    return out.getvalue().lstrip("\n")


def _print_changes(console: Console, since: Since) -> None:
    console.print()
    causes = f" ({', '.join(since.causes[:CAUSES_SHOWN])})" if since.causes else ""
    console.print(Text(f"Since {since.earlier}{causes}:"), soft_wrap=True)
    for kind, lines in since.by_kind.items():
        shown = lines[:LINES_SHOWN]
        if kind in ON_PURPOSE:
            told = listed([line.says for line in lines])
            console.print(Text(f"  {TITLES[kind]}: {told}"), soft_wrap=True)
            continue
        console.print(Text(f"  {TITLES[kind]}"))
        for line in shown:
            figure = f" ({line.figure})" if line.figure else ""
            console.print(Text(f"    {line.says}{figure}"), soft_wrap=True)
        if len(lines) > len(shown):
            console.print(f"    … and {len(lines) - len(shown)} more")
    if not since.lines:
        console.print("  every check has the same answer")


def _print_reasons(console: Console, what: str, results: Sequence[Result]) -> None:
    reasons: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        reasons[result.reason].append(result)
    for reason, own in sorted(reasons.items()):
        console.print(Text(f"{what}: {_checks_of_examples(own)}: {reason}"))


def _print_held_later(console: Console, results: Sequence[Result]) -> None:
    if results:
        checks = _checks_of_examples(results)
        console.print(Text(f"passed: {checks}: on a retry with another seed"))


def _checks_of_examples(results: Sequence[Result]) -> str:
    count = "1 check" if len(results) == 1 else f"{len(results)} checks"
    return f"{count} of {', '.join(sorted({r.example for r in results}))}"
