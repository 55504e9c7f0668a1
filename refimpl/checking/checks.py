"""Checks: questions about an example, each answered by measurements.

A check is a generator of :class:`Measurement`; it passes if it makes at least one and all hold.
Between them it may yield a :class:`~refimpl.training.curves.Curve`, which a report draws and
which does not affect the outcome.
:func:`run_check` runs one and never raises, so that a broken plugin fails only its own checks.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar

from refimpl import precision, threads
from refimpl.capabilities import lacks
from refimpl.checking.warned import Warned
from refimpl.contract import Example, Execution, Variant
from refimpl.data import Tier
from refimpl.errors import RefimplError, one_line
from refimpl.process_state import Changes, kept
from refimpl.reproducible import reproducible
from refimpl.requirements import EXEMPT, NUMPY_ON_CPU, explains, missing, missing_data
from refimpl.training.curves import Curve
from refimpl.whereabouts import describe_error, plugin_of
from refimpl.writing import plain

Outcome = Literal["passed", "failed", "skipped", "xfailed"]
"""``xfailed`` is a failure that was expected; see :mod:`refimpl.checking.expectations`."""

Scope = Literal["example", "variant", "execution"]
"""What a check is about: an example as a whole, each variant, or a variant on each execution."""

About = TypeVar("About")

IN_ORDER = "plugin-in-order"
EXPECTATIONS = "expected-failures"
MANIFEST = "checks-of-the-manifest"
VERDICTS = (IN_ORDER, EXPECTATIONS, MANIFEST)
"""Results that judge a plugin before any check of its examples is run."""


# --- measurements --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a comparison first diverged: the step, the tensor, and its furthest element.

    ``step`` is 0 where something of torch was called by itself.
    ``kind`` is ``"output"``, ``"loss"``, ``"gradient"``, ``"parameter"`` or ``"buffer"``.
    ``inside`` is the first module that diverges, if that could be seen.
    """

    step: int
    kind: str
    name: str = ""
    found: float = 0.0
    expected: float = 0.0
    inside: str = ""


@dataclass(frozen=True)
class Measurement:
    """One figure compared with its limit; if it does not hold, ``message`` says what was expected.

    ``low`` and ``high`` are the limit as numbers, if it is a range; ``unit`` is ``"budget"`` if the
    figure is an error divided by its budget. ``where`` says where a comparison first diverged, if
    it did, and ``place`` says it as data. A change by less than ``resolution`` means nothing.
    ``isolates`` names the one thing of torch that the figure is about, if nothing else has a part
    in it: a kernel (``aten::addmm``), a function or a class (``BCELoss``).
    """

    what: str
    measured: Any
    limit: str
    holds: bool
    message: str = ""
    low: float | None = None
    high: float | None = None
    unit: str = ""
    where: str = ""
    place: Place | None = None
    resolution: float | None = None
    isolates: str = ""

    def __post_init__(self) -> None:
        if self.holds:
            object.__setattr__(self, "message", "")


def equal(what: str, measured: Any, expected: Any) -> Measurement:
    """``measured`` must be exactly ``expected``."""
    holds = bool(measured == expected)
    return Measurement(
        what, measured, f"= {expected}", holds, f"{what} is {measured}, expected {expected}"
    )


def at_most(what: str, measured: float, limit: float) -> Measurement:
    """``measured`` must not exceed ``limit``; NaN does."""
    holds = bool(measured <= limit)
    message = f"{what} is {measured:.6g}, at most {limit:.6g}"
    return Measurement(what, measured, f"≤ {limit:.6g}", holds, message, high=limit)


def within_budget(what: str, ratio: float) -> Measurement:
    """An error divided by its budget must not exceed 1; NaN does."""
    message = f"{what} is {ratio:.4g}: so many times the error that rounding explains"
    return replace(at_most(what, ratio, 1.0), unit="budget", message=message)


def within(what: str, measured: float, low: float, high: float) -> Measurement:
    """``measured`` must lie between ``low`` and ``high``; NaN does not."""
    return Measurement(
        what,
        measured,
        f"{low:.10g} … {high:.10g}",
        bool(low <= measured <= high),
        f"{what} is {measured:.10g}, expected between {low:.10g} and {high:.10g}",
        low=low,
        high=high,
    )


def true(what: str, holds: bool, message: str, where: str = "") -> Measurement:
    """A statement that must hold; if it does not, ``message`` says what was found instead."""
    return Measurement(what, holds, "= True", bool(holds), message, where=where)


# --- checks and their subjects -------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """What a check runs on. ``variant`` is ``None`` for checks of the example as a whole."""

    example: Example
    variant: Variant | None
    execution: Execution
    tier: Tier

    @property
    def trained(self) -> Variant:
        """The variant, if the check is about one."""
        if self.variant is None:
            raise TypeError("this check is about an example as a whole, not about a variant")
        return self.variant


CheckFunction = Callable[[Subject], Iterator[Measurement | Curve]]


@dataclass(frozen=True)
class Check:
    """A check. ``applies`` selects the subjects about which the documents claim something.

    ``ill_posed`` says, from the oracle, why a subject's random start has no answer (it lies on a
    kink, say), or nothing. ``on_cpu`` says that it computes on the CPU whatever the device of the
    run, so that its result counts for the CPU. ``repeats`` says that a failure is repeated with the
    same seed.
    ``reading`` says how to read a failure: what it means, and what to look at next. ``needs`` is
    what the device must be capable of: ``"float64"``.
    """

    name: str
    question: str
    about: Scope
    measure: CheckFunction
    applies: Callable[[Subject], bool]
    ill_posed: Callable[[Subject], str] | None = None
    repeats: bool = True
    on_cpu: bool = False
    reading: str = ""
    needs: str = ""


def check(
    name: str,
    about: Scope = "variant",
    applies: Callable[[Subject], bool] = lambda subject: True,
    ill_posed: Callable[[Subject], str] | None = None,
    repeats: bool = True,
    on_cpu: bool = False,
    reading: str = "",
    needs: str = "",
) -> Callable[[CheckFunction], Check]:
    """Turn a generator of measurements into a check; its docstring is the check's question.

    ``reading`` says how to read a failure: what it means, and what to look at next; ``needs`` what
    the device must be capable of.
    """

    def made(measure: CheckFunction) -> Check:
        if not measure.__doc__ and sys.flags.optimize < 2:  # which strips all docstrings
            raise TypeError(f"check {name!r} needs a docstring: the question that it answers")
        question = (measure.__doc__ or f"{name.replace('-', ' ')}?").strip().splitlines()[0]
        return Check(
            name, question, about, measure, applies, ill_posed, repeats, on_cpu, reading, needs
        )

    return made


@dataclass(frozen=True)
class Cell:
    """One check of one subject: the unit of a test, and the key of a recorded result."""

    check: Check
    subject: Subject

    @property
    def id(self) -> str:
        """Stable and readable: example/variant/check/execution/tier."""
        variant = self.subject.variant.name if self.subject.variant else "-"
        parts = (
            self.subject.example.name,
            variant,
            self.check.name,
            self.subject.execution.name,
            self.subject.tier,
        )
        return "/".join(parts)


@dataclass(frozen=True)
class Result:
    """The result of one check, with everything that a report shows of it."""

    example: str
    variant: str
    check: str
    execution: str
    tier: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    measurements: tuple[Measurement, ...] = ()
    details: str = field(default="", repr=False)
    question: str = field(default="", repr=False)
    curves: tuple[Curve, ...] = field(default=(), repr=False)
    data: str = field(default="", repr=False)
    uses: tuple[str, ...] = field(default=(), repr=False)
    advice: str = field(default="", repr=False)
    warnings: tuple[Warned, ...] = field(default=(), repr=False)
    earlier: str = field(default="", repr=False)
    deviations: tuple[str, ...] = ()

    @property
    def held_later(self) -> bool:
        """Whether it failed with its own seed and passed on a retry with another seed."""
        return self.outcome == "passed" and any(m.what == SEEDS_TRIED for m in self.measurements)

    @property
    def id(self) -> str:
        """The name of its cell: example, variant, check, execution and tier, with slashes."""
        return "/".join((self.example, self.variant, self.check, self.execution, self.tier))

    def record(self) -> dict[str, Any]:
        """Plain data for a results file; what is not a JSON value becomes text."""
        record: dict[str, Any] = plain(asdict(self))
        return record


def cells(
    example: Example,
    checks: Sequence[Check],
    execution: Execution,
    tier: Tier,
    others: Sequence[Execution] = (),
) -> Iterator[Cell]:
    """Every check of an example that applies to it, variant by variant.

    ``execution`` is what the checks run on, but for those that compute on the CPU; ``others`` are
    the executions that checks about executions compare with it.
    """
    from refimpl.composition import CPU

    for question in checks:
        on = CPU if question.on_cpu else execution
        if question.about == "example":
            subjects = [Subject(example, None, on, tier)]
        elif question.about == "variant":
            subjects = [Subject(example, variant, on, tier) for variant in example.variants]
        else:
            subjects = [
                Subject(example, variant, other, tier)
                for variant in example.variants
                for other in others
                if _applies_to(other.supports, variant)
            ]
        yield from (
            Cell(question, subject)
            for subject in subjects
            if _applies_to(question.applies, subject)
        )


def _applies_to(applies: Callable[[About], bool], about: About) -> bool:
    """Whether it applies. If the plugin's code raises here, the check's result will say why."""
    try:
        return applies(about)
    except Exception:
        return True


# --- running -------------------------------------------------------------------------------------

SEEDS = 3
"""How many seeds in a row must fail where the oracle shows that the drawn starts are ill-posed."""

SEEDS_TRIED = "seeds tried until one passed"


class CannotRunError(Exception):
    """Raised by a check that lacks something; its text is one of the fixed reasons."""


def obstacle(subject: Subject) -> str | None:
    """Why this subject cannot be run here at all, or ``None``."""
    lacking = subject.execution.missing()
    variant = subject.variant
    if lacking or variant is None:
        return lacking
    if variant.numpy and subject.execution.device != "cpu":
        return NUMPY_ON_CPU
    if reason := missing(variant.needs):
        return reason
    if variant.data and (reason := missing_data(variant.data, subject.tier)):
        return reason
    return subject.execution.unfit(variant)  # last, for it may look at the data


def _said(cell: Cell) -> Iterator[str | None]:
    """Why it cannot run, by what its execution says and its device is capable of."""
    execution, variant = cell.subject.execution, cell.subject.variant
    yield execution.missing()
    yield _incapable(cell)
    if variant is not None:
        yield execution.unfit(variant)


def _incapable(cell: Cell) -> str | None:
    """What the check needs and the device is not capable of, or ``None``."""
    device, needs = cell.subject.execution.device, cell.check.needs
    return lacks(device, needs) if needs and device != "cpu" else None


def exemption(cell: Cell) -> str | None:
    """Why the variant is exempt from the check, by its own statement, or ``None``."""
    variant = cell.subject.variant
    reason = variant.exempt.get(cell.check.name) if variant is not None else None
    return None if reason is None else f"{EXEMPT}{reason}"


def idle_exemptions(cells: Sequence[Cell]) -> dict[str, str]:
    """By example, what is wrong with its exemptions: a check that the variant does not get anyway.

    The cells must be those of all checks; only checks about a variant count.
    """
    asked: dict[tuple[str, str], set[str]] = {}
    exempt: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        variant = cell.subject.variant
        if variant is not None:
            key = cell.subject.example.name, variant.name
            asked.setdefault(key, set()).add(cell.check.name)
            exempt[key] = set(variant.exempt)
    wrong: dict[str, str] = {}
    for (example, name), named in exempt.items():
        for idle in sorted(named - asked[example, name]):
            text = f"variant {name!r} is exempt from {idle!r}, which is no check of it; take it out"
            wrong[example] = "; ".join(filter(None, (wrong.get(example), text)))
    return wrong


def data_seen(subject: Subject) -> str:
    """A subject's data set and the digest of its arrays; empty if it has none or cannot read it."""
    data = subject.variant.data if subject.variant else None
    try:
        return f"{data.name} {data.digest(subject.tier)}" if data is not None else ""
    except Exception:  # the check's own answer says why it cannot be read
        return ""


def run_check(cell: Cell, to_the_end: bool = True) -> Result:
    """The result of one check: passed, or failed or skipped with the reason.

    Unless ``to_the_end``, it stops after the first measurement that does not hold. Otherwise a
    failure is repeated with the same seed, to see whether it is reproducible. Float32 products
    are made in float32, on accelerators by reproducible kernels, and whatever the check changes
    for the rest of the process is put back; that its code left something changed is a failure.
    """
    suited = threads.suited_to(partial(_numbers_in_a_batch, cell.subject))
    device = cell.subject.execution.device
    # Within the threads that suit, since putting those back would hide that a plugin sets its own.
    with precision.ieee(), reproducible(device), kept() as outside, suited, kept() as inside:
        result = _repeated(cell, to_the_end)
    changes = Changes([*outside.found, *inside.found])
    return _disturbing(cell, result, changes) if changes.found else result


def _numbers_in_a_batch(subject: Subject) -> int:
    """How large the batches of a subject's variant are; 0 if it has none or they cannot be read."""
    from refimpl.training.problem import pose

    try:
        return pose(subject.trained, subject.tier).numbers_in_a_batch
    except Exception:  # the check's own answer says what is wrong
        return 0


def _disturbing(cell: Cell, result: Result, changes: Changes) -> Result:
    """The result of a check whose code left something changed, which is named."""
    execution = cell.subject.execution
    by = plugin_of(cell.subject.example)
    if cell.check.about == "execution":
        by += f", or the execution {execution.name},"
    left = f"{by} changed {changes} and left it so for whatever runs next (it is put back)"
    return replace(result, outcome="failed", reason="; ".join(filter(None, (result.reason, left))))


def _repeated(cell: Cell, to_the_end: bool) -> Result:
    """The result; if it is a failure, also of the same again, and where that may help, of others.

    Another seed is tried only if the check shows that this one is ill-posed, and says why.
    """
    first = _answer(cell, to_the_end)
    if not _out_of_limits(first):
        return first
    seconds = first.seconds
    if cell.check.repeats and to_the_end:
        from refimpl.parity import against_oracle

        against_oracle.forget()
        again = _answer(cell, to_the_end)
        seconds += again.seconds
        first = replace(first, reason=_compared(first, again), seconds=seconds)
        if again.outcome == "passed":
            return first
    why = cell.check.ill_posed(cell.subject) if cell.check.ill_posed is not None else ""
    for by in range(1, SEEDS if why else 1):
        other = _answer(_reseeded(cell, by), to_the_end)
        seconds += other.seconds
        if other.outcome == "passed":
            seeds = replace(at_most(SEEDS_TRIED, by + 1, SEEDS), where=f"ill-posed: {why}")
            return replace(
                other,
                seconds=seconds,
                measurements=(*other.measurements, seeds),
                details=f"the first seed failed: {first.reason}; it is ill-posed: {why}",
            )
    return replace(first, seconds=seconds)


def _compared(first: Result, again: Result) -> str:
    """A failure's reason, with what became of it when it was repeated, if that is not the same."""
    if again.outcome == "passed":
        said = "not reproducible: it failed, and passed when repeated with the same seed"
        return f"{said}. The failure: {first.reason}"
    if _failing(first) != _failing(again):
        said = "not reproducible: repeated with the same seed, it fails elsewhere"
        return f"{first.reason}; {said}: {again.reason}"
    return first.reason


def _failing(result: Result) -> list[tuple[str, str]]:
    """What does not hold, and the tensor in which a comparison diverges."""
    return [(m.what, m.where.partition(":")[0]) for m in result.measurements if not m.holds]


def _out_of_limits(answer: Result) -> bool:
    """Whether a check failed by a measurement, and not by an error."""
    return answer.outcome == "failed" and any(not m.holds for m in answer.measurements)


def _reseeded(cell: Cell, by: int) -> Cell:
    """The same check of the same variant with another seed."""
    subject = cell.subject
    example = subject.example.reseeded(by)
    variant = example.variant(subject.variant.name) if subject.variant else None
    return replace(cell, subject=replace(subject, example=example, variant=variant))


def _answer(cell: Cell, to_the_end: bool) -> Result:
    """The result with the variant's own seed."""
    began = time.perf_counter()
    measurements: list[Measurement] = []
    curves: list[Curve] = []
    lacking = ""

    def skipped(reason: str) -> Result:
        if explains(reason, _said(cell)):
            return result("skipped", reason)
        return result("failed", f"skipped for a reason that is not on the list: {reason!r}")

    def result(outcome: Outcome, reason: str = "", details: str = "") -> Result:
        example, variant, name, execution, tier = cell.id.split("/")
        seconds = time.perf_counter() - began
        return Result(
            example, variant, name, execution, tier,
            outcome, reason, seconds, tuple(measurements), details,
            cell.check.question, tuple(curves),
            data_seen(cell.subject) if outcome != "skipped" else "",
            advice=cell.check.reading if outcome == "failed" else "",
        )  # fmt: skip

    try:
        if reason := exemption(cell) or obstacle(cell.subject) or _incapable(cell):
            return skipped(reason)
        for answer in cell.check.measure(cell.subject):
            if isinstance(answer, Curve):
                curves.append(answer)
                continue
            measurements.append(answer)
            if not (answer.holds or to_the_end):
                break
    except CannotRunError as error:
        lacking = str(error)
    except RefimplError as error:
        return result("failed", one_line(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # SystemExit and pytest's own outcomes too: a plugin must not end or skip a check with them.
        return result("failed", describe_error(cell.subject.example, error), traceback.format_exc())
    wrong = [m.message for m in measurements if not m.holds and m.message]
    if wrong or any(not m.holds for m in measurements):
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        return result("failed", "; ".join(wrong[:3]) + more)
    if lacking:
        return skipped(lacking)
    if not measurements:
        return result("failed", "the check measured nothing, so it proves nothing")
    return result("passed")
