"""Checkpoints: parameters, buffers, optimizer state and step, loadable with ``weights_only``."""

from __future__ import annotations

import copy
import hashlib
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
from refimpl.reading import plain_bytes, shaped, why
from refimpl.trees import mapped
from refimpl.writing import whole_file

FORMAT = 3
"""The only format that is read: formats 1 and 2 have no digest, and damage to them would not show.
"""

TRAILER = b"\nrefimpl sha256 "
"""What stands after the archive, before its digest; a zip archive may have something after it."""

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
    about: Mapping[str, str | int | None] = field(default_factory=dict)

    def require(self, path: Path, about: Mapping[str, str | int | None]) -> None:
        """Raise :class:`CheckpointError` if it is of another run than this."""
        for name, value in about.items():
            if self.about.get(name) != value:
                raise CheckpointError(
                    f"{path} is of another run: its {name} is {self.about.get(name)!r}, "
                    f"and not {value!r}"
                )


def take(step: Step, number: int, **about: str | int | None) -> Checkpoint:
    """The checkpoint after update ``number`` (from 1) of the run that ``about`` describes."""
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
        about=about,
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
        "about": dict(checkpoint.about),
    }
    archive = io.BytesIO()
    torch.save(content, archive)
    stored = archive.getvalue()
    with whole_file(path) as stream:
        stream.write(stored + TRAILER + hashlib.sha256(stored).hexdigest().encode())


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
    """What the file holds before its digest, which is right; it begins as an archive does."""
    try:
        stored = plain_bytes(path, 64 << 30)
    except OSError as error:
        reason = f"{path} cannot be read: {why(error)}"
        raise CheckpointError(f"{reason}; expected {EXPECTED}") from error
    if not stored.startswith(ARCHIVE):
        begins = f"a file that begins with {stored[:8]!r}" if stored else "an empty file"
        raise _no_checkpoint(path, begins)
    archive, mark, digest = stored.rpartition(TRAILER)
    if not mark:
        raise _no_checkpoint(path, "an archive without a digest, which formats 1 and 2 lacked")
    found = hashlib.sha256(archive).hexdigest()
    if digest.decode(errors="replace") != found:
        raise CheckpointError(f"{path} is damaged: it does not have the digest that it states")
    return archive


def _no_checkpoint(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a checkpoint, or is damaged: found {found}, expected {EXPECTED}"
    )


def _checkpoint(path: Path, content: Any) -> Checkpoint:
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, int) or isinstance(found, bool):
        raise CheckpointError(f"{path} is a file of torch, but not a checkpoint of refimpl")
    if found != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {found}, this refimpl reads {FORMAT}")
    try:
        step, optimizer = content["step"], content["optimizer"]
        if not isinstance(step, int) or isinstance(step, bool) or step < 1:
            raise ValueError(f"step is {step!r}")
        if optimizer is not None and set(optimizer) != {"state", "param_groups"}:
            raise ValueError("its optimizer has no state and param_groups")
        return Checkpoint(
            step=step,
            parameters={n: v.numpy() for n, v in content["parameters"].items()},
            buffers={n: torch.as_tensor(v) for n, v in content["buffers"].items()},
            optimizer=optimizer,
            state=dict(content["state"]),
            about=shaped(content["about"], dict[str, str | int | None]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is a damaged checkpoint: {error!r}") from error
