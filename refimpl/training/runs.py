"""Training runs, kept in memory so that one run serves every check that needs it."""

from __future__ import annotations

from refimpl.contract import Execution, Variant
from refimpl.data import Tier
from refimpl.training.kept import Kept
from refimpl.training.loop import History, train
from refimpl.training.problem import pose

_kept = Kept[History](8)


def trained(variant: Variant, tier: Tier, execution: Execution, seed: int | None = None) -> History:
    """The whole run of a variant by its protocol, not trained again while it is kept."""

    def make() -> History:
        problem = pose(variant, tier, seed=seed, execution=execution)
        return train(variant, problem, watched=True)

    return _kept.of(variant, execution, make, tier, seed)
