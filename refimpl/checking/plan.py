"""What a run checks: its cells, and the verdicts that are known before anything runs.

This is decided here once, for the pytest suite, ``check_example`` and ``parametrize_with_checks``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from refimpl import process_state
from refimpl.baselines.committed import require_unused_seeds
from refimpl.checking import manifest
from refimpl.checking.checks import (
    EXPECTATIONS,
    IN_ORDER,
    MANIFEST,
    Cell,
    Check,
    Outcome,
    Result,
    cells,
    idle_exemptions,
    true,
)
from refimpl.checking.expectations import (
    ExpectationsError,
    ExpectedFailure,
    Gathered,
    gather,
    judged,
    must_be_met,
    unmatched,
)
from refimpl.checking.recorded import answered
from refimpl.checking.requests import ALL, Request, default_executions
from refimpl.composition import CPU, on_device, sets_device
from refimpl.contract import Example, Execution
from refimpl.data import TIERS, Tier
from refimpl.errors import RefimplError
from refimpl.loading.registry import Registered, Registry
from refimpl.names import unknown


@dataclass(frozen=True)
class Plan:
    """Every check of a run: the cells to run, and the results that need no run.

    ``idle`` are the executions that were named and with which no check compares a variant.
    ``deviations`` are the known ones that the run must meet with.
    """

    cells: tuple[Cell, ...]
    verdicts: tuple[Result, ...]
    expected: tuple[ExpectedFailure, ...]
    idle: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        """The key of every result that the run must have."""
        return [*(verdict.id for verdict in self.verdicts), *(cell.id for cell in self.cells)]

    def run(self, cell: Cell) -> Result:
        """The result of a cell's check, adjusted for expected failures."""
        return judged(answered(cell), cell, self.expected)


def plan(loaded: Registry, request: Request, checks: Sequence[Check]) -> Plan:
    """Everything that a run of these ``checks`` over the registered examples has to answer.

    An example whose plugin was refused gets a failed verdict. Raises
    :class:`~refimpl.errors.UnknownNameError` if there is no example, tier, device or execution of
    a requested name, :class:`~refimpl.errors.RefimplError` if the device or the execution cannot be
    used here, :class:`~refimpl.baselines.committed.BaselineError` if runs would use seeds of
    baselines, and :class:`~refimpl.checking.expectations.ExpectationsError` if a requested file
    of expected failures is invalid or names an unknown example.
    """
    process_state.require_ordinary()
    if request.tier not in TIERS:
        raise unknown(f"there is no tier of data {request.tier!r}", request.tier, TIERS)
    refused = {name for problem in loaded.problems for name in problem.examples}
    names = list(dict.fromkeys(request.examples or sorted(loaded.examples)))
    examples = [loaded.example(n) for n in names if n in loaded.examples or n not in refused]
    device = on_device(request.device)
    composed = _executions(request, loaded)
    others = list({other.name: other for other in composed.values()}.values())
    _require_possible(request, device, composed)
    require_unused_seeds(request.reseed, examples)
    own = [
        cell
        for example in examples
        for cell in cells(example.reseeded(request.reseed), checks, device, request.tier, others)
    ]
    expected = _expected(loaded, request)
    verdicts = [
        *_on_plugins(loaded, request),
        *_on_expected_failures(loaded, request, expected, own),
        *_on_manifest(request, own, others, refused),
    ]
    compared = {cell.subject.execution.name for cell in own if cell.check.about == "execution"}
    requested = tuple(_requested(own, request, checks))
    idle = tuple(n for n in request.executions if n != ALL and composed[n].name not in compared)
    deviations = () if request.only else must_be_met(expected.entries, own, request.examples)
    return Plan(requested, tuple(verdicts), expected.entries, idle, tuple(deviations))


def _require_possible(
    request: Request, device: Execution, composed: Mapping[str, Execution]
) -> None:
    """Refuse a device or an execution that was named and is not here: it would only be skipped."""
    if lacking := device.missing():
        raise RefimplError(f"device {request.device!r} cannot be used here: {lacking}")
    for name in request.executions:
        if name != ALL and (lacking := composed[name].missing()):
            raise RefimplError(f"execution {name!r} cannot run here: {lacking}")


def require_executions(plans: Collection[Plan], request: Request) -> None:
    """Raise :class:`RefimplError` if an execution that was named has no check in any of the plans.

    A plan that has no check at all says by its verdicts why.
    """
    idle = [n for n in request.executions if plans and all(n in plan.idle for plan in plans)]
    if idle and any(plan.cells for plan in plans):
        raise RefimplError(
            f"execution {idle[0]!r} supports no variant of these examples, so nothing would be run "
            "on it; leave it out, or name other examples"
        )


def _requested(cells: Sequence[Cell], request: Request, checks: Sequence[Check]) -> list[Cell]:
    """The cells that are not left out; a name that selects nothing is an error."""
    _require_known("check", request.checks, [check.name for check in checks])
    _require_known("variant", request.variants, [variant_of(cell) for cell in cells])
    found = [c for c in cells if request.wants(variant_of(c), c.check.name, c.id)]
    if cells and not found:
        told = "; ".join(f"{what}: {', '.join(own[:3])}" for what, own in request.only.items())
        raise RefimplError(f"no check of these examples is left by {told}")
    return found


def _require_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown(f"there is no {what} {name!r}", name, sorted(set(known)))


def variant_of(cell: Cell) -> str:
    """The name of a cell's variant, ``-`` for a check of the example as a whole."""
    return cell.subject.variant.name if cell.subject.variant else "-"


def in_tree_cells(loaded: Registry, checks: Sequence[Check]) -> list[Cell]:
    """Every check of the examples of this distribution, on both tiers, for the manifest.

    With every execution of this distribution, also those that a run must name.
    """
    parts = [own for own in loaded.executions.values() if _is_own(own)]
    others = [loaded.execution(own.value.name) for own in parts if own.value.name != "cuda"]
    return [
        cell
        for registered in loaded.examples.values()
        if _is_own(registered)
        for tier in get_args(Tier)
        for cell in cells(registered.value, checks, on_device("cpu"), tier, others)
    ]


def _is_own(registered: Registered[Any]) -> bool:
    return registered.origin.startswith(("in-tree", "built-in"))


def _executions(request: Request, loaded: Registry) -> dict[str, Execution]:
    """The executions that are compared with the oracle, by the name that was asked for.

    ``all`` stands for every part on the run's device; on the CPU also for every other device.
    """
    names = [name for name in request.executions if name != ALL]
    if ALL in request.executions:
        own = [registered.value for registered in loaded.executions.values()]
        here = request.device == CPU.device
        names += [part.name for part in own if not sets_device(part) or here]
        names += [] if here else [request.device]
    names = list(dict.fromkeys(names)) or list(default_executions(request.device))
    return {name: loaded.execution(name, request.device) for name in names}


def _expected(loaded: Registry, request: Request) -> Gathered:
    """The failures that the plugins and the run expect."""
    gathered = gather(loaded, request.expected_failures)
    named = {entry.example for entry in gathered.entries if entry.example is not None}
    unknown_names = named - loaded.examples.keys()
    if unknown_names and not request.examples and not loaded.problems:
        raise ExpectationsError(
            f"expected failures name unknown examples: {', '.join(sorted(unknown_names))}"
        )
    return gathered


# --- verdicts ------------------------------------------------------------------------------------


def _verdict(request: Request, example: str, check: str, what: str, wrong: str) -> Result:
    """A result that is known already: failed if something is ``wrong``."""
    outcome: Outcome = "failed" if wrong else "passed"
    return Result(
        example, "-", check, request.device, request.tier, outcome, wrong,
        measurements=(true(what, not wrong, wrong),),
    )  # fmt: skip


def _on_plugins(loaded: Registry, request: Request) -> Iterator[Result]:
    """Whether the plugin of each example is in order; if not, failed with the reason."""
    for name, registered in sorted(loaded.examples.items()):
        if not request.examples or name in request.examples:
            yield _verdict(request, name, IN_ORDER, f"registered from {registered.origin}", "")
    for number, problem in enumerate(loaded.problems, start=1):
        yield _verdict(request, f"{problem.plugin}#{number}", IN_ORDER, "in order", str(problem))


def _on_expected_failures(
    loaded: Registry, request: Request, expected: Gathered, cells: Sequence[Cell]
) -> Iterator[Result]:
    """For each example with expected failures, whether every entry is about a check."""
    checked = {cell.subject.example.name for cell in cells}
    wrong = dict(expected.problems)
    for example, reason in unmatched(expected.entries, cells, loaded.executions):
        wrong[example] = "; ".join(filter(None, (wrong.get(example), reason)))
    for example, reason in idle_exemptions(cells).items():
        wrong[example] = "; ".join(filter(None, (wrong.get(example), reason)))
    about = {entry.example for entry in expected.entries if entry.example} | wrong.keys()
    for name in sorted(about & checked):
        what = "every entry is about a check"
        yield _verdict(request, name, EXPECTATIONS, what, wrong.get(name, ""))


def _on_manifest(
    request: Request,
    cells: Sequence[Cell],
    executions: Collection[Execution],
    refused: Collection[str],
) -> Iterator[Result]:
    """For each example in the manifest, whether it gets every check that it must get.

    A refused example gets none, which its plugin's own verdict says already.
    """
    try:
        must = manifest.read(manifest.path())
    except manifest.ManifestError as error:
        yield _verdict(request, "manifest", MANIFEST, "the manifest can be read", str(error))
        return
    for name in sorted({subject.partition("/")[0] for subject in must}):
        if name in refused or (request.examples and name not in request.examples):
            continue
        own = [cell for cell in cells if cell.subject.example.name == name]
        missed = manifest.lacking(must, name, own, request.tier, executions)
        reason = (
            f"{len(missed)} checks of the manifest are missing: {', '.join(missed[:3])}"
            f"{' …' if len(missed) > 3 else ''}; if that is intended: refimpl manifest --update"
        )
        what = "every check of the manifest is run"
        yield _verdict(request, name, MANIFEST, what, reason if missed else "")


# --- the plan of one example ---------------------------------------------------------------------


def plan_one(
    loaded: Registry, example: Example | str, request: Request, checks: Sequence[Check]
) -> Plan:
    """The plan of one example, whatever is wrong with other plugins.

    ``loaded`` is what :func:`refimpl.loading.registry.load_for` gave for it.
    """
    name = example if isinstance(example, str) else example.name
    about = tuple(problem for problem in loaded.problems if name in problem.examples)
    if not about:
        loaded.example(name)
    own = Registry(loaded.examples, loaded.executions, about, loaded.unstated)
    return plan(own, replace(request, examples=(name,)), checks)
