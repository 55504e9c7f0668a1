"""The verdict on one run, in a sentence: what was checked, on what, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from refimpl.checking.checks import VERDICTS, Outcome, Result
from refimpl.checking.results import elsewhere, not_met
from refimpl.report.findings import Finding, findings, listed

ERRATA = "errata"

DEVICES = {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS", "xpu": "XPU"}

FINDINGS_SHOWN = 3


def sentence(
    header: Mapping[str, Any], results: Sequence[Result], complete: bool = True, shown: int = 0
) -> str:
    """What one run says, in a few words.

    ``shown`` is how many findings are spelt out; a run that is not ``complete`` is called so.
    """
    found = findings(results)
    who = subject(header)
    counts = Counter(r.outcome for r in results)
    done = counts["passed"] + counts["failed"] + counts["xfailed"]
    on_cpu = elsewhere(header, results)
    there = [r for r in results if r.outcome == "passed" and r.check not in VERDICTS]
    if found:
        count = f"{number_of(len(found), 'finding')} in {number_of(max(done, 1), 'check')}"
        says = f"{who} does not do what {_documents(header, found)}: {count}."
        for number, finding in enumerate(found[:shown], start=1):
            says += f" {number}. {about(finding)}."
        if shown and len(found) > shown:
            says += f" And {len(found) - shown} more."
    elif not complete:
        says = f"{who} was not checked to the end: {number_of(done, 'check')}, no finding so far."
    elif not there:
        says = f"{who}: no check of an example passed."
    elif len(on_cpu) >= len(there):
        says = (
            f"{who}: nothing was checked on it. {number_of(len(there), 'check')} passed on the CPU."
        )
    else:
        says = f"{who} does what {_documents(header)}: {_counted(done, on_cpu)}{_known(results)}."
        if gone := not_met(header, results):
            says += (
                f" {number_of(len(gone), 'known deviation')} was not met with, so that the run "
                f"fails: {'; '.join(gone)}. Remove the entry, or narrow its conditions."
            )
    return " ".join([says, *_besides(counts, results), *([] if complete or not found else [CUT])])


CUT = "The run did not come to its end."


def about(finding: Finding) -> str:
    """A finding in a sentence, with its extent."""
    return f"{finding.sentence} ({finding.extent})"


def subject(header: Mapping[str, Any]) -> str:
    """``torch 2.14.1 on CPU``."""
    version = header.get("environment", {}).get("packages", {}).get("torch") or "?"
    version = str(version).partition("+")[0]
    kind, _, index = str(header.get("device", "cpu")).partition(":")
    device = DEVICES.get(kind, kind) + (f":{index}" if index else "")
    data = ", on real data," if header.get("tier") == "real" else ""
    return f"torch {version} on {device}{data}"


def _documents(header: Mapping[str, Any], found: Sequence[Finding] = ()) -> str:
    """``the documents say``, and of which examples if not of all: those with findings, if any."""
    asked = header.get("examples") or ()
    if asked and found:
        wrong = {name for finding in found for name in finding.examples}
        asked = [name for name in asked if name in wrong]
    return f"the documents say of {listed(asked)}" if asked else "the documents say"


def _counted(done: int, on_cpu: Sequence[Result]) -> str:
    """``1,042 checks, 90 of them on the CPU``."""
    of_them = f", {len(on_cpu):,} of them on the CPU" if on_cpu else ""
    return f"{number_of(done, 'check')}{of_them}"


def _known(results: Sequence[Result]) -> str:
    """``, with 1 known deviation of cuDNN 9.19``: what explains failures that were expected."""
    names = {name for result in results for name in result.deviations}
    if not names:
        return ""
    of = sorted({name.partition(": ")[0] for name in names})
    return f", with {number_of(len(names), 'known deviation')} of {listed(of)}"


def _besides(counts: Counter[Outcome], results: Sequence[Result]) -> list[str]:
    """What there is to say besides: errata, expected failures, what was not checked."""
    says = []
    gone = sum(
        measured.measured == "wrong" and measured.holds
        for result in results
        if result.check == ERRATA
        for measured in result.measurements
    )
    if gone:
        are = "statement is listed as erratum" if gone == 1 else "statements are listed as errata"
        says.append(f"{gone:,} {are}.")
    if counts["xfailed"]:
        says.append(f"{number_of(counts['xfailed'], 'check')} failed as expected.")
    lacking = Counter(_lacks(r.reason) for r in results if r.outcome == "skipped")
    if lacking:
        told = ", ".join(f"{what} ({count:,})" for what, count in lacking.most_common())
        says.append(f"Not checked: {told}.")
    return says


def _lacks(reason: str) -> str:
    """``CUDA`` for ``needs a CUDA device``."""
    what = reason.removeprefix("needs ").removeprefix("a ")
    return what.removesuffix(" device").partition(": ")[0]


def number_of(number: int, noun: str) -> str:
    """``1 check``, ``1,574 checks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
