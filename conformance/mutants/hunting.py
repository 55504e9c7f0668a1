"""The hunt: run the suite's checks on a variant with a bug in it until one fails."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from refimpl.checking.checks import Cell, Check, Measurement, Result, Subject, obstacle, run_check
from refimpl.checking.expectations import ExpectedFailure, judged
from refimpl.composition import CPU
from refimpl.conformance.checks import ALL as CHECKS
from refimpl.conformance.checks import agreement, convergence, kernels, parity
from refimpl.conformance.mutants.equivalents import Equivalent
from refimpl.conformance.mutants.planting import Fault, Mutant, planted, sound
from refimpl.contract import Example, Step, Variant
from refimpl.data import Tier
from refimpl.training.checkpoint import Checkpoint, take
from refimpl.training.loop import predictor, steps_of
from refimpl.training.problem import pose

Fate = Literal["killed", "SURVIVED", "equivalent", "ineffective"]

LADDER = (agreement.ladder_in_float64, agreement.ladder_in_float32)
SLOW = (convergence.reaches_documented_figures, convergence.stays_in_calibrated_band)
"""Checks that train to the end."""

OF_KERNELS = (kernels.each_kernel_is_right, kernels.each_layer_is_right)
"""Checks that faults of kernels meet first, on the plain CPU."""

PROBED = 150
"""The most updates that are made to see whether a mutant has any effect."""

FEW_ROWS = 3
"""Rows that are predicted to see whether a mutant has an effect there."""

NEAR_ENOUGH = 2.0
"""The search for the smallest fault ends when its bounds are within this factor."""


@dataclass(frozen=True)
class Hunted:
    """What became of one mutant of one variant.

    ``check`` is the one that killed it, by ``measured`` against ``limit`` or by the exception
    ``raises``. ``smallest`` is the smallest magnitude caught; ``at_most`` means that even the
    weakest one tried was caught.
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


class UnsoundError(Exception):
    """A check fails although there is no bug."""


class Hunt:
    """The checks of one variant, and what they say about mutants of it.

    Each check is first run without a bug; :class:`UnsoundError` is raised if it fails then.
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
        self.quick = [c for c in checks if c not in SLOW]
        self.slow = [c for c in checks if c in SLOW]
        if parity.same_on_every_execution.name not in without:
            self.slow.append(parity.same_on_every_execution)
        self.of_kernels = [c for c in OF_KERNELS if c.name not in without]
        self.clean = planted(variant, sound, Fault())
        self.sound: dict[tuple[str, bool], bool] = {}

    def hunt(self, bug: Mutant) -> Hunted:
        """What becomes of a mutant; one with a magnitude is tried at its strongest first."""
        began = time.perf_counter()
        fault = Fault(strength=bug.strongest)
        reached = bug.execution is not None or self._reached(bug, fault)
        checks = self.of_kernels if bug.of_kernels else []
        checks = [*checks, *self.quick, *self.slow]
        killer = self._killer(bug, fault, checks) if reached else None
        seconds = time.perf_counter() - began
        about = (self.example.name, self.variant.name, bug.name)
        if not fault.hits:
            return Hunted(*about, "ineffective", seconds=seconds)
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

        Slow checks are left out of the search, except for one that killed the strongest. A fault
        of a kernel is searched for by its killer alone.
        """
        assert bug.weakest is not None
        checks = self.quick + [check for check in self.slow if check.name == killer]
        if bug.of_kernels:
            checks = [check for check in CHECKS if check.name == killer]
        checks.sort(key=lambda check: check.name != killer)

        def caught(strength: float) -> bool:
            fault = Fault(strength=strength)
            return self._killer(bug, fault, checks) is not None and fault.hits > 0

        return bisected(caught, bug.weakest, bug.strongest)

    def _killer(self, bug: Mutant, fault: Fault, checks: Sequence[Check]) -> Result | None:
        """The result of the first check that fails, with the cheapest first."""
        if bug.execution is not None:
            subject = Subject(self.example, self.variant, bug.execution(fault), self.tier)
            cells = [Cell(parity.same_on_every_execution, subject)]
            sound = [Cell(parity.same_on_every_execution, replace(subject, execution=CPU))]
        else:
            cells = list(self._cells_of(planted(self.variant, bug, fault), checks))
            sound = list(self._cells_of(self.clean, checks))
        for cell, same in zip(cells, sound, strict=True):
            if not self._passes(same):
                continue
            answer = self._ask(cell)
            if answer.outcome == "failed":
                return answer
        return None

    def _passes(self, cell: Cell) -> bool:
        """Whether a check passes without a bug; it may also be skipped, or fail as expected."""
        key = cell.check.name, cell.subject.variant is self.clean
        if key not in self.sound:
            answer = self._ask(cell)
            if answer.outcome == "failed":
                raise UnsoundError(
                    f"{self.example.name} {self.variant.name} fails {answer.check} "
                    f"without any bug: {answer.reason}"
                )
            self.sound[key] = answer.outcome == "passed"
        return self.sound[key]

    def _reached(self, bug: Mutant, fault: Fault) -> bool:
        """Whether training or predictions reach the bug.

        In the first epoch, after it, resumed, in float64, or where a few rows are predicted.

        The seed is not the variant's own, so that bugs that depend on the seed are reached too.
        """
        changed = planted(self.variant, bug, fault)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._probe(changed, fault)
            except Exception:  # only the bug can have raised it; the check that meets it reports it
                fault.hit()
        return fault.hits > 0

    def _probe(self, changed: Variant, fault: Fault) -> None:
        problem = pose(changed, self.tier, seed=changed.seed + 1)
        per_epoch = problem.steps_per_epoch
        first: Checkpoint | None = None
        last: Step | None = None
        for number, step in enumerate(steps_of(changed, problem, min(per_epoch + 1, PROBED)), 1):
            if fault.hits:
                return
            last = step
            if number == 1:
                first = take(step, 1)
        begins = (1, per_epoch - 1) if per_epoch + 1 > PROBED else (1,)
        for begin in begins:
            if first is not None and not fault.hits:
                resumed = problem.but(checkpoint=replace(first, step=begin))
                for _ in steps_of(changed, resumed, 2):
                    pass
        if not fault.hits:
            next(steps_of(changed, problem.but(precision="float64"), 1), None)
        if not fault.hits and last is not None and last.model is not None:
            with predictor(changed, last) as predict:
                predict(problem.train.x[:FEW_ROWS])

    def _cells_of(self, changed: Variant, checks: Iterable[Check]) -> Iterator[Cell]:
        """The cells of a variant and, if it is first on its ladder, of another variant there."""
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
            warnings.simplefilter("ignore")  # torch warns of bugs, and of broadcasting
            return judged(run_check(cell, to_the_end=False), cell, self.expected)


def _with(example: Example, variant: Variant, changed: Variant) -> Example:
    """The example with one variant replaced by another; the others stay the same objects."""
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

    ``strongest`` is known to be caught. If ``weakest`` is caught too, it is returned with ``True``.
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
) -> Iterator[Hunted]:
    """What becomes of every mutant that applies, in the first variant where it takes effect.

    With ``every_variant``, in each of them. A mutant that takes effect nowhere is yielded once.
    Raises :class:`UnsoundError` if a check fails without any bug.
    """
    chosen = [v for v in example.variants if not variants or v.name in variants]
    hunts = [
        Hunt(example, variant, tier, without, expected)
        for variant in chosen
        if obstacle(Subject(example, variant, CPU, tier)) is None
    ]
    for bug in mutants:
        idle: Hunted | None = None
        reached = False
        for hunt in hunts:
            if not bug.applies(hunt.variant):
                continue
            found = hunt.hunt(bug)
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
    """The finding; a survivor that is listed as equivalent becomes that, with the reason."""
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
    """What is wrong with each entry that a run over these examples and mutants has disproved."""
    for entry in equivalents:
        if entry.example not in examples or entry.mutant not in mutants:
            continue
        own = [h for h in found if entry.matches(h.example, h.variant, h.mutant)]
        killed = [h for h in own if h.fate == "killed"]
        if killed:
            yield f"{entry}: the mutant is killed after all, by {killed[0].check}"
        elif not any(h.fate == "equivalent" for h in own):
            yield f"{entry}: it matches no mutant that took effect"
