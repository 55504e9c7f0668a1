"""Exact values: computed by the calls, and from the numbers, that they claim to test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from refimpl.checking import claims
from refimpl.checking.checks import Measurement, Subject, check, true
from refimpl.records import called, files, of_values, stated


def _recorded(subject: Subject) -> dict[str, Any]:
    return files.recorded("values", subject.example.name, subject.example)


@check(
    "values-computed-as-recorded",
    about="example",
    on_cpu=True,
    applies=lambda s: (
        bool(s.example.values or s.example.failures or s.example.errata) and bool(_recorded(s))
    ),
    reading="the value is computed by other functions of torch, or from other numbers, than it "
    "was: by the plugin, so that it may be right and test nothing, or, if the plugin is as it was, "
    "within torch. If that is meant, refimpl record NAME --kind values --because REASON keeps the "
    "new calls, and the reason",
)
def values_computed_as_recorded(subject: Subject) -> Iterator[Measurement]:
    """Is each exact value, failure and erratum computed by the recorded calls and numbers?"""
    recorded = _recorded(subject)
    for name, value in of_values.possible(subject.example):
        if name not in recorded:
            hint = f"refimpl record {subject.example.name} --kind values"
            yield true(name, False, f"{name} is not recorded; run: {hint}")
            continue
        moved = of_values.moved(value, recorded[name])
        yield true(name, not moved, f"{name} is computed otherwise than recorded: {moved}")


def _stated(subject: Subject) -> dict[str, tuple[str, ...]]:
    """By the key of a value, failure or erratum, what its claims say that it calls."""
    keys = {"exact-values": "{}", "documented-failures": "failure: {}", "errata": "erratum: {}"}
    found: dict[str, tuple[str, ...]] = {}
    for claim in claims.beside(subject.example).entries:
        if claim.calls and claim.check in keys:
            key = keys[claim.check].format(claim.what)
            found[key] = (*found.get(key, ()), *claim.calls)
    return found


@check(
    "values-call-what-they-claim",
    about="example",
    on_cpu=True,
    applies=lambda s: bool(_stated(s)),
    reading="the plugin's value is not computed by the function that the document shows, or does "
    "not depend on what it gives, so that it tests something else; the functions are named by the "
    "claim, in the plugin's ledger",
)
def values_call_what_they_claim(subject: Subject) -> Iterator[Measurement]:
    """Does each value call the functions that its claim names, and depend on what they give?"""
    possible = dict(of_values.possible(subject.example))
    for key, names in _stated(subject).items():
        if key not in possible:
            continue
        seen = called.called(possible[key], names)
        lacking = [
            name for name in names if not (seen.made(name) if "(" in name else name in seen.names)
        ]
        functions = dict.fromkeys(map(stated.function_of, names))
        idle = [
            *called.unmoved(possible[key], [f for f in functions if f in seen.of_torch], seen),
            *called.idle_calls(possible[key], seen),
        ]
        said = [f"does not call {', '.join(lacking)}"] if lacking else []
        said += [f"is the same whatever {', '.join(idle)} gives"] if idle else []
        yield true(key, not said, f"{key} {' and '.join(said)}")
