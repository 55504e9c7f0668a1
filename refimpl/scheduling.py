"""Which tests a worker gets, and when: the longest first, and none a second time after a crash."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadGroupScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from refimpl.checking import Cell
    from refimpl.contract import Variant


_CELL = re.compile(r"\[([^/\[\]]+/[^/]+)/[^/]+/[^/]+/[^/\]]+\](@|$)")
"""The id of a cell at the end of a test's name; its group comes first in it."""


class CrashSafeScheduling(LoadGroupScheduling):  # type: ignore[misc]
    """xdist's ``loadgroup``, but the death of a worker costs no more than its test.

    xdist puts a test that killed its worker back with the rest of its group, where it kills one
    worker after the other until no restart is left. It also gives work to workers that have not
    collected theirs yet, which ends the run, where two die at about the same time.
    """

    def _split_scope(self, nodeid: str) -> str:
        """The group of a test: of a cell, example/variant, whose checks share a training run.

        xdist puts a test's group behind its name and reads it there, which has no effect since
        pytest 9.2 (its names are no plain text any more); a cell's stands in the name itself.
        """
        cell = _CELL.search(nodeid)
        return cell[1] if cell else str(super()._split_scope(nodeid))

    def remove_node(self, node: WorkerController) -> str | None:
        """Give what a dead worker still had to others; return the test that it died of."""
        assigned: dict[str, dict[str, bool]] = self.assigned_work.pop(node)
        running = [
            (unit, test) for unit in assigned.values() for test, done in unit.items() if not done
        ]
        if not running:
            return None
        unit, fatal = running[0]
        unit[fatal] = True
        for scope, rest in assigned.items():
            if not all(rest.values()):
                self.workqueue[scope] = rest
                self.workqueue.move_to_end(scope, last=False)
        for other in self.assigned_work:
            self._reschedule(other)
        return fatal

    def _reschedule(self, node: WorkerController) -> None:
        """Give a worker more, if it is ready; one that is not yet is asked again when it is.

        A worker begins a test only when it knows of the next one, or that there is none: with a
        single test, such as a dead worker may leave of its group, it would wait for ever.
        """
        if node not in self.registered_collections:
            return
        super()._reschedule(node)
        while self.workqueue and not node.shutting_down and self._pending(node) < 2:
            self._assign_work_unit(node)

    def _pending(self, node: WorkerController) -> int:
        return int(self._pending_of(self.assigned_work[node]))


def longest_first(items: list[pytest.Item], seconds: Mapping[str, float]) -> list[pytest.Item]:
    """The tests, those groups first that take longest; a group stays together and in its order.

    ``seconds`` are of an earlier run, by the name of the cell; without any, costs are reckoned
    from the protocols. Tests of no cell come last: they are many and short.
    """
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        groups[_group(item)].append(item)
    costs = {group: _cost(own, seconds) for group, own in groups.items()}
    return [item for group in sorted(groups, key=lambda g: -costs[g]) for item in groups[group]]


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return str(mark.args[0]) if mark is not None and mark.args else item.nodeid


def _cost(items: Iterable[pytest.Item], seconds: Mapping[str, float]) -> float:
    cells = [cell for item in items if (cell := cell_of(item)) is not None]
    if seconds:
        return sum(seconds.get(cell.id, 0.0) for cell in cells)
    return max((estimate(cell) for cell in cells), default=0.0)


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell that a test asks, or ``None`` where it is another kind of test."""
    callspec = getattr(item, "callspec", None)
    cell: Cell | None = callspec.params.get("cell") if callspec is not None else None
    return cell


CALLS = 10_000
"""An update of a small net takes as long in calls as so many multiplications."""

BATCHES = 5
"""So many batches are reckoned to be in an epoch that has any; counting would load the data."""


def estimate(cell: Cell) -> float:
    """A guess at how long a cell's group takes, to order by: the arithmetic of one training run.

    Epochs times batches times what one row costs, and what the calls cost. (On the whole suite, 2
    and 8 workers that start by it are done within 1 % of the time that the best order takes.)
    """
    variant, tier = cell.subject.variant, cell.subject.tier
    if variant is None or variant.protocol is None:
        return 1.0
    batches = BATCHES if variant.protocol.batch_size is not None else 1
    return float(variant.protocol.epochs_on(tier) * batches * (CALLS + _multiplications(variant)))


def _multiplications(variant: Variant) -> int:
    """How many one row takes: each parameter of a layer once for each place of its output."""
    facts = variant.facts
    if facts is None:
        return 1
    places = ((layer.parameters, math.prod(layer.output[2:])) for layer in facts.layers)
    return sum(own * times for own, times in places) or facts.parameters or 1
