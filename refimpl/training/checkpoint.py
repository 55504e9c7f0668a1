"""Checkpoints: parameters, buffers, optimizer state and step, loadable with ``weights_only``."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from numpy.typing import NDArray

from refimpl.contract import Step
from refimpl.errors import CheckpointError
from refimpl.trees import mapped
from refimpl.writing import whole_file

FORMAT = 2
READ = (1, 2)
"""The formats that are read. Format 1 had one optimizer and no further state."""

ARCHIVE = b"PK"
"""What a file of ``torch.save`` begins with: it is a zip archive."""

EXPECTED = "a checkpoint written by refimpl run --save"


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stopped: enough for another process to continue as if nothing had happened.

    ``optimizer`` is the state of a single optimizer. ``state`` has, by name, that of several
    optimizers and of whatever else the steps show in theirs. With ``parameters_only``, what it
    lacks begins anew instead of raising.
    """

    step: int
    parameters: Mapping[str, NDArray[Any]]
    buffers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Any] | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    parameters_only: bool = False


def take(step: Step, number: int) -> Checkpoint:
    """The checkpoint after update ``number`` (counted from 1)."""
    model = step.module
    optimizers = dict(step.optimizers)
    single = optimizers.pop("", None)
    return Checkpoint(
        step=number,
        parameters={
            name: torch.as_tensor(value).detach().cpu().numpy().copy()
            for name, value in step.parameters.items()
        },
        buffers={n: b.detach().cpu().clone() for n, b in model.named_buffers()} if model else {},
        optimizer=copy.deepcopy(single.state_dict()) if single is not None else None,
        state={name: _state(kept) for name, kept in {**step.state, **optimizers}.items()},
    )


def _state(kept: Any) -> Any:
    """A copy, for good, of what has a ``state_dict`` or of a tree of tensors."""
    if hasattr(kept, "state_dict"):
        return copy.deepcopy(kept.state_dict())
    return mapped(lambda leaf: leaf.detach().clone() if torch.is_tensor(leaf) else leaf, kept)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    content = {
        "format": FORMAT,
        "step": checkpoint.step,
        "parameters": {n: torch.from_numpy(v) for n, v in checkpoint.parameters.items()},
        "buffers": dict(checkpoint.buffers),
        "optimizer": checkpoint.optimizer,
        "state": dict(checkpoint.state),
    }
    with whole_file(path) as stream:
        torch.save(content, stream)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint without unpickling anything but weights.

    Raises :class:`CheckpointError` if the file is missing, damaged or not a checkpoint.
    """
    stored = _archive(path)
    try:
        content = torch.load(io.BytesIO(stored), weights_only=True, map_location="cpu")
    except UnpicklingError as error:  # torch's message advises unpickling the file regardless
        raise CheckpointError(
            f"{path} holds objects that are not weights, and refimpl unpickles none"
        ) from error
    except Exception as error:
        raise _no_checkpoint(path, "an archive that torch cannot read") from error
    return _checkpoint(path, content)


def _archive(path: Path) -> bytes:
    """What the file holds; it begins as an archive does."""
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}; expected {EXPECTED}"
        ) from error
    if not stored.startswith(ARCHIVE):
        begins = f"a file that begins with {stored[:8]!r}" if stored else "an empty file"
        raise _no_checkpoint(path, begins)
    return stored


def _no_checkpoint(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a checkpoint, or is damaged: found {found}, expected {EXPECTED}"
    )


def _checkpoint(path: Path, content: Any) -> Checkpoint:
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, int):
        raise CheckpointError(f"{path} is a file of torch, but not a checkpoint of refimpl")
    if found not in READ:
        raise CheckpointError(f"{path} has checkpoint format {found}, this refimpl reads {FORMAT}")
    try:
        return Checkpoint(
            step=int(content["step"]),
            parameters={n: v.numpy() for n, v in content["parameters"].items()},
            buffers=dict(content["buffers"]),
            optimizer=content["optimizer"],
            state=content["state"] if found > 1 else {},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is a damaged checkpoint: {error!r}") from error
