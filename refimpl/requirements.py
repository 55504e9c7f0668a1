"""What a machine may lack to run a check: the only reasons to skip one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from refimpl.data import DataSet, Tier, data_root
from refimpl.errors import DataMissingError, MissingExtraError

if TYPE_CHECKING:
    from refimpl.contract import Example

NEEDS_CUDA = "needs a CUDA device"
NEEDS_TWO_CUDA = "needs 2 CUDA devices"
NEEDS_TF32 = "needs a CUDA device with TF32"
NEEDS_GLOO = "needs gloo"
NEEDS_FULLY_SHARD = "needs torch 2.6 for fully_shard"
NEEDS_COMPILER = "needs a C++ compiler"
NEEDS_REAL_DATA = "needs real data: set REFIMPL_DATA"
NUMPY_ON_CPU = "computes in NumPy, so only on the CPU"

REFUSES_BCE = "needs no BCELoss: torch refuses it under autocast on a GPU, as unsafe"

ESCAPES_AUTOCAST = (
    "needs a linear layer: on the CPU, autocast does not reach convolutions under vmap"
)

NEEDS_ARRAYS = "needs rows that are arrays, which alone can be given to many seeds at once"

TOO_COARSE = (
    "needs a finer precision: rounding may change every tensor by over a tenth of its value"
)

EXEMPT = "exempt: "
"""Before the reason for which a variant is exempt from a check, as its plugin states it."""

EXTRAS = {
    "torchvision": "vision",
    "torchtext": "text",
    "tensorboard": "tensorboard",
    "ray": "ray",
}
"""Optional packages, and the extra of refimpl that installs each."""

REASONS = frozenset(
    {
        NEEDS_CUDA,
        NEEDS_TWO_CUDA,
        NEEDS_TF32,
        NEEDS_GLOO,
        NEEDS_FULLY_SHARD,
        NEEDS_COMPILER,
        NEEDS_REAL_DATA,
        NUMPY_ON_CPU,
        REFUSES_BCE,
        ESCAPES_AUTOCAST,
        NEEDS_ARRAYS,
        TOO_COARSE,
        *(f"needs {package}" for package in EXTRAS),
    }
)


def explains(reason: str, said: Iterable[str | None]) -> bool:
    """Whether a check may be skipped for this reason.

    It must be one of :data:`REASONS`, or what the execution itself ``said``: a plugin may add a
    device that refimpl does not know. A variant may also be exempt.
    """
    if reason.startswith(EXEMPT):
        return True
    # Last, for an execution may look at data that cannot be made here.
    return reason in REASONS or (reason.startswith("needs ") and reason in said)


@cache
def import_error(package: str) -> str | None:
    """Why an optional package does not load here, in one line; ``None`` if it does.

    What it warns of while it is imported is no news to whoever runs the checks.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(package)
    except Exception as error:  # a broken binary package raises OSError and others
        reason = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {reason[0]}"
    return None


def _cuda() -> str | None:
    import torch

    return None if torch.cuda.is_available() else NEEDS_CUDA


def _package(name: str) -> Callable[[], str | None]:
    return lambda: f"needs {name}" if import_error(name) else None


_PROBES: dict[str, Callable[[], str | None]] = {
    "cuda": _cuda,
    **{name: _package(name) for name in EXTRAS},
}


NEEDS = tuple(_PROBES)
"""What ``needs=`` of a variant, an exact value, a failure or an erratum may say."""


def missing(need: str | None) -> str | None:
    """The reason to skip what needs this, or ``None`` if it is available or nothing is needed.

    ``need`` is one of :data:`NEEDS`; anything else raises ``ValueError``.
    """
    if need is None:
        return None
    if need not in NEEDS:
        raise ValueError(f"unknown need {need!r}; there are: {', '.join(NEEDS)}")
    return _PROBES[need]()


def missing_data(data: DataSet, tier: Tier) -> str | None:
    """The reason to skip what reads this data set, or ``None`` if the data set is there.

    Raises :class:`~refimpl.errors.DataError` if it is there but damaged.
    """
    if data.batches is not None:
        return None
    try:
        data.load(tier)
    except DataMissingError:
        return NEEDS_REAL_DATA
    except MissingExtraError as error:
        return next((f"needs {p}" for p in EXTRAS if p in str(error)), str(error))
    return None


def require_some_real_data(examples: Iterable[Example]) -> None:
    """Raise :class:`DataMissingError` if none of these examples finds its real data.

    Examples that read no files, because they train on nothing or on generated data, do not count.
    """
    reading = [example for example in examples if _read_by(example)]
    errors = [_without_real_data(example) for example in reading]
    lacking = [error for error in errors if error is not None]
    if lacking and len(lacking) == len(reading):
        raise lacking[0]


def _read_by(example: Example) -> list[DataSet]:
    """The data sets of an example that are read from files."""
    data = dict.fromkeys(variant.data for variant in example.variants)
    return [each for each in data if each is not None and each.files]


def _without_real_data(example: Example) -> DataMissingError | None:
    """What is missing, if no variant of an example finds its real data."""
    first: DataMissingError | None = None
    for data in _read_by(example):
        try:
            data.require(data_root())
        except DataMissingError as error:
            first = first or error
        else:
            return None
    return first
