"""Training runs, kept in memory so that one run serves every check that needs it."""

from __future__ import annotations

from collections import OrderedDict

from refimpl.contract import Execution, Variant
from refimpl.data import Tier
from refimpl.training.loop import History, train
from refimpl.training.problem import pose

KEPT = 8

_kept: OrderedDict[tuple[object, ...], tuple[Variant, Execution, History]] = OrderedDict()


def trained(variant: Variant, tier: Tier, execution: Execution, seed: int | None = None) -> History:
    """The whole run of a variant by its protocol, not trained again while it is kept.

    Variants and executions are identified by ``id()``: each is built once, by its plugin, and is
    kept with its history so that its id is not reused.
    """
    key = (id(variant), tier, id(execution), seed)
    if key not in _kept:
        problem = pose(variant, tier, seed=seed, execution=execution)
        _kept[key] = (variant, execution, train(variant, problem, watched=True))
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return _kept[key][2]
