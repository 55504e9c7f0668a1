"""Makes baselines: many seeds of each chosen variant, each written to disk when it finishes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from refimpl.baselines import committed
from refimpl.baselines.committed import Baseline, BaselineError, Run
from refimpl.baselines.sweep import Engine, Job, Task, jobs, kept_epochs, run_jobs
from refimpl.contract import Example, Variant
from refimpl.data import Tier
from refimpl.environment import environment
from refimpl.requirements import missing, missing_data
from refimpl.seeds import FIRST_SEED, SEEDS_OF_A_BASELINE
from refimpl.writing import Change


@dataclass(frozen=True)
class Plan:
    """One baseline to make: what exists of it, and the seeds that are still to be run.

    ``changes`` are given where it is made anew: why this time, and the times before.
    """

    example: Example
    variant: Variant
    tier: Tier
    path: Path
    there: Baseline | None
    seeds: tuple[int, ...]
    changes: tuple[Change, ...] = ()

    @property
    def title(self) -> str:
        """What the baseline is of."""
        return f"{self.example.name} · {self.variant.name} · {self.tier}"

    def finished_seeds(self) -> int:
        """How many seeds are on the disk now; those of a baseline that it replaces do not count."""
        try:
            baseline = committed.resume(self.path)
        except BaselineError:
            return 0
        if baseline is None or len(baseline.changes) < len(self.changes):
            return 0
        return len(baseline.runs)


def plan(
    example: Example,
    variant: Variant,
    tier: Tier,
    count: int,
    first_seed: int = FIRST_SEED,
    because: str = "",
) -> Plan:
    """What must be run for a baseline of ``count`` seeds.

    If the existing runs were trained differently, on other data or on another torch, or cannot be
    read, it is made anew, since runs of different programs are not one sample; and
    :class:`BaselineError` is raised unless ``because`` says why. So it is if so many runs would use
    seeds that are kept for checks.
    """
    if count > SEEDS_OF_A_BASELINE:
        raise BaselineError(
            f"a baseline has at most {SEEDS_OF_A_BASELINE} seeds, but {count} were requested"
        )
    path = committed.path_of(example, variant, tier)
    try:
        there = committed.resume(path)
    except BaselineError as error:
        if not because:
            raise
        whole = tuple(range(first_seed, first_seed + count))
        return Plan(example, variant, tier, path, None, whole, (Change(because, (str(error),)),))
    done = {run.seed for run in there.runs} if there else set()
    lacking = tuple(s for s in range(first_seed, first_seed + count) if s not in done)
    if there is not None and (differences := _differences(example, variant, tier, there, lacking)):
        if not because:
            raise BaselineError(
                f"{path.name} was made from something else: its {differences}. If that is meant, "
                "say why, and it is made anew: --because REASON"
            )
        whole = tuple(range(first_seed, first_seed + count))
        changes = (*there.changes, Change(because, (differences,)))
        return Plan(example, variant, tier, path, None, whole, changes)
    return Plan(example, variant, tier, path, there, lacking)


def _differences(
    example: Example, variant: Variant, tier: Tier, there: Baseline, lacking: Sequence[int]
) -> str:
    """Why further runs would not belong to the same sample as the existing ones; else empty."""
    torch, here = there.environment["packages"]["torch"], environment()["packages"]["torch"]
    if torch != here:
        return f"torch is {torch} and not {here}"
    differences = committed.identity(example, variant, tier).differences(there.identity)
    if differences or not lacking:
        return differences
    assert variant.data is not None
    digest, own = there.environment.get("data digest"), variant.data.digest(tier)
    return "" if digest == own else f"data digest is {digest} and not {own}"


def wanted(
    examples: Sequence[Example], variants: Sequence[str], tier: Tier
) -> Iterator[tuple[Example, Variant]]:
    """Every variant that trains and can be trained here; all, or those with these names."""
    for example in examples:
        for variant in example.variants:
            if variants and variant.name not in variants:
                continue
            if variant.data is None or not variant.trains or missing(variant.needs):
                continue
            if not missing_data(variant.data, tier):
                yield example, variant


def calibrate(
    chosen: Sequence[tuple[Example, Variant]],
    tier: Tier,
    count: int,
    engine: Engine,
    plugins: Sequence[str] = (),
    watch: Watcher | None = None,
    first_seed: int = FIRST_SEED,
    curves: bool = True,
    because: str = "",
) -> list[Path]:
    """Run the seeds that these baselines lack and finish them; returns the files, new or unchanged.

    Without ``curves``, only how each run ended is kept. With ``because``, a baseline of something
    else is made anew, and keeps the reason beside what moved.

    If this ends early, journals keep every finished seed, and the next call continues from them.
    Raises :class:`BaselineError` as :func:`plan` does, or if another process is making one of these
    baselines, before anything is run.
    """
    watch = watch or Watcher()
    with ExitStack() as held:
        paths = [committed.path_of(example, variant, tier) for example, variant in chosen]
        journals = {path: held.enter_context(committed.journal(path)) for path in paths}
        plans = [plan(*each, tier, count, first_seed, because) for each in chosen]
        by_task = {Task(p.example.name, p.variant.name, tier, tuple(plugins)): p for p in plans}
        watch.begins(plans)
        left = {task: len(p.seeds) for task, p in by_task.items()}
        for p in plans:
            if p.changes:
                journals[p.path].path.unlink(missing_ok=True)
            if not p.seeds and journals[p.path].begun:  # killed after its last seed
                journals[p.path].finish()
        # A list, since no finished run shall wait while the next variant's seeds are tested.
        work = list(_jobs(by_task, engine.workers))
        for task, runs in run_jobs(work, engine):
            journal = journals[by_task[task].path]
            if not journal.begun:
                journal.begin(begun(by_task[task], runs[0]))
            for run in runs:
                journal.append(run if curves else replace(run, curves={}))
                watch.ran(by_task[task], run)
            left[task] -= len(runs)
            if not left[task]:
                journal.finish()
    return paths


def _jobs(by_task: Mapping[Task, Plan], workers: int) -> Iterator[Job]:
    """The seeds of every plan, many per job where a test shows that this is faster."""
    from refimpl.executions.ensemble import gains

    for task, own in by_task.items():
        together = len(own.seeds) > workers and gains(own.variant, own.tier)
        yield from jobs(task, own.seeds, together, workers)


class Watcher:
    """Receives the progress of a calibration; this one ignores it."""

    def begins(self, plans: Sequence[Plan]) -> None:
        """These baselines are about to be made."""

    def ran(self, plan: Plan, run: Run) -> None:
        """A seed is finished and written to disk."""


def begun(plan: Plan, first: Run) -> Baseline:
    """The baseline as it is before this run: what exists, or an empty one."""
    if plan.there is not None:
        return plan.there
    protocol, data = plan.variant.protocol, plan.variant.data
    assert protocol is not None
    assert data is not None
    splits = data.load(plan.tier) if data.batches is None else None
    rows = {
        "train": len(splits.train) if splits else 1,
        "valid": len(splits.valid) if splits and splits.valid else 1,
    }
    metrics = {
        name: committed.metric_of(
            name, [value], rows["valid" if name.startswith("val_") else "train"]
        )
        for name, value in first.final.items()
    }
    where = {**environment(), "data digest": data.digest(plan.tier)}
    return Baseline(
        committed.identity(plan.example, plan.variant, plan.tier),
        metrics,
        tuple(kept_epochs(protocol.epochs_on(plan.tier))),
        where,
        changes=plan.changes,
    )
