"""Findings: failures grouped by what they have in common, each with one plain sentence.

Failures have one cause where a check that tries one thing of torch alone says that it is wrong, or
where their variants share a layer, loss, optimizer or function that no variant which passes the
same checks has. What is left is grouped by example, check and place.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import TypeAlias

from refimpl.checking.checks import VERDICTS, Measurement, Place, Result

Subject: TypeAlias = tuple[str, str]
"""Example and variant."""

KERNEL = "aten::"

KINDS = ("output", "loss", "gradient", "parameter", "buffer")
"""What a step computes, in its order."""

TO_BLAME = {
    "output": ("layer", "function", "loss", "optimizer"),
    "loss": ("loss", "function", "layer", "optimizer"),
    "gradient": ("layer", "loss", "function", "optimizer"),
    "parameter": ("optimizer", "layer", "function", "loss"),
    "buffer": ("layer", "function", "optimizer", "loss"),
    "": ("layer", "loss", "optimizer", "function", "metric"),
}
"""The ingredient to name first, by the kind of tensor in which a fault is first seen."""

SAID = {"parameter": "update"}
"""How a kind is called in a sentence, where it has another name."""

DOES = {
    "output": "gives another output",
    "loss": "gives another loss",
    "gradient": "gives another gradient",
    "parameter": "makes another update",
    "buffer": "keeps another buffer",
}

OF_A_KIND = 0.8
"""An ingredient is named if at least this share of the variants that have it fail."""

FAR = 0.5
"""Off by so much of itself, one number does not show a factor."""

ALIKE = 0.05
"""How far, relatively, the errors of several variants may differ and still be one factor."""

LONGEST = 200

ADVICE_SHOWN = 2

CLOSER = {
    "golden-trajectory": "refimpl golden {example}",
    "same-on-every-execution": "refimpl compare {example} {variant} --execution {execution}",
    "stays-in-calibrated-band": "refimpl run {example} --variant {variant} --plot curves.png",
    "reaches-documented-figures": "refimpl run {example} --variant {variant} --plot curves.png",
    "layer-table": "refimpl info {example} --variant {variant}",
    "errata": "refimpl errata {example}",
}
"""The command that shows more of what a check compares."""

EXPORT = "refimpl export {example} --variant {variant} --script"
"""The command that writes a program without refimpl, which whoever is to mend torch can run."""

REPRODUCE = "refimpl reproduce {example} {variant} --execution {execution}"
"""The command that writes one wrong call as a script that needs torch and NumPy alone."""

GONE = re.compile(r"AttributeError: module '(torch[\w.]*)' has no attribute '(\w+)'")
"""What Python says of a function of torch that was removed."""

EXPECT = "list it in a file for --expected-failures, with the reason (docs/expected-failures.md)"

REFERENCE = "https://github.com/refimpl/refimpl/blob/main/docs/reference.md#how-to-read-a-failure"


@dataclass(frozen=True)
class Finding:
    """One cause, as far as it is known: what is wrong, where it was first seen, which checks.

    ``sentence`` says it in words; ``figure`` is the reason that the first of its checks gives.
    """

    sentence: str
    figure: str
    results: tuple[Result, ...]
    first_seen: str = ""

    @property
    def examples(self) -> tuple[str, ...]:
        """The examples it was found in."""
        return tuple(sorted({result.example for result in self.results}))

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of the checks that show it."""
        return tuple(dict.fromkeys(result.check for result in self.results))

    @property
    def by_check(self) -> str:
        """``golden-trajectory (5), output-shape``: its checks, and how often each."""
        counts = Counter(result.check for result in self.results)
        return ", ".join(f"{c} ({n})" if n > 1 else c for c, n in counts.most_common())

    @property
    def extent(self) -> str:
        """``9 checks in ring-dnn, titanic-dnn; first seen in the loss of step 1``."""
        count = len(self.results)
        where = f"{count} check{'' if count == 1 else 's'} in {listed(self.examples)}"
        return f"{where}; first seen in {self.first_seen}" if self.first_seen else where


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names with commas, the first of them if there are many."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def findings(results: Iterable[Result]) -> tuple[Finding, ...]:
    """What failed in one run, cause by cause, the widest first."""
    every = tuple(results)
    left = [result for result in every if result.outcome == "failed"]
    found: list[Finding] = []
    for grouped in (_by_isolated, _by_ingredient, _by_place):
        for finding in grouped(left, every):
            found.append(finding)
            left = [result for result in left if result not in finding.results]
    return tuple(sorted(found, key=lambda finding: (-len(finding.results), finding.sentence)))


def next_steps(finding: Finding, plugins: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """What to do about a finding: a word, and a command or a piece of advice.

    ``plugins`` are those that the run was given; the commands name them too.
    """
    advised: dict[str, str] = {}
    if gone := GONE.search(finding.figure or finding.sentence):
        example, check = finding.examples[0], finding.checks[0]
        yield (
            "read",
            f"torch has no {gone[1]}.{gone[2]}: mend what uses it, or list it as an erratum",
        )
        yield "since when", f"refimpl bisect {example} --check {check} --from OLD --to NEW"
    for result in finding.results if not gone else ():
        if result.advice:
            advised.setdefault(result.check, result.advice)
    for name, advice in list(advised.items())[:ADVICE_SHOWN]:
        yield "read", f"{name}: {advice}"
    closer = (_command(CLOSER[r.check], r, plugins) for r in finding.results if r.check in CLOSER)
    yield from (("look closer", command) for command in islice(closer, 1))
    trains = [r for r in finding.results if r.uses and r.tier == "stand-in"]
    of_kernel = [
        r for r in finding.results if r.variant != "-" and any(map(_is_kernel, _isolated(r)))
    ]
    command, shown = (REPRODUCE, of_kernel) if of_kernel else (EXPORT, trains)
    yield from (("to report it", _command(command, result, plugins)) for result in shown[:1])
    if any(result.variant != "-" for result in finding.results):
        yield "if it is known", EXPECT
    yield "more on how to read it", REFERENCE


def _command(template: str, result: Result, plugins: Sequence[str]) -> str:
    names = (result.example, result.variant, result.execution)
    example, variant, execution = map(shlex.quote, names)
    command = template.format(example=example, variant=variant, execution=execution)
    given = [word for plugin in plugins for word in ("--plugin", plugin)]
    return f"{command} {shlex.join(given)}" if given else command


# --- one thing of torch, tried alone -------------------------------------------------------------


def _by_isolated(failed: Sequence[Result], every: Sequence[Result]) -> Iterator[Finding]:
    """Failures of things of torch that were tried alone, with what fails besides where they are."""
    uses = _uses(every)
    left = list(failed)
    while accused := Counter(name for result in left for name in _isolated(result)):
        name = min(accused, key=lambda name: (_depth(name), -accused[name], name))
        showing = [r for r in left if _plain_name(name) in map(_plain_name, _isolated(r))]
        # A probe of the ends calls what its variant need not call; a kernel is judged where it is.
        subjects = {_subject(r) for r in showing if any(map(_is_kernel, _isolated(r)))}
        subjects |= {s for s, own in uses.items() if _plain_name(name) in map(_plain_name, own)}
        besides = [
            r for r in left
            if r not in showing and _subject(r) in subjects
            and all(_depth(other) > _depth(name) for other in _isolated(r))
        ]  # fmt: skip
        who = f"the kernel {name}" if _is_kernel(name) else name
        own = [*showing, *besides]
        factor = _factor(showing) or _factor(own)
        yield _finding(f"{who} is {factor or 'wrong'}{_mode(showing)}", own, showing)
        left = [result for result in left if result not in own]


def _isolated(result: Result) -> list[str]:
    """The things of torch that it says are wrong by themselves."""
    return [m.isolates for m in _wrong(result) if m.isolates]


def _depth(name: str) -> int:
    """What calls something wrong is wrong too: kernels come first, then functions, then classes."""
    return 0 if _is_kernel(name) else 1 if name.islower() else 2


def _is_kernel(name: str) -> bool:
    return name.startswith(KERNEL)


def _plain_name(name: str) -> str:
    """``relu`` for ``aten::relu_.out``, ``function:relu`` and ``layer:ReLU``."""
    bare = name.removeprefix(KERNEL).rpartition(":")[2].partition(".")[0]
    return bare.strip("_").lower()


# --- one ingredient ------------------------------------------------------------------------------


def _by_ingredient(failed: Sequence[Result], every: Sequence[Result]) -> Iterator[Finding]:
    """Failures in variants that share an ingredient which the passing ones lack."""
    uses = _uses(every)
    broken = {_subject(r) for r in every if r.outcome == "failed"}
    left = [r for r in failed if uses.get(_subject(r))]
    while left:
        own = _best_shared(left, every, uses, broken)
        if own is None:
            return
        names, results = own
        yield _named(names, results)
        left = [result for result in left if result not in results]


def _uses(every: Iterable[Result]) -> Mapping[Subject, set[str]]:
    found: dict[Subject, set[str]] = defaultdict(set)
    for result in every:
        found[_subject(result)].update(result.uses)
    return found


def _best_shared(
    left: Sequence[Result],
    every: Sequence[Result],
    uses: Mapping[Subject, set[str]],
    broken: Collection[Subject],
) -> tuple[list[str], list[Result]] | None:
    """The ingredients that explain most failures, and these failures; ``None`` if none does."""
    subjects = {_subject(result) for result in left}
    best: tuple[tuple[int, int], list[str], set[Subject]] | None = None
    for ingredient in sorted({name for subject in subjects for name in uses[subject]}):
        covered = {subject for subject in subjects if ingredient in uses[subject]}
        if len(covered) < 2:
            continue
        own = [result for result in left if _subject(result) in covered]
        checks = {result.check for result in own}
        sound = {
            _subject(r)
            for r in every
            if r.outcome == "passed" and r.check in checks and ingredient in uses[_subject(r)]
        } - set(broken)
        if len(covered) < OF_A_KIND * len(covered | sound):
            continue
        kind, _, name = ingredient.partition(":")
        order = TO_BLAME[_first_kind(own)]
        rank = (-len(covered), order.index(kind) if kind in order else len(order))
        if best is None or rank < best[0]:
            best = (rank, [name], covered)
        elif rank == best[0] and covered == best[2]:
            best[1].append(name)
    if best is None:
        return None
    return best[1], [result for result in left if _subject(result) in best[2]]


def _named(names: Sequence[str], results: Sequence[Result]) -> Finding:
    """The finding that one of these ingredients is wrong."""
    who = " or ".join(names)
    kind = _first_kind(results)
    factor = _factor(results)
    if factor:
        says = f"{who} is {factor}{_mode(results)}"
    elif kind:
        says = f"{who} {DOES[kind]}{_mode(results)}"
    else:
        says = f"every variant with {who} fails{_mode(results)}"
    return _finding(says, results)


def _factor(results: Iterable[Result]) -> str:
    """``1e-4 too large``, if what was called alone, or is wrong first, is off by one factor."""
    known = list(results)
    alone = [m.place for r in known for m in _wrong(r) if m.place is not None and not m.place.step]
    first = alone or _first_places(known)
    ratios = [p.found / p.expected - 1 for p in first if p.expected and p.kind in KINDS[:2]]
    if not ratios:
        return ""
    if not all(map(isfinite, ratios)):
        return "not finite"
    middle = sorted(ratios)[len(ratios) // 2]
    if not middle or any(abs(ratio - middle) > ALIKE * abs(middle) for ratio in ratios):
        return ""
    size = abs(middle)
    programs = {(result.example, result.variant) for result in known}
    if size >= FAR and len({*ratios}) < 2 and len(programs) < 2:
        return ""  # one number far off is no factor
    if size >= 1:
        return f"{middle + 1:.2g} times what it should be"
    by = f"{size:.1%}" if size >= 0.0095 else _power(size)
    return f"{by} too {'large' if middle > 0 else 'small'}"


def _power(size: float) -> str:
    """``1e-4`` for 0.0001."""
    digits, _, exponent = f"{size:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


# --- the rest ------------------------------------------------------------------------------------


def _by_place(failed: Sequence[Result], every: Sequence[Result]) -> Iterator[Finding]:
    """Failures of one example whose steps diverge; else of one example in one check."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in failed:
        about = "its steps" if _place(result) else result.check
        groups[result.example, about].append(result)
    for own in groups.values():
        yield _finding(_plain(own), own)


def _plain(results: Sequence[Result]) -> str:
    """What is wrong, in words."""
    first = next(iter(_first_places(results)), None)
    if first is not None:
        what = SAID.get(first.kind, first.kind)
        of = f" of `{first.name}`" if first.name else ""
        return f"the {what}{of} is wrong{_mode(results)}"
    wrong = _wrong(results[0])
    text = (wrong[0].message if wrong else "") or results[0].reason or "failed"
    head, _, _ = text.partition(": ")
    if len(head.split()) >= 3 and results[0].check not in VERDICTS:
        text = head
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _finding(
    sentence: str, results: Sequence[Result], showing: Sequence[Result] | None = None
) -> Finding:
    """A finding, the checks that show it best first."""
    first = next(iter(_first_places(results)), None)
    ordered = sorted(
        results, key=lambda r: (r not in (showing or ()), _order(r), r.execution != "cpu", r.id)
    )
    seen = f"the {SAID.get(first.kind, first.kind)} of step {first.step}" if first else ""
    inside = f", in {first.inside}" if first and first.inside else ""
    figure = ordered[0].reason if ordered[0].reason != sentence else ""
    return Finding(sentence, figure, tuple(ordered), seen + inside)


# --- what a result says --------------------------------------------------------------------------


def _subject(result: Result) -> Subject:
    return result.example, result.variant


def _wrong(result: Result) -> list[Measurement]:
    return [m for m in result.measurements if not m.holds]


def _place(result: Result) -> Place | None:
    """Where its steps first diverge, if it compared steps."""
    return next((m.place for m in _wrong(result) if m.place is not None and m.place.step), None)


def _order(result: Result) -> tuple[int, int]:
    place = _place(result)
    return (place.step, KINDS.index(place.kind)) if place else (10**9, 0)


def _first_places(results: Iterable[Result]) -> list[Place]:
    """The places in the earliest step, and of the kind that is computed first in it."""
    places = [place for result in results if (place := _place(result)) is not None]
    first = min(((p.step, KINDS.index(p.kind)) for p in places), default=None)
    return [p for p in places if (p.step, KINDS.index(p.kind)) == first]


def _first_kind(results: Iterable[Result]) -> str:
    """The kind of tensor that most of these failures are first seen in."""
    kinds = Counter(place.kind for result in results if (place := _place(result)) is not None)
    return max(kinds, key=lambda kind: (kinds[kind], -KINDS.index(kind)), default="")


def _mode(results: Iterable[Result]) -> str:
    """``in evaluation``, if everything that shows it was measured in that mode."""
    shown = [f"{m.what} {m.where} {m.message}" for r in results for m in _wrong(r)]
    return " in evaluation" if shown and all("evaluation" in text for text in shown) else ""
