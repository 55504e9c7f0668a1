"""What ``refimpl mutants`` does: test each mutant, print each result, and judge at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import torch

from refimpl.baselines import committed
from refimpl.checking.expectations import gather
from refimpl.cli.messages import say
from refimpl.conformance.checks import ALL as CHECKS
from refimpl.conformance.checks.parity import same_on_every_execution
from refimpl.conformance.mutants import ALL
from refimpl.conformance.mutants.equivalents import Equivalent, gathered
from refimpl.conformance.mutants.hunting import Fate, Hunted, UnsoundError, fates, judged_by, untrue
from refimpl.conformance.mutants.planting import Mutant
from refimpl.conformance.mutants.table import markdown
from refimpl.contract import Example
from refimpl.data import Tier
from refimpl.errors import RefimplError
from refimpl.loading import registry
from refimpl.loading.discovery import sources
from refimpl.names import unknown
from refimpl.reading import Shape, ShapeError, decoded, plain_text, why
from refimpl.store import digests
from refimpl.writing import append_line, write_text

WIDTHS = (12, 16, 36)


def catalogue() -> str:
    """Every mutant and what it imitates, one line each."""
    width = max(len(each.name) for each in ALL) + 2
    return "\n".join(f"{each.name:<{width}}{each.imitates}" for each in ALL)


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
    """Test the mutants of these examples (default: all); return 1 if one survives or a run fails.

    The file ``results`` gets each finding as it is made; what it has is not hunted again. ``table``
    is written from all findings in ``results`` or, without it, from those of this run.
    """
    loaded = registry.load(plugins, only=names or None)
    examples = loaded.chosen(names)
    chosen = _chosen(mutants, without)
    listed = gathered(equivalents, {each.name for each in ALL})
    options = {
        "tier": tier, "every_variant": every_variant, "without": sorted(without),
        "variants": sorted(variants), "torch": torch.__version__,
        "program": program(plugins, examples) if results else "",
    }  # fmt: skip
    kept = Kept(results, options)
    found: list[Hunted] = []
    wrong: list[str] = []
    for example in examples:
        own = [judged_by(each, listed) for bug in chosen for each in kept.of(example.name, bug)]
        say(f"{example.name}: " + (f"{len(own)} already tested" if own else "testing"))
        left = [bug for bug in chosen if not kept.of(example.name, bug)]
        try:
            for each in fates(
                example, left, tier, every_variant=every_variant, without=without,
                expected=gather(loaded).entries, equivalents=listed, variants=variants,
            ):  # fmt: skip
                own.append(each)
                kept.keep(each)
                if each.fate != "ineffective":
                    say(line(each))
            kept.end()
        except UnsoundError as error:
            wrong.append(str(error))
            kept.pending.clear()  # the mutant has not been tried in every variant
            continue
        found += own
        say(f"{example.name}: {counted(own)}")
    wrong += _judged(found, listed, chosen, names, {e.name for e in examples}, variants)
    if table is not None:
        everything = found if results is None else [judged_by(h, listed) for h in kept.all()]
        write_text(table, markdown(everything, ALL, without))
        say(f"wrote {table}")
    say(f"all: {counted(found)}")
    for text in wrong:
        say(f"FAILED {text}")
    return 1 if wrong else 0


def line(hunted: Hunted) -> str:
    """The result for one mutant: its fate, the variant, the check that caught it, the seconds."""
    fate, variant, mutant = (
        f"{text:<{width}}"
        for text, width in zip((hunted.fate, hunted.variant, hunted.mutant), WIDTHS, strict=True)
    )
    smallest = f"  caught from {hunted.caught_from}" if hunted.smallest is not None else ""
    return f"{fate} {variant} {mutant} {hunted.seconds:7.2f} s  {hunted.how}{smallest}"


def counted(found: Sequence[Hunted]) -> str:
    """How many mutants met each fate."""
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
                yield f"{each.name} has no effect in any example, so it proves nothing"
    if not found:
        yield "no mutant applies to the chosen examples and variants, so nothing was tested"


def _chosen(names: Sequence[str], without: Collection[str]) -> list[Mutant]:
    """The mutants of these names, or all; those of executions only if executions are compared."""
    by_name = {each.name: each for each in ALL}
    for name in names:
        if name not in by_name:
            raise unknown(f"there is no mutant {name!r}", name, by_name)
    compared = same_on_every_execution.name not in without
    return [
        each
        for each in ALL
        if (not names or each.name in names) and (compared or each.execution is None)
    ]


def left_out(without: Collection[str], only: Collection[str]) -> list[str]:
    """The names of the checks not to run; if ``only`` names some, all but those.

    Raises :class:`UnknownNameError` for a name that is not a check for mutants, and
    :class:`RefimplError` if both are given.
    """
    known = {check.name for check in CHECKS if check.about != "example"}
    for name in (*without, *only):
        if name not in known:
            raise unknown(f"there is no check {name!r} for mutants", name, known)
    if without and only:
        raise RefimplError(
            "--only runs the checks that it names and no others; leave out --without"
        )
    return sorted(known - set(only) if only else without)


# --- what was found before -----------------------------------------------------------------------


def program(plugins: Sequence[str], examples: Iterable[Example]) -> str:
    """The digest of what decides a mutant's fate: refimpl, checks, fixtures, plugins, baselines.

    It covers every plugin, whichever ``examples`` are chosen, so that one file can serve many runs.
    """
    packages = ("refimpl", "refimpl.conformance", "refimpl.fixtures")
    folders = {Path(str(files(package))) for package in packages}
    folders |= {committed.folder_of(example) for example in examples}
    for path in (source.path for source in sources(plugins)):
        if path is not None:
            folders.add(path.parent if path.name == "__init__.py" else path)
    each = sorted({file for folder in folders for file in digests.files_of(folder)})
    return digests.of_bytes(b"".join(file.read_bytes() for file in each))


class Kept:
    """The findings in a file of results, a line for each mutant of each example.

    Raises :class:`RefimplError` if the file is not such a file, or was made by another program or
    with other options.
    """

    def __init__(self, path: Path | None, options: dict[str, Any]) -> None:
        self.path = path
        self.lines: dict[tuple[str, str], list[Hunted]] = {}
        self.pending: list[Hunted] = []
        if path is None:
            return
        if not path.exists():
            write_text(path, json.dumps(options) + "\n")
            return
        try:
            whole, end, cut_short = plain_text(path).rpartition("\n")
        except (OSError, ShapeError) as error:
            raise RefimplError(f"{path} cannot be read: {why(error)}") from error
        first, *lines = (whole or cut_short).split("\n")
        header = _line(path, 1, first, dict[str, Any])
        changed = ", ".join(name for name in options if header.get(name) != options[name])
        if changed:
            raise RefimplError(
                f"{path} was made by another program or with other options ({changed}); "
                "choose another file"
            )
        for number, line in enumerate(lines, start=2):
            own = _line(path, number, line, list[Hunted])
            about = {(each.example, each.mutant) for each in own}
            if len(about) != 1 or about & self.lines.keys():
                twice = "findings of one mutant that stand elsewhere, or of several, or of none"
                raise RefimplError(f"{path}, line {number}: {twice}")
            self.lines[about.pop()] = own
        if cut_short:  # by a kill: what it was about is hunted again
            write_text(path, whole + end)

    def of(self, example: str, bug: Mutant) -> list[Hunted]:
        """What became of a mutant of an example; empty if it was not hunted."""
        return self.lines.get((example, bug.name), [])

    def all(self) -> list[Hunted]:
        """Everything, example by example."""
        return [each for _, own in sorted(self.lines.items()) for each in own]

    def keep(self, hunted: Hunted) -> None:
        """Keep one finding; those of one mutant of one example are written together."""
        about = hunted.example, hunted.mutant
        if any((each.example, each.mutant) != about for each in self.pending):
            self.end()
        raw = replace(hunted, fate="SURVIVED", reason="every check passes")
        self.pending.append(raw if hunted.fate == "equivalent" else hunted)

    def end(self) -> None:
        """Write what is pending."""
        if self.pending:
            own, self.pending = self.pending, []
            self.lines[own[0].example, own[0].mutant] = own
            if self.path is not None:
                append_line(self.path, json.dumps([asdict(each) for each in own]))


def _line(path: Path, number: int, line: str, shape: type[Shape]) -> Shape:
    """What a line of the file holds; raises :class:`RefimplError`, which names the line."""
    try:
        return decoded(line, shape)
    except ShapeError as error:
        raise RefimplError(
            f"{path} is not a results file of mutants: line {number}: {error}"
        ) from error
