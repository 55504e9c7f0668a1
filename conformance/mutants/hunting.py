"""The hunt: ask the suite's checks about a variant with a bug in it until one fails."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from refimpl.checking import Cell, Check, Measurement, Result, Subject, ask, obstacle
from refimpl.conformance.checks import ALL as CHECKS
from refimpl.conformance.checks import agreement, convergence, parity
from refimpl.conformance.mutants.equivalents import Equivalent
from refimpl.conformance.mutants.planting import Fault, Mutant, planted, sound
from refimpl.contract import Example, Variant
from refimpl.data import Tier
from refimpl.expectations import ExpectedFailure, judged
from refimpl.problem import CPU, pose
from refimpl.training import steps_of

Fate = Literal["killed", "SURVIVED", "equivalent", "ineffective"]

LADDER = (agreement.ladder_in_float64, agreement.ladder_in_float32)
NEAR_ENOUGH = 2.0
"""The search for the smallest fault ends where the bounds are within this factor."""


@dataclass(frozen=True)
class Hunted:
    """What became of one mutant of one variant.

    ``check`` is the one that killed it, by ``measured`` against ``limit``, or by ``raises``: what
    was raised. ``smallest`` is the smallest magnitude caught, ``at_most`` whether even the
    weakest one tried was.
    """

    example: str
    variant: str
    mutant: str
    fate: Fate
    check: str = ""
    measured: str = ""
    limit: str = ""
    raises: str = ""
    seconds: float = 0.0
    smallest: float | None = None
    at_most: bool = False
    reason: str = ""

    @property
    def how(self) -> str:
        """By which check and figure it was killed, in words."""
        if self.fate != "killed":
            return self.reason
        what = f"raises: {self.raises}" if self.raises else f"{self.measured}, limit {self.limit}"
        return f"{self.check}: {what}"

    @property
    def caught_from(self) -> str:
        """The smallest magnitude caught, in words."""
        if self.smallest is None:
            return ""
        return f"{'≤ ' if self.at_most else ''}{self.smallest:.2g}"


@dataclass(frozen=True)
class Unsound:
    """A variant without any bug that fails a check: nothing could be said of its mutants."""

    example: str
    variant: str
    failed: tuple[Result, ...]

    def __str__(self) -> str:
        first = self.failed[0]
        return f"{self.example} {self.variant} fails {first.check} without any bug: {first.reason}"


Question = tuple[Check, int]
"""A check, and of what it is asked: of the variant itself (0), or of a rung that is held to it."""


class Hunt:
    """The checks of one variant, and what they say of mutants of it.

    Only checks that pass where there is no bug are asked: ``unsound`` says which do not.
    """

    def __init__(
        self,
        example: Example,
        variant: Variant,
        tier: Tier = "stand-in",
        without: Collection[str] = (),
        expected: Sequence[ExpectedFailure] = (),
    ) -> None:
        self.example, self.variant, self.tier = example, variant, tier
        self.expected = expected
        checks = [c for c in CHECKS if c.about == "variant" and c.name not in without]
        if parity.same_on_every_execution.name not in without:
            checks.append(parity.same_on_every_execution)
        clean = planted(variant, sound, Fault())
        self.cells = list(self._cells_of(clean, checks))
        answers = [(cell, self._ask(cell)) for cell in self.cells]
        failed = tuple(answer for _, answer in answers if answer.outcome == "failed")
        self.unsound = Unsound(example.name, variant.name, failed) if failed else None
        passed = {_key(cell, clean) for cell, answer in answers if answer.outcome == "passed"}
        self.checks = checks
        self.passed = passed

    def hunt(self, bug: Mutant) -> Hunted:
        """What becomes of a mutant; one with a magnitude is tried at its strongest first."""
        began = time.perf_counter()
        fault = Fault(strength=bug.strongest)
        killer = self._killer(bug, fault)
        seconds = time.perf_counter() - began
        about = (self.example.name, self.variant.name, bug.name)
        if not fault.hits:
            reason = f"it never took effect, though {killer.check} fails" if killer else ""
            return Hunted(*about, "ineffective", seconds=seconds, reason=reason)
        if killer is None:
            return Hunted(*about, "SURVIVED", seconds=seconds, reason="every check passes")
        wrong = next((m for m in killer.measurements if not m.holds), None)
        hunted = Hunted(
            *about, "killed", killer.check, *_shown(wrong),
            raises="" if wrong else killer.reason, seconds=seconds,
        )  # fmt: skip
        if not bug.has_magnitude:
            return hunted
        smallest, at_most = self.smallest(bug, killer.check)
        return replace(hunted, smallest=smallest, at_most=at_most)

    def smallest(self, bug: Mutant, killer: str) -> tuple[float, bool]:
        """The smallest magnitude that is caught, and whether even the weakest is.

        Whole trainings are left out of the search unless it was one that killed the strongest.
        """
        assert bug.weakest is not None
        slow = {convergence.reaches_documented_figures.name, parity.same_on_every_execution.name}
        left_out = slow - {killer}

        def caught(strength: float) -> bool:
            fault = Fault(strength=strength)
            return self._killer(bug, fault, left_out) is not None and fault.hits > 0

        return bisected(caught, bug.weakest, bug.strongest)

    def _killer(self, bug: Mutant, fault: Fault, left_out: Collection[str] = ()) -> Result | None:
        """The answer of the first check that fails, cheapest first."""
        if bug.execution is not None:
            subject = Subject(self.example, self.variant, bug.execution(fault), self.tier)
            answer = self._ask(Cell(parity.same_on_every_execution, subject))
            return answer if answer.outcome == "failed" else None
        changed = planted(self.variant, bug, fault)
        for cell in self._cells_of(changed, self.checks):
            if _key(cell, changed) not in self.passed or cell.check.name in left_out:
                continue
            late = cell.check.name == convergence.reaches_documented_figures.name
            if late and not fault.hits and not self._reached(bug, fault):
                return None
            answer = self._ask(cell)
            if answer.outcome == "failed":
                return answer
        return None

    def _reached(self, bug: Mutant, fault: Fault) -> bool:
        """Whether an epoch and a step of training reach the bug at all."""
        changed = planted(self.variant, bug, fault)
        problem = pose(changed, self.tier)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in steps_of(changed, problem, problem.steps_per_epoch + 1):
                if fault.hits:
                    break
        return fault.hits > 0

    def _cells_of(self, changed: Variant, checks: Iterable[Check]) -> Iterator[Cell]:
        """What is asked of a variant, and of the next rung where it is the first of its ladder."""
        example = _with(self.example, self.variant, changed)
        subject = Subject(example, changed, CPU, self.tier)
        rung = next(
            (v for v in example.variants if v.ladder and v.ladder == changed.ladder), changed
        )
        others = [v for v in example.variants if v.ladder == changed.ladder and v is not changed]
        for check in checks:
            if check.applies(subject):
                yield Cell(check, subject)
            if check in LADDER and rung is changed:
                deep = sorted(others, key=lambda v: v.ladder_depth != "trajectory")
                for other in [v for v in deep if obstacle(replace(subject, variant=v)) is None][:1]:
                    yield Cell(check, replace(subject, variant=other))

    def _ask(self, cell: Cell) -> Result:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bugs are warned of, and broadcasting is
            return judged(ask(cell), cell, self.expected)


def _key(cell: Cell, changed: Variant) -> tuple[str, bool]:
    return cell.check.name, cell.subject.variant is changed


def _with(example: Example, variant: Variant, changed: Variant) -> Example:
    """The example with one variant in the place of another; the others stay the same objects."""
    made = copy.copy(example)
    variants = tuple(changed if v is variant else v for v in example.variants)
    object.__setattr__(made, "variants", variants)
    return made


def _shown(wrong: Measurement | None) -> tuple[str, str]:
    if wrong is None:
        return "", ""
    measured = wrong.measured
    text = f"{measured:.4g}" if isinstance(measured, float) else str(measured)
    if isinstance(measured, list):
        text = ", ".join(str(each) for each in measured[:2]) + (" …" if len(measured) > 2 else "")
    return f"{wrong.what} {text}", wrong.limit


def bisected(
    caught: Callable[[float], bool], weakest: float, strongest: float
) -> tuple[float, bool]:
    """The smallest magnitude for which ``caught`` holds, to a factor of :data:`NEAR_ENOUGH`.

    ``strongest`` is known to be caught; where ``weakest`` is too, it is the answer, and true.
    """
    if caught(weakest):
        return weakest, True
    below, above = weakest, strongest
    while above / below > NEAR_ENOUGH:
        middle = (below * above) ** 0.5
        if caught(middle):
            above = middle
        else:
            below = middle
    return above, False


# --- a whole example -----------------------------------------------------------------------------


def fates(
    example: Example,
    mutants: Sequence[Mutant],
    tier: Tier = "stand-in",
    *,
    every_variant: bool = False,
    without: Collection[str] = (),
    expected: Sequence[ExpectedFailure] = (),
    equivalents: Sequence[Equivalent] = (),
    variants: Collection[str] = (),
) -> Iterator[Hunted | Unsound]:
    """What becomes of every mutant that applies, in the first variant where it takes effect.

    With ``every_variant`` in each of them. A mutant that takes effect nowhere is told once.
    """
    hunts: dict[str, Hunt] = {}
    chosen = [v for v in example.variants if not variants or v.name in variants]
    here = [v for v in chosen if obstacle(Subject(example, v, CPU, tier)) is None]
    refused: set[str] = set()
    for bug in mutants:
        idle: Hunted | None = None
        reached = False
        for variant in here:
            if not bug.applies(variant) or variant.name in refused:
                continue
            if variant.name not in hunts:
                hunts[variant.name] = Hunt(example, variant, tier, without, expected)
                unsound = hunts[variant.name].unsound
                if unsound is not None:
                    refused.add(variant.name)
                    yield unsound
                    continue
            found = hunts[variant.name].hunt(bug)
            if found.fate == "ineffective":
                idle = idle or found
                continue
            reached = True
            yield judged_by(found, equivalents)
            if not every_variant:
                break
        if idle is not None and not reached:
            yield idle


def judged_by(found: Hunted, equivalents: Iterable[Equivalent]) -> Hunted:
    """A survivor that is listed as equivalent, with the reason."""
    about = (found.example, found.variant, found.mutant)
    entry = next((e for e in equivalents if e.matches(*about)), None)
    if entry is None or found.fate != "SURVIVED":
        return found
    return replace(found, fate="equivalent", reason=entry.reason)


def untrue(
    equivalents: Iterable[Equivalent],
    found: Sequence[Hunted],
    examples: Collection[str],
    mutants: Collection[str],
) -> Iterator[str]:
    """What is wrong with each entry that a run over these examples and mutants has shown so."""
    for entry in equivalents:
        if entry.example not in examples or entry.mutant not in mutants:
            continue
        own = [h for h in found if entry.matches(h.example, h.variant, h.mutant)]
        killed = [h for h in own if h.fate == "killed"]
        if killed:
            yield f"{entry}: it is killed after all, by {killed[0].check}"
        elif not any(h.fate == "equivalent" for h in own):
            yield f"{entry}: it is about no mutant that took effect"
