"""What is made of a variant once, and kept for every check that needs it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from refimpl.contract import Execution, Variant

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """The last few things that were made, each of one variant under one execution.

    Variants and executions are identified by ``id()``: each is built once, by its plugin, and is
    kept with what was made, so that its id is not reused.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: OrderedDict[Hashable, tuple[Variant, Execution, Made]] = OrderedDict()

    def of(
        self, variant: Variant, execution: Execution, make: Callable[[], Made], *more: Hashable
    ) -> Made:
        """What ``make()`` gives, made only if it is not kept; ``more`` is what else decides it."""
        key = (id(variant), id(execution), *more)
        if key not in self._kept:
            self._kept[key] = (variant, execution, make())
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return self._kept[key][2]
