"""Loops that take turns, so that a busy machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from benchmarks.loops import End


def medians(
    loops: Mapping[str, Callable[[], End]], repeats: int, then: Callable[[str, End], object]
) -> dict[str, float]:
    """Median seconds of each loop, and of what is done with its end ``then``."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for loop, run in loops.items():
            began = time.perf_counter()
            then(loop, run())
            seconds[loop].append(time.perf_counter() - began)
    return {loop: statistics.median(own) for loop, own in seconds.items()}
