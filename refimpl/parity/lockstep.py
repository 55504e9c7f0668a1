"""Compares two runs step by step, up to the first tensor in which they diverge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, zip_longest

import torch

from refimpl.composition import CPU
from refimpl.contract import Execution, Variant
from refimpl.data import Tier
from refimpl.errors import ContractError
from refimpl.parity.rounding import drawn, first_drawn
from refimpl.parity.ties import near_ties
from refimpl.training.comparison import Closeness, Kind, closeness, distance, shown_apart
from refimpl.training.ladder import from_ladder, same_but_for_unit_axes, to_ladder
from refimpl.training.problem import Problem, pose
from refimpl.training.trajectories import Observation, first_steps

FIRST, FURTHER = 2, 14
"""How many draws every run is compared with, and how many more if it exceeds its budget without
them. A correct run is one more such draw, and to diverge it must be ``FACTOR`` times as far away as
all of them."""

ORDER: tuple[Kind, ...] = ("output", "loss", "gradient", "parameter", "buffer")


@dataclass(frozen=True)
class Divergence:
    """The first kind of tensor of the first step in which a candidate exceeds its budget.

    Of several tensors of that kind it is the furthest off; ``others`` are the names of the rest.
    ``growth`` has the worst error ratio of every step up to and including this one. ``inside``
    says in which module the step first goes wrong, if that could be seen.
    """

    step: int
    kind: Kind
    name: str
    closeness: Closeness
    growth: tuple[float, ...]
    inside: str = ""
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        c = self.closeness
        where = f"{self.kind} {self.name}" if self.name else self.kind
        at = f"[{', '.join(map(str, c.index))}]" if c.index else ""
        before = ", ".join(f"{ratio:.2g}" for ratio in self.growth[-6:])
        return (
            f"step {self.step}, {where}{at}: {shown_apart(c.found, c.expected)}; "
            f"error {c.error:.3g} is {c.error_ratio:.3g} times the budget {c.budget:.3g} "
            f"(worst ratio of the last steps: {before})"
            + (f"; {self.kind}s off as well: {', '.join(self.others)}" if self.others else "")
            + (f"; first inside: {self.inside}" if self.inside else "")
        )


@dataclass
class Comparison:
    """The result of a comparison: how many steps were compared, and their worst error ratios.

    ``within_float32`` says that a candidate in a narrow precision began as exactly as float32
    does, so that it cannot have been narrow.
    ``ties`` are decisions that rounding makes, which explain what would have been a divergence.
    ``judged`` counts the tensors that were compared. ``blind`` are those whose budget is more than
    a tenth of their largest value: rounding alone may change them so much that to be within budget
    shows nothing, so they do not count as compared. ``until`` says why fewer steps were compared
    than requested, if so. ``skipped`` is an update that is too small to be one.
    """

    candidate: str
    oracle: str
    precision: str
    steps: int = 0
    ratios: list[float] = field(default_factory=list)
    divergence: Divergence | None = None
    within_float32: bool = False
    until: str = ""
    ties: list[str] = field(default_factory=list)
    judged: int = 0
    blind: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def worst_ratio(self) -> float:
        """The largest error ratio seen; at most 1 if they agree."""
        return max(self.ratios, default=0.0)

    @property
    def agrees(self) -> bool:
        """Whether every tensor of every step stayed within its budget, and some say something."""
        return self.divergence is None and self.judged > 0 and not self.skipped

    @property
    def shows_nothing(self) -> bool:
        """Whether steps were compared, and rounding alone may explain whatever they have."""
        return not self.judged and bool(self.blind) and not self.skipped

    def __str__(self) -> str:
        head = f"{self.candidate} against {self.oracle} in {self.precision}"
        if self.divergence:
            near = f"; near ties, which do not explain it: {self.near_ties}" if self.ties else ""
            return f"{head} diverges at {self.divergence}{near}"
        if self.skipped:
            return f"{head} skips an update: {self.skipped}"
        if not self.steps:
            return f"{head}: neither makes a step, so nothing was compared"
        if not self.judged:
            return (
                f"{head}: rounding alone may change every tensor by more than a tenth of its "
                "value, so nothing was compared"
            )
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        until = f", {self.until}" if self.until else ""
        said = f"{head} agrees over {steps}{until} (worst error {self.worst_ratio:.3g} of budget)"
        if self.blind:
            said += f"; not compared, since their budget is over a tenth of them: {self.unjudged}"
        if self.ties:
            said += f"; given near ties, which rounding decides: {self.near_ties}"
        return said

    @property
    def unjudged(self) -> str:
        """The tensors that could not be judged, with the first few by name."""
        return _few(self.blind)

    @property
    def near_ties(self) -> str:
        """The near ties, the first few of them."""
        return _few(self.ties)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


GRADIENTS_ALONE = "since only loss and gradients are claimed to be the same"


def until_its_end(problem: Problem, steps: int) -> str:
    """That the run ends before so many steps, if it does."""
    return "with which the run ends" if problem.length < steps else ""


@dataclass(frozen=True)
class TieDraw:
    """One more draw; ``tie`` names the decision that falls to the other side in it, if one does."""

    run: Iterable[list[Observation]]
    tie: str = ""


@dataclass(frozen=True)
class Draws:
    """Runs that differ from the oracle by rounding to ``dtype``, and by nothing else."""

    runs: Iterable[Iterable[list[Observation]]] = ()
    dtype: torch.dtype = torch.float32


def compare_steps(
    comparison: Comparison,
    candidate: Iterable[list[Observation]],
    oracle: Iterable[list[Observation]],
    references: Draws,
    dtype: torch.dtype,
    kinds: tuple[Kind, ...] = ORDER,
    reserve: Iterable[Iterable[list[Observation]]] = (),
    ties: Callable[[int], Iterator[TieDraw]] = lambda step: iter(()),
) -> Comparison:
    """Compare a candidate's steps with the oracle's until they end or diverge.

    The budget of a tensor at a step depends on how far any of the ``references`` has been from the
    oracle in that tensor at any step so far, so that a lucky cancellation raises no alarm. Those of
    the ``reserve`` are made one by one, and only if the budget is exceeded without them; then those
    in which the near ``ties`` of a step fall to the other side. None can excuse what is not finite
    where the oracle is.
    """
    rounding = Rounding(references.dtype)
    witnesses = [iter(reference) for reference in references.runs]
    in_reserve = (TieDraw(run) for run in reserve)
    so_far: list[list[Observation]] = []
    for number, (found, expected) in enumerate(zip_longest(candidate, oracle), start=1):
        rounded = [next(witness, None) for witness in witnesses]
        if found is None or expected is None or any(seen is None for seen in rounded):
            raise ContractError(
                f"{comparison.candidate} and {comparison.oracle} do not make the same number of "
                f"steps: one of them ends before step {number}"
            )
        expected = [seen for seen in expected if seen.kind in kinds]
        so_far.append(expected)
        for reference in rounded:
            if reference is not None:
                rounding.widen(reference, expected)
        judged = judge(comparison, number, found, expected, rounding, dtype)
        more = chain(in_reserve, ties(number))
        while _exceeded(judged) and not _not_finite(judged):
            draw = next(more, None)
            if draw is None:
                break
            witness = iter(draw.run)
            for before, reference in zip(so_far, witness, strict=False):
                rounding.widen(reference, before)
            witnesses.append(witness)
            if draw.tie:
                comparison.ties.append(f"step {number}: {draw.tie}")
            judged = judge(comparison, number, found, expected, rounding, dtype)
        comparison.steps = number
        comparison.ratios.append(max((c.error_ratio for _, c in judged), default=0.0))
        blind = [seen for seen, close in judged if close.shows_nothing]
        comparison.judged += len(judged) - len(blind)
        comparison.blind += [f"{s.kind} {s.name}".strip() + f" of step {number}" for s in blind]
        if _exceeded(judged):
            comparison.divergence = _divergence(number, judged, comparison.ratios)
            return comparison
    return comparison


def _divergence(
    number: int, judged: list[tuple[Observation, Closeness]], ratios: list[float]
) -> Divergence:
    """What a step computes first, and of that the tensor that is furthest off."""
    over = [(seen, close) for seen, close in judged if not close.error_ratio <= 1]
    kind = min((seen.kind for seen, _ in over), key=ORDER.index)
    alike = [(seen, close) for seen, close in over if seen.kind == kind]
    # The first of those that are infinitely far off, or NaN.
    seen, close = max(alike, key=lambda pair: min(pair[1].error_ratio, math.inf))
    others = tuple(other.name for other, _ in alike if other.name != seen.name)
    return Divergence(number, kind, seen.name, close, tuple(ratios), others=others)


def require_finite(
    comparison: Comparison,
    candidate: Iterable[list[Observation]],
    oracle: Iterable[list[Observation]],
    kinds: tuple[Kind, ...] = ORDER,
) -> None:
    """Let a candidate diverge if, past the horizon, it is not finite where the oracle is."""
    for number, (found, expected) in enumerate(zip(candidate, oracle, strict=False), start=1):
        own = [seen for seen in expected if seen.kind in kinds]
        judged = judge(comparison, comparison.steps + number, found, own, Rounding(), torch.float32)
        wrong = [(seen, close) for seen, close in judged if math.isinf(close.error)]
        if wrong:
            step = comparison.steps + number
            comparison.divergence = _divergence(step, wrong, [*comparison.ratios, math.inf])
            return


def _not_finite(judged: list[tuple[Observation, Closeness]]) -> bool:
    """Whether a value is not finite where the oracle's is, which no rounding explains."""
    return any(math.isinf(close.error) for _, close in judged)


def _exceeded(judged: list[tuple[Observation, Closeness]]) -> bool:
    return any(not close.error_ratio <= 1 for _, close in judged)


class Rounding:
    """How far references have been from the oracle, tensor by tensor, in terms of one dtype."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.errors: dict[tuple[Kind, str], float] = {}

    def widen(self, reference: list[Observation], oracle: list[Observation]) -> None:
        """Take one more step of a reference into account.

        A reference that is not finite where the oracle is widens nothing: no budget is infinite.
        """
        values = {seen.key: seen.value for seen in reference}
        for seen in oracle:
            error = distance(values[seen.key].reshape(seen.value.shape), seen.value)
            if math.isfinite(error):
                self.errors[seen.key] = max(error, self.errors.get(seen.key, 0.0))


def judge(
    comparison: Comparison,
    number: int,
    candidate: list[Observation],
    oracle: list[Observation],
    rounding: Rounding,
    dtype: torch.dtype,
) -> list[tuple[Observation, Closeness]]:
    """Compare every tensor of one step with the oracle's.

    Raises :class:`ContractError` if the candidate lacks a tensor or has it in another shape.
    """
    found = {seen.key: seen.value for seen in candidate}
    judged = []
    for expected in oracle:
        what = f"{expected.kind} {expected.name}".strip()
        if expected.key not in found:
            there = ", ".join(s.name for s in candidate if s.kind == expected.kind) or "none"
            raise ContractError(
                f"step {number}: {comparison.candidate} shows no {what} to compare with "
                f"{comparison.oracle} (it shows {there}); yield it, or map its name with names="
            )
        value = found[expected.key]
        if not same_but_for_unit_axes(value.shape, expected.value.shape):
            raise ContractError(
                f"step {number}: {comparison.candidate} has {what} of shape {tuple(value.shape)} "
                f"where {comparison.oracle} has {tuple(expected.value.shape)}"
            )
        close = closeness(
            value.reshape(expected.value.shape),
            expected.value,
            rounding.errors.get(expected.key, 0.0),
            dtype,
            rounding.dtype,
        )
        judged.append((expected, close))
    return judged


def compare_in_ladder(
    reference: Variant,
    candidate: Variant,
    tier: Tier,
    steps: int,
    precision: str = "float32",
    execution: Execution = CPU,
) -> Comparison:
    """Run two variants of a ladder from one start over the same batches and compare each step.

    The batches are the reference's, and its float64 run on the CPU is the oracle. The start is the
    candidate's own: another document's start may lie where the two do not claim to agree, for
    example with wide weights that saturate a sigmoid. ``precision`` and ``execution`` apply to the
    candidate. Outputs are left out: a ladder may move the last activation into the loss.
    """
    problem = pose(reference, tier, dropout=False)
    from_ladder(candidate, to_ladder(reference, problem.values))  # raises if one is missing
    own_start = pose(candidate, tier).values
    problem = problem.but(values=from_ladder(reference, to_ladder(candidate, own_start)))
    own = problem.but(values=own_start, precision=precision, execution=execution, horizon=steps)
    only_gradients = "gradients" in (reference.ladder_depth, candidate.ladder_depth)
    count = 1 if only_gradients else steps
    until = GRADIENTS_ALONE if only_gradients else until_its_end(problem, steps)
    exact = problem.but(precision="float64")
    return compare_steps(
        Comparison(candidate.name, reference.name, precision, until=until),
        first_steps(candidate, own, count),
        first_steps(reference, exact, count),
        Draws(),
        getattr(torch, precision),
        ("loss", "gradient") if only_gradients else ("loss", "gradient", "parameter"),
        chain(
            (first_drawn(reference, exact, number, count) for number in range(FIRST)),
            drawn_in_reserve(reference, exact),
        ),
        partial(drawn_at_ties, reference, exact, torch.float32, None),
    )


def drawn_in_reserve(variant: Variant, problem: Problem) -> Iterator[Iterator[list[Observation]]]:
    """The draws that are made only for a candidate that exceeds its budget without them."""
    for number in range(FIRST, FIRST + FURTHER):
        yield drawn(variant, problem, number)


def drawn_at_ties(
    variant: Variant,
    problem: Problem,
    precision: torch.dtype,
    products_in: torch.dtype | None,
    step: int,
) -> Iterator[TieDraw]:
    """Draws in which one near tie of a step, or of one before, falls to the other side."""
    for tie in near_ties(variant, problem, step, precision, products_in):
        yield TieDraw(tie.fallen_otherwise(variant, problem, precision, products_in), str(tie))
