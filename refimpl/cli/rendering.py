"""What people see on the terminal: tables and failures, printed with rich."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from refimpl.errors import escaped

if TYPE_CHECKING:
    from refimpl.authoring.linting import Linted
    from refimpl.baselines.auditing import Audit, Repeated
    from refimpl.checking.claims import Judged
    from refimpl.checking.errata import Tried
    from refimpl.checking.manifest import Manifest
    from refimpl.contract import Example
    from refimpl.loading.listing import Listed
    from refimpl.store.sources import Entry, FileStatus


UNWRAPPED = 10_000
"""The width of output that does not go to a terminal, so that no line is wrapped."""


# --- lists and descriptions ----------------------------------------------------------------------


class SafeConsole(Console):
    """A console that prints as an escape what a terminal would obey in names from outside."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """The segments of what is printed, their text made harmless."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else escaped(text), style, control)


def stdout() -> Console:
    """A console on standard output that takes text as it is, without rich's markup.

    Lines are wrapped only on a terminal.
    """
    console = SafeConsole(highlight=False, markup=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = UNWRAPPED
    return console


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, no_wrap=number == 0, overflow="fold")
    return table


def print_list(examples: Sequence[Listed]) -> None:
    """Print one line for each example, with its origin if that is not this distribution."""
    table = _table("example", "document", "variants", "title")
    for line in examples:
        title = line.title
        if not line.origin.startswith("in-tree"):
            title += f" ({line.origin})"
        document = f"{line.document} {line.section}"
        table.add_row(line.name, document, str(len(line.variants)), Text(title))
    stdout().print(table)


def print_info(description: Mapping[str, Any]) -> None:
    """Print an example: its document, each variant, and the tables of its live models."""
    console = stdout()
    console.print(Text(f"{description['name']}: {description['title']}", style="bold"))
    console.print(f"{description['document']}, {description['section']} · {description['origin']}")
    shown: list[Any] = []
    for variant in description["variants"]:
        console.print()
        console.print(Text(variant["name"], style="bold"), variant["summary"])
        if variant["skipped"]:
            console.print(f"  not measured: {variant['skipped']}")
            continue
        count, trainable = variant["parameters"], variant["trainable"]
        console.print(f"  {count:,} parameters, {trainable:,} trainable")
        _print_figures(console, variant["documented"].get("figures", ()))
        if variant["layers"] and variant["layers"] not in shown:
            shown.append(variant["layers"])
            _print_layers(console, variant)
    _print_names(console, "exact values", [v["name"] for v in description["values"]])
    _print_names(console, "documented failures", description["failures"])
    _print_names(console, "errata", [e["name"] for e in description["errata"]])


def _print_figures(console: Console, figures: Sequence[Mapping[str, Any]]) -> None:
    stated = [f for f in figures if f["documented"] is not None]
    if stated:
        text = ", ".join(f"{f['metric']} {f['documented']}" for f in stated)
        console.print(f"  documented: {text}")


def _print_layers(console: Console, variant: Mapping[str, Any]) -> None:
    table = _table("  layer", "kind", "output", "parameters")
    table.columns[-1].justify = "right"
    for row in variant["layers"]:
        shape = ", ".join(map(str, row["output"]))
        table.add_row(f"  {row['name']}", row["kind"], f"({shape})", f"{row['parameters']:,}")
    console.print(table)
    sizes = ", ".join(
        f"{name.replace('_', '/')} {value:.6f}" for name, value in variant["sizes"].items()
    )
    console.print(f"  MB: {sizes}")


def _print_names(console: Console, head: str, names: Sequence[str]) -> None:
    if names:
        console.print()
        console.print(Text(f"{len(names)} {head}", style="bold"))
        for name in names:
            console.print(f"  {name}")


def print_environment(facts: Mapping[str, Any], extras: Mapping[str, str]) -> None:
    """Print versions, devices and extras, one line each."""
    table = _table("", "")
    table.show_header = False
    table.add_row("refimpl", facts["refimpl"])
    table.add_row("python", f"{facts['python']} ({facts['implementation']}, {facts['platform']})")
    for name, found in facts["packages"].items():
        if found and not any(name == extra.split(" ")[0] for extra in extras):
            table.add_row(name, found)
    table.add_row("devices", ", ".join(facts["devices"]))
    table.add_row("threads", str(facts["threads"]))
    for name, state in extras.items():
        table.add_row(name, Text(state))
    stdout().print(table)


def print_errata(found: Sequence[Tried]) -> None:
    """Print each erratum: what the document says, what holds today, since when, and the finding."""
    console = stdout()
    for line in found:
        console.print(Text(f"{line.example}: {line.name}", style="bold"))
        console.print(Text(f"  the document: {line.says}"))
        console.print(Text(f"  today: {line.today} (since {line.since})"))
        if line.holds is None:
            verdict = f"not tried: {line.skipped}"
        else:
            verdict = f"the document is {'right' if line.holds else 'wrong'} on {line.found}"
            verdict += "" if line.as_expected else ", which is NOT as expected"
        console.print(Text(f"  here: {verdict}"))


def print_claims(lines: Sequence[Judged]) -> None:
    """Print each statement with its verdict, section by section, and where it is asserted."""
    console = stdout()
    for (document, section), group in groupby(
        sorted(lines, key=lambda line: (line.document, line.claim.section)),
        key=lambda line: (line.document, line.claim.section),
    ):
        console.print(Text(f"{document}, {section}", style="bold"))
        for line in group:
            figure = "" if line.claim.figure is None else f": {line.claim.figure}"
            console.print(Text(f"  {line.sign} {line.claim.says}{figure}"))
            if line.because:
                console.print(Text(f"      {line.verdict}: {line.because}"))
            if line.at:
                console.print(Text(f"      {line.at}", style="dim"))


def print_manifest(committed: Manifest, today: Manifest) -> int:
    """Print each check that is missing or new; return 1 if there is any, else 0."""
    before, now = (
        {
            (check, tier, of)
            for of, own in m.items()
            for check, tiers in own.items()
            for tier in tiers
        }
        for m in (committed, today)
    )
    console = stdout()
    for check, tier, subject in sorted(before - now):
        console.print(f"missing: {check} of {subject} on {tier} data", soft_wrap=True)
    for check, tier, subject in sorted(now - before):
        console.print(f"new: {check} of {subject} on {tier} data", soft_wrap=True)
    console.print(f"{len(now)} checks of {len(today)} variants and examples")
    return int(before != now)


def print_audit(audit: Audit) -> None:
    """Print every figure with its band and its two error rates, then the error rate of a sweep."""
    from refimpl.baselines.audit_page import remarks

    console = stdout()
    for _, group in groupby(audit.figures, lambda line: (line.example, line.variant, line.tier)):
        own = list(group)
        band = own[0].band
        console.print(
            f"{own[0].example} · {own[0].variant} · {own[0].tier}: {band.runs} runs; an unchanged "
            f"program fails a figure with probability {band.alpha:.1g}",
            soft_wrap=True,
        )
        table = _table("  figure", "band", "detects", "outside at first", "declared")
        for line in own:
            table.add_row(
                f"  {line.metric}",
                f"{line.band.low:.5g} … {line.band.high:.5g}",
                f"{line.band.detects:.2g}",
                f"{line.looked_again:.1%}",
                f"{line.expected:.1%}{'' if line.holds else ' FAILS'}",
            )
        console.print(table)
    for stated in audit.ranges:
        limits = stated.band
        if limits.below or limits.above or not stated.holds:
            verdict = f"{limits.fresh} seeds in a row fail" if stated.holds else "FAILS"
            console.print(
                f"{stated.example} · {stated.variant} · {stated.tier} · {stated.metric}: of "
                f"{limits.runs} runs {limits.below} end below {limits.low:.5g} … "
                f"{limits.high:.5g} and {limits.above} above; {verdict}",
                soft_wrap=True,
            )
    for placed in audit.documented:
        where = "inside" if placed.inside else f"outside: {placed.reason or 'NO REASON GIVEN'}"
        console.print(
            f"{placed.example} · {placed.variant} · {placed.metric}: the document's "
            f"{placed.documented:g} is above {placed.quantile:.0%} of real runs, {where}",
            soft_wrap=True,
        )
    if audit.fresh:
        print_fresh(audit.fresh)
        for tier in audit.tiers:
            if count := audit.whole_runs(tier):
                console.print(f"{tier}: fresh runs tested every limit at least {count} times")
    for remark in remarks(audit):
        console.print(remark, soft_wrap=True)
    for failure in audit.failures():
        console.print(f"FAILED {failure}", soft_wrap=True)
    for tier in audit.tiers:
        console.print(
            f"{tier}: an unchanged program fails any of {len(audit.limits(tier))} limits with "
            f"probability {audit.sweep(tier):.2g} (allowed: {audit.allowed:g})",
            soft_wrap=True,
        )


def print_fresh(fresh: Sequence[Repeated]) -> None:
    """Print how often the rule was applied to fresh runs, and what it decided.

    "chance" is the probability that this many runs, or more, lie outside the limit.
    """
    table = _table("figure", "limit", "runs", "outside", "chance", "alarms")
    for own in fresh:
        table.add_row(
            f"{own.example} · {own.variant} · {own.tier} · {own.metric}",
            own.limit,
            f"{own.runs}",
            f"{own.outside}",
            f"{own.chance:.0%}",
            f"{own.alarms} of {own.decisions}{'' if own.holds else ' FAILS'}",
        )
    stdout().print(table)
    decisions, alarms = (sum(getattr(f, part) for f in fresh) for part in ("decisions", "alarms"))
    stdout().print(f"fresh runs: {alarms} false alarms in {decisions} decisions")


def print_data(entries: Mapping[str, Entry], statuses: Sequence[FileStatus]) -> None:
    """Print each data set, what it is, and the state of its files; then the data folder."""
    from refimpl.data import DATA_VARIABLE, data_root

    table = _table("data set", "state", "what")
    for name, entry in entries.items():
        states = sorted({status.state for status in statuses if status.entry == name})
        table.add_row(name, ", ".join(states), Text(entry.about))
    stdout().print(table)
    named = bool(os.environ.get(DATA_VARIABLE))
    why = DATA_VARIABLE if named else f"the user's cache, since {DATA_VARIABLE} is not set"
    stdout().print(f"data folder: {data_root()} ({why})", soft_wrap=True)


def linted_text(example: Example, linted: Linted, every_fact: bool) -> str:
    """The advice on an example, and the source of its facts, unindented so that it can be pasted.

    Facts are shown for variants that have an error, or with ``every_fact`` for all; variants with
    the same facts share one source.
    """
    from refimpl.authoring.sourcecode import source_of

    lines = [
        f"{advice.level}: {f'{advice.variant}: ' if advice.variant else ''}{advice.text}"
        for advice in linted.advice
    ]
    wrong = {advice.variant for advice in linted.advice if advice.level == "error"}
    shown: dict[str, list[str]] = defaultdict(list)
    for variant, facts in linted.facts.items():
        if every_fact or (variant in wrong and facts != example.variant(variant).facts):
            shown[source_of(facts)].append(variant)
    for source, variants in shown.items():
        lines += ["", f"# {', '.join(variants)}", source]
    if linted.sound:
        lines.append(f"{example.name}: the facts agree with the live models")
    if linted.sound and linted.eager:
        because: dict[str, list[str]] = defaultdict(list)
        for variant, why in linted.eager.items():
            because[why].append(variant)
        said = "; ".join(f"{', '.join(variants)} ({why})" for why, variants in because.items())
        lines.append(f"not replayed as one graph a step on a GPU: {said}")
    return "\n".join(lines)
