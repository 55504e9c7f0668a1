"""Baselines: how many runs of a variant ended, as raw values, one line for each seed.

A baseline is a file of JSON Lines: a header (which variant, trained how, on what, where), a line
for each seed (final figures, learning curves, seconds), a footer (how many, and the digest of all
lines before it). Limits are computed from it when a check runs; see :mod:`refimpl.baselines.bands`.

While a baseline is made, its lines go one by one to a journal beside it, so that killing the run
loses only the seeds in flight.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any, Literal

from refimpl.contract import Example, Protocol, Variant
from refimpl.data import Tier
from refimpl.errors import RefimplError
from refimpl.reading import ShapeError, decoded, parsed, plain_bytes, plain_text, shaped, why
from refimpl.seeds import wrong_seed
from refimpl.trees import leaves
from refimpl.writing import (
    MOVES_KEPT,
    AloneError,
    Change,
    alone,
    append_line,
    whole_file,
    write_lines,
)

FORMAT = 1

ANEW = "make it anew with: refimpl calibrate --because REASON"

CURVE_POINTS = 25
"""For how many epochs a baseline keeps the figures; the first and the last are among them."""

ENOUGH: Mapping[Tier, int] = {"stand-in": 50, "real": 20}
"""How many runs a baseline should have; of one with fewer, its file says so."""

Better = Literal["lower", "higher", "neither"]


class BaselineError(RefimplError):
    """A baseline is truncated, damaged, has a seed twice, or is of something else."""


@dataclass(frozen=True)
class Metric:
    """Which direction is better for a figure, and the step below which two values are the same."""

    better: Better
    resolution: float


@dataclass(frozen=True)
class Run:
    """How one seed ended; ``curves`` has a value for each epoch of the baseline's ``epochs``."""

    seed: int
    final: Mapping[str, float]
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Identity:
    """What the runs of one baseline have in common, and must share with a check that uses it.

    ``trained`` is the protocol: epochs, batch sizes, learning rate and so on. ``data`` gives the
    name and shapes of the data; its digest is in ``environment``, since rounding in a library may
    change the last bit of a generated row and nothing else.
    """

    example: str
    variant: str
    tier: Tier
    trained: Mapping[str, Any]
    data: str

    def differences(self, other: Identity) -> str:
        """How ``other`` differs, in words; empty if it does not."""
        mine, theirs = _flat(asdict(self)), _flat(asdict(other))
        return ", ".join(
            f"{name} is {theirs.get(name)} and not {mine.get(name)}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        )


@dataclass(frozen=True)
class Baseline:
    """The runs of one variant on one tier, by seed, and why they were made anew, if they were."""

    identity: Identity
    metrics: Mapping[str, Metric]
    epochs: tuple[int, ...]
    environment: Mapping[str, Any]
    runs: tuple[Run, ...] = ()
    changes: tuple[Change, ...] = ()

    def finals(self, metric: str) -> list[float]:
        """The final values of one figure, one per run."""
        return [run.final[metric] for run in self.runs]

    @property
    def shortfall(self) -> str:
        """A note about a baseline with fewer runs than it should have; else empty."""
        enough = ENOUGH[self.identity.tier]
        if len(self.runs) >= enough:
            return ""
        seconds = sum(run.seconds for run in self.runs) / max(1, len(self.runs))
        return f"{len(self.runs)} runs and not {enough}; one takes {seconds:.0f} s"


def identity(example: Example, variant: Variant, tier: Tier) -> Identity:
    """The identity that this variant's baseline would have. Reads the data to get it."""
    assert variant.data is not None
    if variant.data.batches is not None:
        return _without_shapes(example, variant, tier)
    splits = variant.data.load(tier)
    shapes = " + ".join(
        ", ".join(map(_shape, leaves(rows.x)))
        for rows in (splits.train, splits.valid)
        if rows is not None
    )
    without = _without_shapes(example, variant, tier)
    return replace(without, data=f"{without.data} {shapes}")


def _without_shapes(example: Example, variant: Variant, tier: Tier) -> Identity:
    """The identity as far as it is declared, with the mere name of the data."""
    assert variant.data is not None
    assert variant.protocol is not None
    trained = trained_by(variant.protocol, tier)
    return Identity(example.name, variant.name, tier, trained, variant.data.name)


def _shape(leaf: Any) -> str:
    return f"{list(leaf.shape)}" if hasattr(leaf, "shape") else f"{len(leaf)} ragged rows"


LATER = ("accumulate", "clip", "schedule", "stop")
"""Fields of a protocol that older baselines do not have: kept only where they are stated."""

RATES = 20
"""Of a schedule, the factors of so many epochs or updates are kept."""


def trained_by(protocol: Protocol, tier: Tier) -> dict[str, Any]:
    """What of a protocol decides where a run ends on this tier, as plain data."""
    trained = {**asdict(protocol), "epochs": protocol.epochs_on(tier)}
    del trained["stand_in_epochs"]
    for own in fields(protocol):
        if own.name in LATER and getattr(protocol, own.name) == own.default:
            del trained[own.name]
    if (schedule := protocol.schedule) is not None:
        factors = [float(schedule.factor(n)) for n in range(RATES)]
        trained["schedule"] = {"per": schedule.per, "factors": factors}
    return trained


def metric_of(name: str, values: Sequence[float], rows: int) -> Metric:
    """What a figure's name implies about it.

    Shares of rows (accuracy, recall) change by at least one row; for all other figures the
    documents print about four digits.
    """
    bare = name.removeprefix("val_")
    scale = 1e-4 * max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if bare in ("accuracy", "acc", "recall", "precision"):
        return Metric("higher", max(1 / rows, scale))
    if bare in ("auc", "f1"):
        return Metric("higher", scale)
    if bare in ("loss", "mspe", "mse", "mae", "error"):
        return Metric("lower", scale)
    return Metric("neither", scale)


# --- where they are ------------------------------------------------------------------------------


def folder_of(example: Example) -> Path:
    """Where an example's baselines are: beside its plugin, or among refimpl's own fixtures.

    Of an example that another distribution brings, the registry fills in the folder.
    """
    return example.baselines or Path(str(files("refimpl.fixtures"))) / "baselines"


def path_of(example: Example, variant: Variant, tier: Tier) -> Path:
    """The file of one baseline, which need not exist."""
    return folder_of(example) / tier / f"{example.name}.{variant.name}.jsonl"


def journal_of(path: Path) -> Path:
    """Where the finished seeds of an unfinished baseline are."""
    return path.with_name(path.name + ".part")


def require_unused_seeds(reseed: int, examples: Iterable[Example] = ()) -> None:
    """Refuse to move the seeds of checks into the range of the baselines' seeds.

    No run is judged by a baseline that it is part of. Raises :class:`BaselineError`, also if that
    is so of a variant of these ``examples``, whose own seed is not 0.
    """
    if said := wrong_seed(reseed):
        raise BaselineError(f"with {reseed}, {said}")
    for example in examples:
        for variant in example.variants:
            if said := wrong_seed(reseed, variant.seed):
                raise BaselineError(
                    f"with {reseed} added to the seed {variant.seed} of {example.name} · "
                    f"{variant.name}, {said}"
                )


# --- reading -------------------------------------------------------------------------------------


def read(path: Path) -> Baseline:
    """A finished baseline.

    Raises :class:`BaselineError` if it is truncated, damaged, or has a seed twice.
    """
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise BaselineError(f"{path} cannot be read: {why(error)}") from error


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> Baseline:
    again = f"restore it from version control, or {ANEW}"
    try:
        lines = plain_text(path).rstrip("\n").split("\n")
        footer = decoded(lines[-1], Footer)
    except ShapeError as error:
        wrong = "is truncated: its last line is not a footer"
        if "UTF-8" in str(error):
            wrong = "is damaged: it is not text"
        raise BaselineError(f"{path.name} {wrong}; {again}") from error
    baseline = _assembled(path, lines[:-1])
    if footer.runs != len(baseline.runs):
        raise BaselineError(
            f"{path.name} counts {footer.runs} runs but has {len(baseline.runs)}; {again}"
        )
    if footer.digest != _digest(lines[:-1]):
        raise BaselineError(f"{path.name} does not have the digest that it states; {again}")
    return baseline


def read_for(example: Example, variant: Variant, tier: Tier) -> Baseline:
    """The baseline of this variant as it is today.

    Raises :class:`BaselineError` as :func:`read`, and if the file is of another variant, or of this
    one trained differently.
    """
    baseline = read(path_of(example, variant, tier))
    _require_same(identity(example, variant, tier), baseline.identity)
    return baseline


def read_declared(example: Example, variant: Variant, tier: Tier) -> Baseline:
    """The same, without a look at the data, which need not be here: their shapes may differ."""
    baseline = read(path_of(example, variant, tier))
    name, *_ = baseline.identity.data.split(" [")
    _require_same(_without_shapes(example, variant, tier), replace(baseline.identity, data=name))
    return baseline


def _require_same(own: Identity, there: Identity) -> None:
    if differences := own.differences(there):
        raise BaselineError(
            f"{own.example}.{own.variant}.jsonl was made from something else: its {differences}; "
            "if that is meant, make it anew with: refimpl calibrate "
            f"{own.example} --variant {own.variant} --data {own.tier} --because REASON"
        )


def resume(path: Path) -> Baseline | None:
    """What exists of a baseline: its journal, else the finished file, else nothing.

    Drops a last line of the journal that a kill cut short; it never was a finished seed.
    """
    unfinished = journal_of(path)
    if not unfinished.exists():
        return read(path) if path.exists() else None
    try:
        whole, _, rest = plain_bytes(unfinished).rpartition(b"\n")
        lines = whole.decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = f"{unfinished.name} cannot be read: {why(error)}; {ANEW}"
        raise BaselineError(reason) from error
    if rest:
        with whole_file(unfinished) as stream:
            stream.write(whole + b"\n" if whole else b"")
    if not whole:
        return read(path) if path.exists() else None
    return _assembled(unfinished, lines)


@dataclass(frozen=True)
class Header:
    """The shape of a baseline's first line, beside its format."""

    identity: Identity
    metrics: dict[str, Metric]
    epochs: tuple[int, ...]
    environment: dict[str, Any]
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Footer:
    """The shape of its last line."""

    runs: int
    digest: str


@dataclass(frozen=True)
class Line:
    """The shape of the line of a run; NaN and the infinities, which JSON lacks, are text."""

    seed: int
    final: dict[str, float | Literal["nan", "inf", "-inf"]]
    curves: dict[str, tuple[float | Literal["nan", "inf", "-inf"], ...]]
    seconds: float


def _assembled(path: Path, lines: Sequence[str]) -> Baseline:
    try:
        first = parsed(lines[0]) if lines else None
    except ShapeError as error:
        reason = f"{path.name} is not a baseline: its first line is {error}"
        raise BaselineError(reason) from error
    if not isinstance(first, dict) or "$baseline" not in first:
        raise BaselineError(f"{path.name} is not a baseline: its first line is not a header")
    if first["$baseline"] != FORMAT or isinstance(first["$baseline"], bool):
        raise BaselineError(
            f"{path.name} has baseline format {first['$baseline']}, this refimpl reads {FORMAT}"
        )
    number = 1
    try:
        header = shaped(first, Header)
        if not isinstance(header.environment.get("packages"), dict):
            raise ShapeError("environment: it lacks the field packages")
        runs = []
        for line in lines[1:]:
            number += 1
            runs.append(_run(decoded(line, Line)))
    except ShapeError as error:
        raise BaselineError(f"{path.name}, line {number}, is damaged: {error}") from error
    baseline = Baseline(
        header.identity, header.metrics, header.epochs, header.environment, tuple(runs),
        header.changes,
    )  # fmt: skip
    _require_sound(path, baseline)
    return baseline


def _require_sound(path: Path, baseline: Baseline) -> None:
    seeds = [run.seed for run in baseline.runs]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise BaselineError(f"{path.name} has seed {twice[0]} more than once")
    for run in baseline.runs:
        wrong = [n for n, own in run.curves.items() if len(own) != len(baseline.epochs)]
        if wrong:
            raise BaselineError(
                f"{path.name}: the curve of {wrong[0]} of seed {run.seed} has not one value for "
                "each of the epochs"
            )
        odd = run.final.keys() ^ baseline.runs[0].final.keys()
        if odd:
            raise BaselineError(
                f"{path.name}: seeds {baseline.runs[0].seed} and {run.seed} do not have the same "
                f"figures ({', '.join(sorted(odd))})"
            )


def _run(line: Line) -> Run:
    if line.seed < 0 or not 0 <= line.seconds < math.inf:
        raise ShapeError(f"seed {line.seed} took {line.seconds} s")
    return Run(
        line.seed,
        {name: float(value) for name, value in line.final.items()},
        {name: tuple(map(float, values)) for name, values in line.curves.items()},
        float(line.seconds),
    )


# --- writing -------------------------------------------------------------------------------------


def header_line(baseline: Baseline) -> str:
    """The first line of a baseline's file."""
    record = {
        "$baseline": FORMAT,
        "identity": asdict(baseline.identity),
        "metrics": {name: asdict(metric) for name, metric in baseline.metrics.items()},
        "epochs": list(baseline.epochs),
        "environment": dict(baseline.environment),
    }
    if baseline.changes:
        record["changes"] = [asdict(change) for change in baseline.changes]
    return json.dumps(record, ensure_ascii=False)


def run_line(run: Run) -> str:
    """The line of one seed; figures keep float32's precision, curves five digits."""
    record = {
        "seed": run.seed,
        "final": {name: _number(value, 9) for name, value in run.final.items()},
        "curves": {name: [_number(v, 5) for v in values] for name, values in run.curves.items()},
        "seconds": round(run.seconds, 3),
    }
    return json.dumps(record, ensure_ascii=False)


@contextmanager
def journal(path: Path) -> Iterator[Journal]:
    """The journal of the baseline ``path``, exclusive to this process.

    Raises :class:`BaselineError` if another process is making the baseline.
    """
    with ExitStack() as held:
        try:
            held.enter_context(alone(path))
        except AloneError as error:
            raise BaselineError(f"{path.name} is being made by another process") from error
        yield Journal(path)


@dataclass(frozen=True)
class Journal:
    """The finished seeds of an unfinished baseline, beside where it will be."""

    baseline: Path

    @property
    def path(self) -> Path:
        """Where the lines are."""
        return journal_of(self.baseline)

    @property
    def begun(self) -> bool:
        """Whether there is a journal, of this process or of one that was killed."""
        return self.path.exists() and self.path.stat().st_size > 0

    def begin(self, with_runs: Baseline) -> None:
        """Begin with the existing runs."""
        write_lines(self.path, [header_line(with_runs), *map(run_line, with_runs.runs)])

    def append(self, run: Run) -> None:
        """Put a finished seed on the disk before anything else happens."""
        append_line(self.path, run_line(run))

    def finish(self) -> None:
        """Turn it into the baseline: seeds in order, a footer at the end.

        If it replaces one, for a reason, it keeps how far the figures moved.
        """
        header, *_ = lines = self.path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        baseline = _assembled(self.path, lines)
        if moved := _moved(self.baseline, baseline):
            *before, last = baseline.changes
            named = Change(last.because, (*last.moved, *moved)[:MOVES_KEPT])
            header = header_line(replace(baseline, changes=(*before, named)))
        runs = sorted(baseline.runs, key=lambda run: run.seed)
        ordered = [header, *map(run_line, runs)]
        footer = {"runs": len(runs), "digest": _digest(ordered)}
        if baseline.shortfall:
            footer["fewer"] = baseline.shortfall
        write_lines(self.baseline, [*ordered, json.dumps(footer)])
        self.path.unlink()


def _moved(path: Path, baseline: Baseline) -> list[str]:
    """How the medians of a baseline, which was made anew, lie to those of the one that is there."""
    try:
        there = read(path)
    except BaselineError:
        return []
    if baseline.changes[: len(there.changes)] != there.changes or not baseline.changes:
        return []
    if len(baseline.changes) == len(there.changes):
        return []
    return [
        f"{name}: median {_median(baseline, name):.6g} of {len(baseline.runs)} runs, before "
        f"{_median(there, name):.6g} of {len(there.runs)}"
        for name in baseline.runs[0].final
        if name in there.runs[0].final
    ]


def _median(baseline: Baseline, name: str) -> float:
    return median(baseline.finals(name))


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _number(value: float, digits: int) -> float | str:
    rounded = float(f"{value:.{digits}g}")
    return rounded if abs(rounded) < float("inf") else str(rounded)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value))
        else:
            flat[name] = value
    return flat
