"""Which versions of the contract run here, and what to change in a plugin written for another.

A version is dropped at the earliest two minor releases after its successor appears; until then its
plugins run unchanged. This module imports nothing, so that the catalogue can refuse a plugin
without importing it.
"""

from __future__ import annotations

NEWEST = 2
"""The version of the contract that :mod:`refimpl.contract` defines."""

OLDEST = 1
"""The oldest contract whose plugins still run."""

CHANGES: dict[int, str] = {
    1: "write Step(loss, net, output, target, optimizer), and model= by name for bare tensors; "
    "leave out bare=, and data_parallel= where it follows from the layers; write Variant without "
    "steps for ModuleVariant; leave out trainable= where all parameters are",
}
"""What a plugin must change to get from this version of the contract to the next."""


def refusal(stated: int) -> tuple[str, str] | None:
    """Why a plugin written for this contract cannot run, and what to do; ``None`` if it can."""
    if stated > NEWEST:
        return f"written for contract {stated}, this refimpl knows {NEWEST}", "upgrade refimpl"
    if stated < OLDEST:
        changes = [CHANGES[version] for version in range(stated, OLDEST) if version in CHANGES]
        return (
            f"written for contract {stated}, this refimpl needs {OLDEST} or newer",
            "; ".join([*changes, f"state contract={OLDEST}"]),
        )
    return None
