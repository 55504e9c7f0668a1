"""A piece of work that a device records once and repeats without Python: CUDA's graphs.

Torch gives HIP's graphs under the same names. A recording has the addresses, the shapes and the
Python numbers of the time of its capture, and nothing of what Python does beside the kernels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

WARM_UPS = 3
"""So often work is done before its capture: libraries choose kernels and make their workspaces."""

Work = Callable[[], None]


class Graphs(Protocol):
    """What a device must offer: the generator that its dropout draws from, and two functions.

    ``warm_up`` does the work a few times and raises if it waits for the device. ``capture`` records
    it without doing it, and returns what does it; both may raise whatever the back end raises.
    A seed that the generator is given before a replay decides the replay's draws.
    """

    @property
    def generator(self) -> torch.Generator: ...  # noqa: D102

    def warm_up(self, work: Work) -> None: ...  # noqa: D102

    def capture(self, work: Work) -> Work: ...  # noqa: D102


def graphs_on(device: torch.device) -> Graphs | None:
    """The graphs of a device; ``None`` where torch has none, as on the CPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    index = torch.cuda.current_device() if device.index is None else device.index
    return CudaGraphs(index)


@dataclass(frozen=True)
class CudaGraphs:
    """The graphs of the CUDA (or HIP) device of this number."""

    device: int

    @property
    def generator(self) -> torch.Generator:
        """The device's default generator, which every capture registers by itself."""
        torch.cuda.init()  # type: ignore[no-untyped-call]
        return torch.cuda.default_generators[self.device]

    def warm_up(self, work: Work) -> None:
        """Do the work on a stream of its own; what waits for the device raises here already.

        Raised within a capture, the same error would leave the allocator and generator unusable.
        """
        with torch.cuda.device(self.device), _no_waiting():
            main = torch.cuda.current_stream()
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(main)
            try:
                with torch.cuda.stream(side):
                    for _ in range(WARM_UPS):
                        work()
            finally:
                main.wait_stream(side)

    def capture(self, work: Work) -> Work:
        """Record the work; memory that it allocates stays the graph's own."""
        with torch.cuda.device(self.device):
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph):
                    work()
            except BaseException:
                _no_longer_capturing(self.generator)
                raise
        return graph.replay


@contextmanager
def _no_waiting() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _no_longer_capturing(generator: torch.Generator) -> None:
    """A capture that fails leaves the generator's state waiting for its end; a copy does not wait.

    Graphs that were captured before go on with the old state, so they must not be used again.
    """
    if hasattr(generator, "graphsafe_set_state"):  # torch 2.4 and later
        generator.graphsafe_set_state(generator.clone_state())
