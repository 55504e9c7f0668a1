"""What ``refimpl mutants`` does: hunt, tell as it goes, and judge in the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click

from refimpl import registry
from refimpl.conformance.checks import ALL as CHECKS
from refimpl.conformance.mutants import ALL
from refimpl.conformance.mutants.equivalents import Equivalent, gathered
from refimpl.conformance.mutants.hunting import Fate, Hunted, UnsoundError, fates, untrue
from refimpl.conformance.mutants.planting import Mutant
from refimpl.conformance.mutants.table import markdown
from refimpl.data import Tier
from refimpl.errors import RefimplError
from refimpl.expectations import gather
from refimpl.names import unknown

WIDTHS = (12, 16, 36)


def catalogue() -> str:
    """Every mutant and what it imitates, a line each."""
    return "\n".join(f"{each.name:<{WIDTHS[2]}}{each.imitates}" for each in ALL)


def hunt(
    names: Sequence[str],
    plugins: Sequence[str],
    tier: Tier,
    *,
    mutants: Sequence[str] = (),
    variants: Sequence[str] = (),
    every_variant: bool = False,
    without: Sequence[str] = (),
    equivalents: Sequence[Path] = (),
    results: Path | None = None,
    table: Path | None = None,
) -> int:
    """Hunt the mutants of these examples, or of all; 1 where one survives or something is wrong.

    ``results`` keeps what was found as it is found: an example that it has whole is not hunted
    again. ``table`` is written from all that it has, or from this run.
    """
    loaded = registry.load(plugins, only=names or None)
    examples = [loaded.example(name) for name in names or sorted(loaded.examples)]
    chosen = _chosen(mutants)
    _require_checks(without)
    listed = gathered(equivalents, {each.name for each in ALL})
    settings = {
        "tier": tier, "every_variant": every_variant, "without": sorted(without),
        "mutants": [each.name for each in chosen], "variants": sorted(variants),
    }  # fmt: skip
    kept = _kept(results, settings)
    found: list[Hunted] = []
    wrong: list[str] = []
    for example in examples:
        if example.name in kept:
            own: list[Hunted] = kept[example.name]
            click.echo(f"{example.name}: as kept in {results}")
        else:
            click.echo(f"{example.name}: {len(example.variants)} variants")
            own = []
            try:
                for each in fates(
                    example, chosen, tier, every_variant=every_variant, without=without,
                    expected=gather(loaded).entries, equivalents=listed, variants=variants,
                ):  # fmt: skip
                    own.append(each)
                    if each.fate != "ineffective":
                        click.echo(line(each))
            except UnsoundError as error:
                wrong.append(str(error))
                continue
            if results is not None:
                _keep(results, example.name, own)
        found += own
        click.echo(f"{example.name}: {counted(own)}")
    wrong += _judged(found, listed, chosen, names, {e.name for e in examples}, variants)
    if table is not None:
        every = [h for own in {**kept, **_by_example(found)}.values() for h in own]
        table.write_text(markdown(every, chosen), encoding="utf-8")
        click.echo(f"wrote {table}")
    click.echo(f"all: {counted(found)}")
    for text in wrong:
        click.echo(f"FAILED {text}")
    return 1 if wrong else 0


def line(hunted: Hunted) -> str:
    """One mutant's fate: what became of it, where, by what and how fast."""
    fate, variant, mutant = (
        f"{text:<{width}}"
        for text, width in zip((hunted.fate, hunted.variant, hunted.mutant), WIDTHS, strict=True)
    )
    smallest = f"  caught from {hunted.caught_from}" if hunted.smallest is not None else ""
    return f"{fate} {variant} {mutant} {hunted.seconds:7.2f} s  {hunted.how}{smallest}"


def counted(found: Sequence[Hunted]) -> str:
    """How many of each fate."""
    counts = Counter(hunted.fate for hunted in found)
    return ", ".join(f"{counts[fate]} {fate}" for fate in get_args(Fate))


def _judged(
    found: Sequence[Hunted],
    listed: Sequence[Equivalent],
    chosen: Sequence[Mutant],
    names: Sequence[str],
    examples: Collection[str],
    variants: Sequence[str],
) -> Iterator[str]:
    for hunted in found:
        if hunted.fate == "SURVIVED":
            yield f"{hunted.example} {hunted.variant}: {hunted.mutant} survives every check"
    if not variants:
        yield from untrue(listed, found, examples, {each.name for each in chosen})
    if not names and not variants:
        reached = {hunted.mutant for hunted in found if hunted.fate != "ineffective"}
        for each in chosen:
            if each.name not in reached:
                yield f"{each.name} takes effect in no example, so it proves nothing"
    if not found:
        yield "no mutant applies to what was asked for: nothing was proven"


def _chosen(names: Sequence[str]) -> list[Mutant]:
    by_name = {each.name: each for each in ALL}
    for name in names:
        if name not in by_name:
            raise unknown(f"there is no mutant {name!r}", name, by_name)
    return [each for each in ALL if not names or each.name in names]


def _require_checks(names: Sequence[str]) -> None:
    known = {check.name for check in CHECKS}
    for name in names:
        if name not in known:
            raise unknown(f"there is no check {name!r}", name, known)


# --- what was found before -----------------------------------------------------------------------


def _by_example(found: Sequence[Hunted]) -> dict[str, list[Hunted]]:
    made: dict[str, list[Hunted]] = {}
    for hunted in found:
        made.setdefault(hunted.example, []).append(hunted)
    return made


def _kept(results: Path | None, settings: dict[str, Any]) -> dict[str, list[Hunted]]:
    """What a file of results has, by example; a new one gets its first line."""
    if results is None:
        return {}
    if not results.exists():
        results.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        return {}
    try:
        first, *lines = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
        kept = {each["example"]: [Hunted(**h) for h in each["hunted"]] for each in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise RefimplError(f"{results} holds no results of mutants: {error}") from error
    if first != settings:
        raise RefimplError(f"{results} was made with other mutants or options; begin another file")
    return kept


def _keep(results: Path, example: str, own: Sequence[Hunted]) -> None:
    record = {"example": example, "hunted": [asdict(hunted) for hunted in own]}
    with results.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
