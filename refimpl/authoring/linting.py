"""What an author should know about an example before running the suite.

The stated facts are compared with the live models, and advice gives the source that they should
read. The variants are searched for what the suite shows only by its consequences: draws from
global generators, steps that are missing or show little.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from refimpl.compatibility import CHANGES, NEWEST
from refimpl.contract import Example, Facts, Sizes, Step, Variant
from refimpl.data import DataSet, Tier, arrays_of, made_by
from refimpl.errors import one_line
from refimpl.loading.refusal import from_here
from refimpl.records.varied import shows_something
from refimpl.requirements import missing, missing_data
from refimpl.training.global_rng import draws_from, start_draws_from, steps_draw_from
from refimpl.training.live_model import first_step, live_summary
from refimpl.training.loop import drive
from refimpl.training.problem import pose, start_values
from refimpl.training.replaying import Replays
from refimpl.whereabouts import describe_error

DIGITS = 6
"""The number of decimals to which the documents print sizes."""

TODO = "TODO"

QUICK = 0.25
"""How many seconds a value may take that is computed again and again with other numbers."""

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Advice:
    """Something to change, or to know. ``variant`` is ``""`` if it is about the example."""

    level: Level
    variant: str
    text: str


@dataclass(frozen=True)
class Linted:
    """The result. ``facts`` are what each variant's facts should read, by variant name.

    ``eager`` says of each variant whose steps a GPU does not replay as one graph why not.
    """

    advice: tuple[Advice, ...]
    facts: dict[str, Facts]
    eager: dict[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether there is nothing on which the suite would fail."""
        return all(advice.level != "error" for advice in self.advice)


def lint(
    example: Example,
    tier: Tier = "stand-in",
    only: str | None = None,
    source: Path | None = None,
    every_fact: bool = False,
) -> Linted:
    """Lint an example, or ``only`` one of its variants, on the CPU.

    ``source`` is the plugin's file, which is searched for unfinished parts. The facts returned are
    the stated ones, corrected; ``every_fact`` adds those that the document leaves open.
    An exception in the plugin becomes an error among the advice.
    """
    variants = [example.variant(only)] if only else list(example.variants)
    advice = [*_contract(example), *_left_to_do(example, source), *_data_sets(example, variants)]
    if only is None:
        advice += _values(example)
    facts: dict[str, Facts] = {}
    eager: dict[str, str] = {}
    for variant in variants:
        try:
            lacking = missing(variant.needs) or (variant.data and missing_data(variant.data, tier))
            if lacking:
                advice.append(Advice("note", variant.name, f"not checked: {lacking}"))
                continue
            measured = measured_facts(variant, tier)
            stated = variant.facts or Facts()
            facts[variant.name] = measured if every_fact else as_stated(stated, measured)
            advice += _about(variant, _wrong_facts(stated, facts[variant.name]))
            for find in (_steps, _what_steps_show, _generators):
                advice += _about(variant, find(variant, tier))
            if why := _not_replayed(variant, tier):
                eager[variant.name] = why
        except Exception as error:
            text = _text_of(error, example)
            if not any(text in each.text for each in advice if not each.variant):
                advice.append(Advice("error", variant.name, text))
    return Linted(tuple(advice), facts, eager)


Found: TypeAlias = Iterator[tuple[Level, str]]


def _about(variant: Variant, found: Found) -> list[Advice]:
    return [Advice(level, variant.name, text) for level, text in found]


def _text_of(error: Exception, example: Example) -> str:
    known = type(error).__module__.startswith("refimpl.")
    return one_line(error) if known else describe_error(example, error)


# --- facts ---------------------------------------------------------------------------------------


def measured_facts(variant: Variant, tier: Tier) -> Facts:
    """Everything that a variant's facts may state of its model, measured; the rest as stated.

    Raises :class:`~refimpl.errors.ContractError` if the variant never yields.
    """
    found = first_step(variant, tier)
    measured = replace(
        variant.facts or Facts(),
        parameters=found.parameter_count,
        trainable=found.trainable_count,
        state_dict=found.state_dict_keys,
        output=found.output_shape if found.step.output is not None else None,
    )
    if found.step.module is None:
        return measured
    summary = live_summary(variant, tier)
    sizes = {f.name: round(getattr(summary.sizes, f.name), DIGITS) for f in fields(Sizes)}
    # A module that is its own only layer has no name for a table.
    layers = tuple(layer for layer in summary.layers if layer.name)
    return replace(measured, layers=layers, sizes=Sizes(**sizes))


def as_stated(stated: Facts, measured: Facts) -> Facts:
    """What ``stated`` should read: each of its facts as measured, and always the parameters."""
    if stated == Facts():
        return measured
    left_open: dict[str, Any] = {
        f.name: f.default
        for f in fields(Facts)
        if f.name != "parameters" and getattr(stated, f.name) in (None, ())
    }
    return replace(measured, **left_open)


def _wrong_facts(stated: Facts, should: Facts) -> Found:
    for name in (f.name for f in fields(Facts)):
        is_, be = getattr(stated, name), getattr(should, name)
        if is_ in (None, ()) or is_ == be:
            continue
        if name == "layers":
            yield from _wrong_layers(is_, be)
        else:
            yield "error", f"{name}={is_} should read {name}={be}"
    if stated.parameters is None:
        yield "error", f"states no parameters=; the model has {should.parameters}"


def _wrong_layers(stated: tuple[Any, ...], should: tuple[Any, ...]) -> Found:
    for number, (is_, be) in enumerate(zip(stated, should, strict=False), start=1):
        if is_ != be:
            yield "error", f"row {number} of layers should read {be}"
    if len(stated) != len(should):
        yield "error", f"layers has {len(stated)} rows, the live model {len(should)}"


# --- steps ---------------------------------------------------------------------------------------


def _steps(variant: Variant, tier: Tier) -> Found:
    """Whether an epoch has one step for each of its batches."""
    assert variant.protocol is not None, "a variant without a protocol is refused"
    one_epoch = replace(variant.protocol, epochs=1, stand_in_epochs=None)
    problem = pose(variant, tier, seed=0).but(protocol=one_epoch)
    expected = problem.steps_per_epoch
    steps = (step for step in drive(variant, problem) if isinstance(step, Step))
    made = sum(1 for _ in islice(steps, expected + 1))
    if made < expected:
        text = f"makes {made} of the {expected} steps of an epoch"
        yield "error", f"{text}; yield one Step after each update, for each of problem.batches()"
    elif made > expected:
        text = f"does not stop after the {expected} steps of a protocol with one epoch"
        yield "error", f"{text}; take the epochs from problem.epochs() or problem.batches()"


def _what_steps_show(variant: Variant, tier: Tier) -> Found:
    """Whether a step yields everything that the checks use."""
    found = first_step(variant, tier)
    step = found.step
    for name in ("output", "target", "model"):
        if getattr(step, name) is None:
            yield "warning", f"yields no {name}=, so fewer checks can be made"
    if isinstance(step.output, torch.Tensor) and isinstance(step.target, torch.Tensor):
        output, target = tuple(step.output.shape), tuple(step.target.shape)
        if output != target and step.output.numel() == step.target.numel():
            text = f"has outputs {output} but targets {target}"
            yield "warning", f"{text}; a loss of the two would compare every pair"
    own, start = ", ".join(found.parameters), ", ".join(start_values(variant, 0))
    if set(own.split(", ")) != set(start.split(", ")):
        text = f"starts from {start} but yields the parameters {own}"
        yield "error", f"{text}; give both the same names"


def _not_replayed(variant: Variant, tier: Tier) -> str:
    """Why its steps are not replayed on a GPU, as far as it can be known without one."""
    if variant.numpy:
        return ""
    replays = Replays(None)
    next(drive(variant, pose(variant, tier, seed=0).but(replays=replays)), None)
    return replays.why_not


# --- generators ----------------------------------------------------------------------------------


def _generators(variant: Variant, tier: Tier) -> Found:
    """Whether start or steps depend on a generator that the problem's seed does not control."""
    hint = "draw from the generator that start= is given"
    for name in start_draws_from(variant):
        yield "error", f"its start is drawn from {name}; {hint}"
    hint = "take order and start from the problem, and leave dropout to nn.Dropout"
    for name in steps_draw_from(variant, tier):
        yield "error", f"its steps draw from {name}; {hint}"


def _data_sets(example: Example, variants: list[Variant]) -> Iterator[Advice]:
    """Whether a stand-in differs between processes."""
    sets = {id(v.data): v.data for v in variants if v.data is not None and not missing(v.needs)}
    for data in sets.values():
        try:
            for name in draws_from(lambda data=data: _rows(data)):  # type: ignore[misc]
                text = f"data set {data.name!r} is drawn from {name}; use refimpl.philox"
                yield Advice("warning", "", text)
        except Exception as error:
            yield Advice("error", "", f"data set {data.name!r}: {_text_of(error, example)}")


def _rows(data: DataSet) -> list[NDArray[Any]]:
    if data.stand_in is None:
        return []
    splits = made_by(data.stand_in, data.stand_in())
    rows = [part for part in (splits.train, splits.valid) if part is not None]
    return [np.asarray(array) for part in rows for array in arrays_of(part)]


def _values(example: Example) -> Iterator[Advice]:
    """Values that stay the same whatever is changed, and may test nothing."""
    slow = []
    for value in example.values:
        if missing(value.needs):
            continue
        begun = time.perf_counter()
        try:
            value.compute()
        except Exception as error:
            yield Advice("error", "", f"value {value.name!r}: {_text_of(error, example)}")
            continue
        if time.perf_counter() - begun > QUICK:
            slow.append(value.name)
        elif not shows_something(value):
            text = (
                f"value {value.name!r} tests nothing, unless it is about names or structure: it "
                "stays the same whichever number in its code is changed, and whatever the "
                "functions give that it calls"
            )
            yield Advice("note", "", text)
    if slow:
        text = f"values that take too long to be varied: {', '.join(slow)}"
        yield Advice("note", "", text)


# --- what is left to do --------------------------------------------------------------------------


def _contract(example: Example) -> Iterator[Advice]:
    if example.contract < NEWEST:
        changes = "; ".join(CHANGES[n] for n in range(example.contract, NEWEST))
        text = f"it is written for contract {example.contract}, which runs but is deprecated; "
        yield Advice("warning", "", f"{text}to state contract={NEWEST}: {changes}")


def _left_to_do(example: Example, source: Path | None) -> Iterator[Advice]:
    text = source.read_text(encoding="utf-8") if source is not None else ""
    lines = [str(n) for n, line in enumerate(text.splitlines(), start=1) if TODO in line]
    if source is not None and lines:
        where = f"line{'s' if len(lines) > 1 else ''} {', '.join(lines)} of {from_here(source)}"
        yield Advice("warning", "", f"TODO remains: {where}")
    elif any(TODO in getattr(example, field) for field in ("title", "document", "section")):
        yield Advice("warning", "", "its title, document or section is still to be filled in")
