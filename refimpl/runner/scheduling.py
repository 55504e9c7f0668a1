"""Which tests a worker gets, and when: the longest first, and none again after it crashed."""

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

    from refimpl.checking.checks import Cell
    from refimpl.contract import Variant


_CELL = re.compile(r"\[([^/\[\]]+/[^/]+)/[^/]+/[^/]+/[^/\]]+\](@|$)")
"""The id of a cell at the end of a test's name; it begins with the cell's group."""


class CrashSafeScheduling(LoadGroupScheduling):  # type: ignore[misc]
    """xdist's ``loadgroup``, except that the death of a worker costs only the test it died of.

    xdist puts that test back with the rest of its group, so that it kills one worker after the
    other until no restart is left. If two workers die at about the same time, xdist also gives work
    to workers that have not collected their tests yet, which ends the run.
    """

    def _split_scope(self, nodeid: str) -> str:
        """The group of a test; for a cell, example/variant, whose checks share a training run.

        xdist appends a test's group to its name and reads it there. That has had no effect since
        pytest 9.2, whose names are no longer plain text; a cell's group is in the name anyway.
        """
        cell = _CELL.search(nodeid)
        return cell[1] if cell else str(super()._split_scope(nodeid))

    def remove_node(self, node: WorkerController) -> str | None:
        """Give a dead worker's remaining tests to others; return the test that it died of."""
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
        """Give a worker more tests if it is ready; if not, this is called again once it is.

        A worker begins a test only when it knows the next one, or that there is none: with a
        single test, such as a dead worker may leave of its group, it would wait forever.
        """
        if node not in self.registered_collections:
            return
        super()._reschedule(node)
        while self.workqueue and not node.shutting_down and self._pending(node) < 2:
            self._assign_work_unit(node)

    def _pending(self, node: WorkerController) -> int:
        return int(self._pending_of(self.assigned_work[node]))


def longest_first(items: list[pytest.Item], seconds: Mapping[str, float]) -> list[pytest.Item]:
    """The tests, with the longest groups first; a group stays together and in its order.

    ``seconds`` are those of an earlier run, by the cell's id; without any, costs are estimated
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
    """The cell that a test runs, or ``None`` if it is another kind of test."""
    callspec = getattr(item, "callspec", None)
    cell: Cell | None = callspec.params.get("cell") if callspec is not None else None
    return cell


CALLS = 10_000
"""The calls that an update of a small net makes take as long as this many multiplications."""

BATCHES = 5
"""The assumed number of batches in an epoch that has any; counting them would load the data."""


def estimate(cell: Cell) -> float:
    """A guess at how long a cell's group takes, to order by: the arithmetic of one training run.

    It is epochs × batches × (the cost of the calls + that of one row). (On the whole suite, with 2
    and with 8 workers, this order takes at most 1 % longer than the best one.)
    """
    variant, tier = cell.subject.variant, cell.subject.tier
    if variant is None or variant.protocol is None:
        return 1.0
    batches = BATCHES if variant.protocol.batch_size is not None else 1
    return float(variant.protocol.epochs_on(tier) * batches * (CALLS + _multiplications(variant)))


def _multiplications(variant: Variant) -> int:
    """How many one row takes: a layer uses each parameter once at each place of its output."""
    facts = variant.facts
    if facts is None:
        return 1
    places = ((layer.parameters, math.prod(layer.output[2:])) for layer in facts.layers)
    return sum(own * times for own, times in places) or facts.parameters or 1
