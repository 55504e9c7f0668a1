"""The page of the mutants: which checks killed each, and how small a fault is caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import torch

from refimpl.conformance.checks import ALL as CHECKS
from refimpl.conformance.mutants import kernels
from refimpl.conformance.mutants.hunting import Hunted
from refimpl.conformance.mutants.planting import Mutant
from refimpl.markdown import table

HEAD = """# Mutants

The suite is itself tested: a known training bug is planted in a variant, and a check must fail.
Each mutant is planted in the first variant of an example in which it takes effect; the checks are
run cheapest first until one fails. A mutant listed as equivalent is not a bug there, for the reason
given in `conformance/mutants/equivalent.toml`.

Made by `refimpl mutants --table FILE` with torch {torch}; not written by hand. Examples
that are not listed were not tested. `--results FILE` keeps each mutant's variant, check, measured
value and limit.
"""

LISTED = "`refimpl mutants --list` says what each is."

ONLY = f"Only these checks were run: {{checks}}. {LISTED}\n"

OF_KERNELS = f"""Put into torch's dispatcher, in float32 alone. A cell says in how many examples a
fault was killed, of those in which it takes effect; the last column, which share too much was
noticed. {LISTED}
"""


def markdown(
    found: Sequence[Hunted], mutants: Sequence[Mutant], without: Collection[str] = ()
) -> str:
    """The whole page; ``without`` names the checks that were not run."""
    reached = [hunted for hunted in found if hunted.fate != "ineffective"]
    examples = list(dict.fromkeys(hunted.example for hunted in found))
    head = HEAD.format(torch=torch.__version__)
    every = (check for check in CHECKS if check.about != "example")
    used = ", ".join(check.name for check in every if check.name not in without)
    parts = [head, ONLY.format(checks=used)] if without else [head]
    parts += ["## By example\n", table(_by_example(found, examples))]
    hunted = {each.mutant for each in found}
    tried = [mutant for mutant in mutants if mutant.name in hunted and not mutant.of_kernels]
    if tried:
        parts += ["## By mutant\n", table(_by_mutant(reached, tried, not without))]
    by_kernel = [row for kernel in kernels.KERNELS for row in _of_kernel(kernel, reached)]
    if by_kernel:
        heading = ("kernel", *kernels.FAULTS, "smallest caught")
        parts += ["## By kernel\n", OF_KERNELS, table([heading, *by_kernel])]
    left = [hunted for hunted in reached if hunted.fate != "killed"]
    if left:
        parts += ["## Not killed\n", table(_not_killed(left))]
    return "\n".join(parts)


def _by_example(found: Sequence[Hunted], examples: Sequence[str]) -> Iterator[tuple[str, ...]]:
    yield "example", "killed", "survived", "equivalent", "without effect", "seconds"
    for example in examples:
        own = [hunted for hunted in found if hunted.example == example]
        fates = Counter(hunted.fate for hunted in own)
        counts = (fates[f] for f in ("killed", "SURVIVED", "equivalent", "ineffective"))
        yield example, *map(str, counts), f"{sum(h.seconds for h in own):.0f}"


def _by_mutant(
    found: Sequence[Hunted], mutants: Sequence[Mutant], described: bool
) -> Iterator[tuple[str, ...]]:
    what = ("what it imitates",) if described else ()
    yield "mutant", *what, "killed by", "smallest caught"
    for mutant in mutants:
        own = [hunted for hunted in found if hunted.mutant == mutant.name]
        killers = Counter(hunted.check for hunted in own if hunted.fate == "killed")
        by = ", ".join(f"{check} ({count})" for check, count in killers.most_common())
        what = (mutant.imitates,) if described else ()
        yield mutant.name, *what, by or "nowhere", _smallest_caught(own)


def _of_kernel(kernel: str, found: Sequence[Hunted]) -> Iterator[tuple[str, ...]]:
    """The row of a kernel, if a fault of it takes effect in any example."""
    by_fault = [
        [hunted for hunted in found if hunted.mutant == kernels.name_of(kernel, fault)]
        for fault in kernels.FAULTS
    ]
    if any(by_fault):
        cells = (f"{sum(h.fate == 'killed' for h in own)}/{len(own)}" for own in by_fault)
        yield f"aten::{kernel}", *cells, _smallest_caught([h for own in by_fault for h in own])


def _smallest_caught(found: Sequence[Hunted]) -> str:
    """The least and the greatest of the smallest magnitudes that were caught."""
    sizes = [hunted for hunted in found if hunted.smallest is not None]
    sizes.sort(key=lambda hunted: hunted.smallest or 0.0)
    ends = [h.caught_from for h in (sizes[:1] + sizes[-1:] if len(sizes) > 1 else sizes)]
    return " … ".join(dict.fromkeys(ends))


def _not_killed(left: Sequence[Hunted]) -> Iterator[tuple[str, ...]]:
    yield "example", "variant", "mutant", "fate", "why"
    for each in left:
        yield each.example, each.variant, each.mutant, each.fate.lower(), each.reason
