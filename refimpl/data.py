"""Data sets in two tiers behind one interface: generated stand-ins, and the documents' own files.

Arrays are NumPy here, so that a data set is the same for every torch version;
:class:`refimpl.training.problem.Problem` converts them to tensors on its device.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.errors import ContractError, DataMissingError
from refimpl.tiers import TIERS as TIERS
from refimpl.tiers import Tier as Tier
from refimpl.trees import is_ragged, leaves, mapped, named_leaves, rows_of

DATA_VARIABLE = "REFIMPL_DATA"


@dataclass(frozen=True)
class Rows:
    """Inputs ``x`` and targets ``y`` of one split; row i of one belongs to row i of the other.

    Each is an array, or a tuple or dict of arrays. A list has one array for each row, for rows of
    different lengths; the example's ``collate`` then makes batches of them.
    """

    x: Any
    y: Any

    def __post_init__(self) -> None:
        for what, tree in (("inputs", self.x), ("targets", self.y)):
            counts = {len(leaf) for leaf in leaves(tree) if hasattr(leaf, "__len__")}
            if len(counts) > 1:
                raise ValueError(f"the {what} have parts of {sorted(counts)} rows; give as many")
        if rows_of(self.x) != rows_of(self.y):
            raise ValueError(f"{rows_of(self.x)} rows of inputs but {rows_of(self.y)} of targets")

    def __len__(self) -> int:
        return rows_of(self.x)


@dataclass(frozen=True)
class Splits:
    """The rows to train on and, if the document has them, the rows to validate on."""

    train: Rows
    valid: Rows | None = None

    @property
    def shapes(self) -> list[Any]:
        """Of arrays: the shapes of x and y to train on, then of those to validate on."""
        parts = [rows for rows in (self.train, self.valid) if rows is not None]
        return [mapped(np.shape, tree) for rows in parts for tree in (rows.x, rows.y)]


@dataclass(frozen=True)
class DataSet:
    """One data set.

    ``stand_in`` makes the small offline imitation, the same on every machine.
    ``real`` reads the documents' own files from a folder; it is ``None`` if the document generates
    its data by a recipe, so that both tiers are the same.
    ``files`` are the paths that ``real`` reads, relative to that folder; empty if ``real`` is a
    recipe too, only of a size that is too large for the stand-in.

    A stream has no rows: ``batches(rng)`` gives the batches of one epoch, ``length`` of them, each
    an (input, target) of arrays; an environment to act in may stand in an input's place. ``rng`` is
    a NumPy generator for the run's seed and the epoch; a batch that draws needs one of its own.

    ``plain`` reads the same files a second time, by other means than ``real``, and must give the
    same arrays. ``printed()`` are rows that the document prints: the real training rows have them.
    """

    name: str
    stand_in: Callable[[], Splits] | None = None
    real: Callable[[Path], Splits] | None = None
    files: tuple[str, ...] = ()
    batches: Callable[[np.random.Generator], Iterable[tuple[Any, Any]]] | None = None
    length: int | None = None
    plain: Callable[[Path], Splits] | None = None
    printed: Callable[[], Rows] | None = None

    def load(self, tier: Tier) -> Splits:
        """The rows of one tier; loaded once per process.

        Raises :class:`DataMissingError` if the real files are missing,
        :class:`~refimpl.errors.DataError` if one of them is damaged and
        :class:`~refimpl.errors.ContractError` if they are not rows of NumPy arrays.
        """
        if self.stand_in is None:
            raise ContractError(f"data set {self.name!r} has no rows: it is a stream of batches")
        if tier == "stand-in" or self.real is None:
            return _made(self.stand_in)
        # A recipe reads no file, so it needs no folder either.
        root = data_root() if self.files else Path()
        self.require(root)
        return _read(self.real, root)

    def read_plainly(self) -> Splits | None:
        """The real rows by the second reading, if there is one. Raises as :meth:`load`."""
        if self.plain is None:
            return None
        root = data_root()
        self.require(root)
        return made_by(self.plain, self.plain(root))

    def digest(self, tier: Tier) -> str:
        """Sixteen hexadecimal digits that identify the content of the arrays; of a stream, "".

        Computed once per process. Raises as :meth:`load`.
        """
        if self.batches is not None:
            return ""
        return _digest(self.load(tier))

    def require(self, root: Path) -> None:
        """Raise :class:`DataMissingError` unless every real file is under ``root``."""
        missing = [name for name in self.files if not (root / name).exists()]
        if missing:
            raise DataMissingError(
                f"the real data of {self.name!r} is not complete: {', '.join(missing)} "
                f"not found under {root}; set {DATA_VARIABLE} to the folder that contains it, "
                f"or run: refimpl data fetch {self.name}"
            )


def data_root() -> Path:
    """The folder of real data: ``REFIMPL_DATA`` if it is set, else the user's cache."""
    named = os.environ.get(DATA_VARIABLE)
    if named:
        root = Path(named).expanduser()
        if not root.is_dir():
            raise DataMissingError(f"{DATA_VARIABLE} names {named}, which is not a folder")
        return root
    return cache_root()


def cache_root() -> Path:
    """Where downloads and unpacked archives are kept."""
    import pooch

    return Path(pooch.os_cache("refimpl"))


@cache
def _made(stand_in: Callable[[], Splits]) -> Splits:
    return _frozen(made_by(stand_in, stand_in()))


@cache
def _read(real: Callable[[Path], Splits], root: Path) -> Splits:
    return _frozen(made_by(real, real(root)))


def made_by(maker: Callable[..., Any], splits: Any) -> Splits:
    """``splits`` as ``maker`` returned them.

    Raises :class:`~refimpl.errors.ContractError` if they are not rows of NumPy arrays.
    """
    who = f"{getattr(maker, '__name__', 'the data set')}()"
    if not isinstance(splits, Splits):
        found = type(splits).__name__
        raise ContractError(f"{who} gives {found}, not Splits; give Splits(train=Rows(x, y))")
    for rows, what in ((splits.train, "train"), (splits.valid, "validate")):
        if rows is None and what == "validate":
            continue
        if not isinstance(rows, Rows):
            found = type(rows).__name__
            raise ContractError(f"{who} gives {found} to {what} on; give Rows(x, y)")
        for name, tree in (("x", rows.x), ("y", rows.y)):
            for path, array in named_leaves(tree):
                ragged = is_ragged(array) and all(isinstance(row, np.ndarray) for row in array)
                if not (isinstance(array, np.ndarray) or ragged):
                    part = f"{name}.{path}" if path else name
                    found = type(array).__name__
                    raise ContractError(f"{who} gives {part} as {found}; give a NumPy array")
        if len(rows) == 0:
            raise ContractError(f"{who} gives no rows to {what} on")
    return splits


def _frozen(splits: Splits) -> Splits:
    """The same rows, read-only: no run may change what the next one reads."""
    for rows in (splits.train, splits.valid):
        if rows is not None:
            for array in arrays_of(rows):
                array.setflags(write=False)
    return splits


def arrays_of(rows: Rows) -> list[NDArray[Any]]:
    """Every array of some rows: inputs, then targets."""
    found = leaves((rows.x, rows.y))
    return [array for leaf in found for array in (leaf if is_ragged(leaf) else [leaf])]


_digests: dict[int, str] = {}


def _digest(splits: Splits) -> str:
    """The digest of splits; cached by identity, since loaded splits are kept."""
    if id(splits) not in _digests:
        hasher = hashlib.blake2b(digest_size=8)
        for rows in (splits.train, splits.valid):
            for array in arrays_of(rows) if rows is not None else ():
                hasher.update(f"{array.dtype.str}{array.shape}".encode())
                hasher.update(np.ascontiguousarray(array).data)
        _digests[id(splits)] = hasher.hexdigest()
    return _digests[id(splits)]


def philox(*key: int | str) -> np.random.Generator:
    """A NumPy Philox generator for this key: the same draws on every platform and version."""
    words = [k if isinstance(k, int) else int.from_bytes(k.encode(), "little") for k in key]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
