"""Exact values: computed by the calls, and from the numbers, that they claim to test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from refimpl.checking.checks import Measurement, Subject, check, true
from refimpl.records import files, of_values


def _recorded(subject: Subject) -> dict[str, Any]:
    return files.recorded("values", subject.example.name, subject.example)


@check(
    "values-computed-as-recorded",
    about="example",
    on_cpu=True,
    applies=lambda s: (
        bool(s.example.values or s.example.failures or s.example.errata) and bool(_recorded(s))
    ),
    reading="the plugin computes the value by other functions of torch, or from other numbers, "
    "than it did, so that it may be right and test nothing; if that is meant, refimpl record NAME "
    "--kind values --because REASON keeps the new calls, and the reason",
)
def values_computed_as_recorded(subject: Subject) -> Iterator[Measurement]:
    """Is each exact value, failure and erratum computed by the recorded calls and numbers?"""
    recorded = _recorded(subject)
    for name, value in of_values.possible(subject.example):
        if name not in recorded:
            hint = f"refimpl record {subject.example.name} --kind values"
            yield true(name, False, f"{name} is not recorded; run: {hint}")
            continue
        moved = of_values.difference(of_values.of_value(value), recorded[name])
        yield true(name, not moved, f"{name} is computed otherwise than recorded: {moved}")
