"""The document's facts, checked on the live model."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from refimpl.checking.checks import CannotRunError, Measurement, Subject, check, equal, true
from refimpl.checking.errata import attempt
from refimpl.contract import Erratum, Exact, Facts, Failure, Layer
from refimpl.records import files, of_models
from refimpl.requirements import missing
from refimpl.training.live_model import first_step, live_summary

Claim = TypeVar("Claim", Exact, Failure, Erratum)

WRITTEN_BY_HAND = 2**32
"""Seeds of documents are less than this. Those of the framework, also in values that train, are
hashes of 62 bits."""

PRINTED_DIGITS = 6
"""How many decimals the documents print in the size rows."""


def _states(fact: Callable[[Facts], object]) -> Callable[[Subject], bool]:
    """A condition for checks: the variant's facts state this one."""

    def applies(subject: Subject) -> bool:
        facts = subject.trained.facts
        return facts is not None and bool(fact(facts))

    return applies


def _facts(subject: Subject) -> Facts:
    facts = subject.trained.facts
    assert facts is not None, "the check applies only where there are facts"
    return facts


@check(
    "parameter-count",
    applies=_states(lambda f: f.parameters is not None),
    reading="the model has other layers, or a layer has other sizes, than the document's; layer-"
    "table shows which one",
)
def parameter_count(subject: Subject) -> Iterator[Measurement]:
    """Does the live model have the documented number of parameters, in total and trainable?"""
    facts = _facts(subject)
    step = first_step(subject.trained, subject.tier, subject.execution)
    yield equal("parameters", step.parameter_count, facts.parameters)
    trainable = facts.trainable
    if trainable is None and subject.example.contract > 1:
        trainable = facts.parameters
    if trainable is not None:
        yield equal("trainable parameters", step.trainable_count, trainable)


@check(
    "layer-table",
    applies=_states(lambda f: f.layers),
    reading="the first row that differs is the layer to look at; later rows often follow from it",
)
def layer_table(subject: Subject) -> Iterator[Measurement]:
    """Does the live model have every row of the documented layer table, in order?"""
    documented = _facts(subject).layers
    live = live_summary(subject.trained, subject.tier, subject.execution).layers
    yield equal("layers", [row.name for row in live], [row.name for row in documented])
    there = _by_call(live)
    for call, row in _by_call(documented).items():
        found = there.get(call)
        if found is None:
            message = f"{row.name} is in the document's table, but the model does not call it"
            yield true(f"{row.name} is called", False, message)
            continue
        yield equal(f"kind of {row.name}", found.kind, row.kind)
        yield equal(f"output of {row.name}", found.output, row.output)
        yield equal(f"parameters of {row.name}", found.parameters, row.parameters)


def _by_call(rows: Sequence[Layer]) -> dict[tuple[str, int], Layer]:
    """Rows by name, and by which call of that layer it is."""
    calls: Counter[str] = Counter()
    found = {}
    for row in rows:
        calls[row.name] += 1
        found[row.name, calls[row.name]] = row
    return found


@check(
    "state-dict-keys",
    applies=_states(lambda f: f.state_dict),
    reading="a layer has another name or order than in the document; checkpoints of the document "
    "would not load",
)
def state_dict_keys(subject: Subject) -> Iterator[Measurement]:
    """Does the state dict have the keys that the document prints, in order?"""
    step = first_step(subject.trained, subject.tier, subject.execution)
    yield equal("state_dict keys", step.state_dict_keys, _facts(subject).state_dict)


@check(
    "summary-sizes",
    applies=_states(lambda f: f.sizes),
    reading="parameters or outputs of a layer have other shapes; layer-table shows which",
)
def summary_sizes(subject: Subject) -> Iterator[Measurement]:
    """Do the size rows under the layer table match, to the printed digits?"""
    documented = _facts(subject).sizes
    live = live_summary(subject.trained, subject.tier, subject.execution).sizes
    for row in ("input", "forward_backward", "parameters", "total"):
        found, expected = getattr(live, row), getattr(documented, row)
        yield equal(f"{row} (MB)", f"{found:.{PRINTED_DIGITS}f}", f"{expected:.{PRINTED_DIGITS}f}")


@check(
    "output-shape",
    applies=_states(lambda f: f.output),
    reading="the model ends in another shape, or the target does not fit it: a loss then compares "
    "every pair of rows",
)
def output_shape(subject: Subject) -> Iterator[Measurement]:
    """Does the output of a documented batch have the documented shape, and does the target fit it?

    If the target has as many numbers in another shape, such as (N,) for (N, 1), the loss compares
    every pair.
    """
    step = first_step(subject.trained, subject.tier, subject.execution)
    yield equal("output shape", step.output_shape, _facts(subject).output)
    target = step.step.target
    one = isinstance(target, torch.Tensor)  # of several targets, none is the output's own
    if one and target.numel() == math.prod(step.output_shape):
        yield equal("target shape", tuple(target.shape), step.output_shape)


def _recorded_model(subject: Subject) -> Any:
    own = files.recorded("models", subject.example.name, subject.example)
    return own.get(subject.trained.name)


@check(
    "layers-as-recorded",
    on_cpu=True,
    applies=lambda subject: subject.trained.trains and _recorded_model(subject) is not None,
    reading="a layer was constructed with another argument, or another function is called in its "
    "place: a rate, padding, eps or activation that no shape shows; if that is meant, refimpl "
    "record NAME --because REASON keeps the new one, and the reason",
)
def layers_as_recorded(subject: Subject) -> Iterator[Measurement]:
    """Is each layer constructed with the arguments that are committed, and each call the same?"""
    recorded = _recorded_model(subject)
    found = of_models.comparable(of_models.record(subject.trained, "stand-in"), recorded)
    moved = list(files.differences(found, recorded))
    name = subject.trained.name
    yield true(f"layers of {name}", not moved, f"{name} moved: {files.shown(moved)}")


@check(
    "exact-values",
    about="example",
    on_cpu=True,
    applies=lambda s: bool(s.example.values),
    reading="compute the value by hand; if torch is right and the document is not, it is an "
    "erratum of the plugin",
)
def exact_values(subject: Subject) -> Iterator[Measurement]:
    """Is every exact value of the document reproduced, to the printed digits?"""
    for value in possible_here(subject.example.values):
        with _seed_kept(value.name) as faults:
            measured = _exact(value)
        yield from (measured, *faults)


def possible_here(claims: Sequence[Claim]) -> list[Claim]:
    """The claims that can be tried here; if there are none, the check cannot run."""
    here = [claim for claim in claims if missing(claim.needs) is None]
    if not here:
        raise CannotRunError(missing(claims[0].needs))
    return here


@contextmanager
def _seed_kept(name: str) -> Iterator[list[Measurement]]:
    """Says whether torch is left seeded: whoever draws next would get the same numbers each time.

    To draw is fair; the state of the generators is put back after every check.
    """
    torch.manual_seed(WRITTEN_BY_HAND)
    faults: list[Measurement] = []
    yield faults
    if (left := torch.initial_seed()) < WRITTEN_BY_HAND:
        message = f"{name} leaves torch's generator seeded with {left}; use torch.random.fork_rng"
        faults.append(true(f"the seed after {name}", False, message))


def _exact(value: Exact) -> Measurement:
    measured = value.compute()
    if isinstance(measured, torch.Tensor):
        measured = measured.detach().cpu().numpy()
    expected = value.expected
    if isinstance(expected, torch.Tensor):
        expected = expected.numpy()
    holds = _same(measured, expected, value.digits)
    shown = measured.tolist() if isinstance(measured, np.ndarray) else measured
    limit = f"= {expected}" + (f" to {value.digits} digits" if value.digits is not None else "")
    message = f"{value.name} is {shown}, expected {limit[2:]}"
    if not holds and str(shown) == str(expected):
        message = f"{value.name} is {shown!r}, expected {expected!r}: the types differ"
    return Measurement(value.name, shown, limit, holds, message)


def _same(measured: Any, expected: Any, digits: int | None) -> bool:
    """Whether they are equal; floats to half a unit of the last printed digit, or to rounding."""
    if isinstance(expected, (str, bool, type(None))):
        return type(measured) is type(expected) and bool(measured == expected)
    try:
        found, wanted = np.asarray(measured), np.asarray(expected)
    except ValueError:  # ragged: lists of lists of different lengths
        return bool(measured == expected)
    if found.shape != wanted.shape:
        return False
    if wanted.dtype.kind not in "fc":
        return bool((found == wanted).all())
    if digits is not None:
        half_a_digit = 0.5 * 10.0**-digits
        return bool(np.allclose(found, wanted, rtol=0, atol=half_a_digit * 1.0001, equal_nan=True))
    eps = 1e-6 if found.dtype in (np.float32, np.complex64) else 1e-12
    return bool(np.allclose(found, wanted, rtol=eps, atol=eps, equal_nan=True))


@check(
    "documented-failures",
    about="example",
    on_cpu=True,
    applies=lambda s: bool(s.example.failures),
    reading="what the document warns of works now, or fails in another way: an erratum of the "
    "plugin",
)
def documented_failures(subject: Subject) -> Iterator[Measurement]:
    """Do the mistakes that the document warns of still fail as documented?"""
    for failure in possible_here(subject.example.failures):
        with _seed_kept(failure.name) as faults:
            measured = _fails(failure)
        yield from (measured, *faults)


def _fails(failure: Failure) -> Measurement:
    what = f"{failure.name} raises {failure.raises.__name__}"
    try:
        failure.attempt()
    except failure.raises as error:
        found = bool(re.search(failure.match, str(error)))
        return true(what, found, f"{what}, but its message lacks {failure.match!r}: {error}")
    except Exception as error:
        return true(what, False, f"{failure.name} raises {type(error).__name__} instead: {error}")
    return true(what, False, f"{failure.name} no longer fails; expected {failure.raises.__name__}")


@check(
    "errata",
    about="example",
    on_cpu=True,
    applies=lambda s: bool(s.example.errata),
    reading="a statement holds again, or stopped to hold earlier than the plugin says: mend "
    "since=, or report it to torch",
)
def errata(subject: Subject) -> Iterator[Measurement]:
    """Is the document wrong on exactly the versions that each erratum names?"""
    for erratum in possible_here(subject.example.errata):
        with _seed_kept(erratum.name) as faults:
            line = attempt(subject.example.name, erratum)
        is_, should = ("right" if right else "wrong" for right in (line.holds, line.expected))
        message = f"{line.name}: the document is {is_} here, expected {should}"
        yield Measurement(
            line.name, is_, f"= {should}", line.as_expected,
            f"{message} ({line.since}; found {line.found})",
        )  # fmt: skip
        yield from faults
