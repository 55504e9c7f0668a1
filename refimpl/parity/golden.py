"""Golden trajectories: the committed float64 oracle of the first steps, compared on every version.

One safetensors file per example under ``fixtures/golden``, made by ``refimpl golden --update`` from
stand-in data. To stay small, a tensor is kept as a sketch: its sum, its Euclidean norm and up to
:data:`SAMPLES` of its elements, evenly spaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from refimpl.compatibility import refusal
from refimpl.composition import CPU
from refimpl.contract import CONTRACT, Example, Execution, Variant
from refimpl.errors import RefimplError
from refimpl.parity.lockstep import FIRST, Comparison, Draws, compare_steps
from refimpl.parity.rounding import first_drawn
from refimpl.reading import open_plain, why
from refimpl.requirements import missing
from refimpl.training.problem import pose
from refimpl.training.trajectories import Observation, first_steps
from refimpl.writing import whole_file

STEPS = 5
SAMPLES = 24
FORMAT = "1"


class GoldenError(RefimplError):
    """A golden file is stale, truncated, or of another contract."""


def folder() -> Path:
    """Where the golden files are: in the package that contains them."""
    return Path(str(files("refimpl.fixtures"))) / "golden"


def path_of(example: Example) -> Path:
    """The golden file of an example: among refimpl's own, or with what the plugin brings."""
    return (example.baselines / "golden" if example.baselines else folder()) / (
        f"{example.name}.safetensors"
    )


def sketch(value: Tensor) -> Tensor:
    """Sum, norm and evenly spaced elements of a float64 tensor, in one row."""
    flat = value.flatten()
    count = min(SAMPLES, flat.numel())
    picked = flat[torch.linspace(0, flat.numel() - 1, count).round().long()] if count else flat
    return torch.cat([flat.sum()[None], flat.norm()[None], picked])


def sketched(steps: Iterable[list[Observation]]) -> Iterator[list[Observation]]:
    """Every step with each tensor replaced by its sketch."""
    for seen in steps:
        yield [replace(tensor, value=sketch(tensor.value)) for tensor in seen]


def trajectory(
    variant: Variant, precision: str, execution: Execution = CPU
) -> list[list[Observation]]:
    """The first steps of the variant on stand-in data, from its seed 0."""
    problem = pose(variant, "stand-in", seed=0, dropout=False, execution=execution)
    return first_steps(variant, problem.but(precision=precision), STEPS)


def _draws(variant: Variant) -> Iterator[list[list[Observation]]]:
    """The same steps as rounding to float32 may make them."""
    problem = pose(variant, "stand-in", seed=0, dropout=False, precision="float64")
    for number in range(FIRST):
        yield first_drawn(variant, problem, number, STEPS)


def golden_exists(example: Example, variant: str) -> bool:
    """Whether a trajectory of this variant is committed; a file that cannot be read counts."""
    path = path_of(example)
    if not path.exists():
        return False
    try:
        return any(key.startswith(f"{variant}/") for key in _read(path, path.stat().st_mtime_ns)[0])
    except GoldenError:
        return True


def not_comparable(example: Example, variant: Variant) -> str | None:
    """Why this variant cannot be compared with a golden trajectory here, or ``None``."""
    if golden_exists(example, variant.name):
        return missing(variant.needs)
    if variant.needs is not None:
        return f"no golden trajectory is kept for variants that need {variant.needs}"
    return f"it has no golden trajectory; refimpl golden {example.name} --update makes it"


def compare_with_golden(
    example: Example, variant: Variant, execution: Execution = CPU
) -> Comparison:
    """Compare the variant's float64 run here, under this execution, with the committed one.

    Raises :class:`GoldenError` if the file cannot be used.
    """
    path = path_of(example)
    tensors, made_with = _read(path, path.stat().st_mtime_ns)
    golden = _steps(tensors, variant.name, path)
    found = list(sketched(trajectory(variant, "float64", execution)))
    _require_same_names(path, variant.name, golden, found)
    return compare_steps(
        Comparison(f"{variant.name} here", f"its golden trajectory ({made_with})", "float64"),
        found,
        golden,
        Draws(),
        torch.float64,
        reserve=(sketched(draw) for draw in _draws(variant)),
    )


def update(examples: Iterable[Example], because: str = "") -> Iterator[Path]:
    """Write the golden files of these examples, each whole or not at all.

    A file that is there is only changed if ``because`` says why, which it keeps beside what moved.
    Raises :class:`GoldenError` otherwise.
    """
    from safetensors.torch import save

    for example in examples:
        tensors: dict[str, Tensor] = {}
        for variant in example.variants:
            if variant.needs is not None:
                continue
            for number, seen in enumerate(sketched(trajectory(variant, "float64")), start=1):
                for tensor in seen:
                    key = f"{variant.name}/{number}/{tensor.kind}/{tensor.name}"
                    tensors[key] = tensor.value.contiguous()
        if tensors:
            path = path_of(example)
            moved = _moved(path, tensors)
            if moved and not because:
                more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
                raise GoldenError(
                    f"{path.name} would move: {'; '.join(moved[:3])}{more}. If that is meant, say "
                    "why: --because REASON"
                )
            about = {"because": because, "moved": "; ".join(moved[:12])} if moved else {}
            with whole_file(path) as stream:
                stream.write(save(tensors, {**_metadata(tensors), **about}))
            yield path


MOVES = 1e-9
"""Another build may change a number by this share of the tensor, and nothing has moved."""


def _moved(path: Path, tensors: dict[str, Tensor]) -> list[str]:
    """What is another than in the file that is there: each variant's tensors, step by step."""
    if not path.exists():
        return []
    try:
        there, _ = _read(path, path.stat().st_mtime_ns)
    except GoldenError as error:
        return [str(error)]
    found = []
    variants = {key.split("/", 1)[0] for key in there}
    for key in sorted(there.keys() | tensors.keys()):
        variant, step, kind, name = key.split("/", 3)
        what = f"{variant}, step {step}, {kind} {name}".strip()
        if key not in tensors:
            found.append(f"{what} is gone")
        elif key not in there:
            if variant in variants:
                found.append(f"{what} is new")
        elif there[key].shape != tensors[key].shape:
            found.append(f"{what} has another shape")
        else:
            apart = float((there[key] - tensors[key]).abs().max())
            if not apart <= MOVES * max(float(there[key].abs().max()), 1e-300):
                found.append(f"{what} moves by {apart:.3g}")
    return found


def _metadata(tensors: dict[str, Tensor]) -> dict[str, str]:
    return {
        "format": FORMAT,
        "contract": str(CONTRACT),
        "torch": torch.__version__.split("+")[0],
        "digest": _digest(tensors),
    }


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        if tensors[key].dtype != torch.float64:
            return "none: a tensor is not of float64"
        digest.update(key.encode())
        digest.update(tensors[key].contiguous().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> tuple[dict[str, Tensor], str]:
    """The tensors of a golden file and the torch version that made it."""
    from safetensors import safe_open

    again = "make it again with: refimpl golden --update"
    try:
        open_plain(path).close()
        with safe_open(path, framework="pt") as stored:
            about = stored.metadata() or {}
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    except Exception as error:  # what it raises for a damaged header is of many kinds
        raise GoldenError(f"{path.name} is truncated or damaged ({why(error)}); {again}") from error
    if about.get("format") != FORMAT or _is_of_another_contract(about):
        raise GoldenError(
            f"{path.name} is of contract {about.get('contract')}, format {about.get('format')}; "
            f"this refimpl has contract {CONTRACT}, format {FORMAT}; {again}"
        )
    if about.get("digest") != _digest(tensors):
        raise GoldenError(f"{path.name} does not have the digest that it states; {again}")
    return tensors, f"torch {about.get('torch')}"


def _is_of_another_contract(about: dict[str, str]) -> bool:
    """Whether its contract is none that still runs: a later one leaves trajectories as they are."""
    stated = about.get("contract", "")
    return not stated.isdigit() or refusal(int(stated)) is not None


def _steps(tensors: dict[str, Tensor], variant: str, path: Path) -> list[list[Observation]]:
    steps: list[list[Observation]] = [[] for _ in range(STEPS)]
    for key, value in tensors.items():
        of, number, kind, name = key.split("/", 3)
        if of == variant and not 1 <= int(number) <= STEPS:
            raise GoldenError(f"{path.name} has a step {number} of {variant}, of {STEPS}")
        if of == variant:
            steps[int(number) - 1].append(Observation(kind, name, value))  # type: ignore[arg-type]
    if not any(steps):
        raise GoldenError(f"{path.name} has no trajectory of {variant}; refimpl golden --update")
    return [step for step in steps if step]


def _require_same_names(
    path: Path, variant: str, golden: list[list[Observation]], found: list[list[Observation]]
) -> None:
    stored, here = ({seen.key for seen in steps[0]} for steps in (golden, found))
    if stored != here or len(golden) != len(found):
        odd = ", ".join(sorted(f"{kind} {name}".strip() for kind, name in stored ^ here))
        raise GoldenError(
            f"{path.name} is stale: the tensors of {variant} are not those of today "
            f"({odd or 'another number of steps'}); make it again with: refimpl golden --update"
        )
