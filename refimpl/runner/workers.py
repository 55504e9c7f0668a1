"""What each worker of a parallel run may use: its GPU, and its share of the cores.

Only the arithmetic; :mod:`refimpl.runner.pytest_workers` uses it. No torch here: a worker's GPU and
threads must be settled before torch is imported in it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"

WORKER_MEMORY = 4096
"""MiB of a GPU that a worker is assumed to need: a CUDA context, cuBLAS, and an example."""

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""The variable that makes torch ask for large pages, if the kernel leaves that to programs."""

Run = Callable[[Sequence[str]], str]
"""Runs a program and returns what it prints; raises ``OSError`` or ``SubprocessError``."""


# --- cores ---------------------------------------------------------------------------------------


def cores() -> int:
    """How many cores this process may use, given its affinity and a container's quota."""
    from joblib import cpu_count

    return int(cpu_count())


def threads_each(cores: int, workers: int) -> int:
    """How many threads each worker gets, so that together they fill the cores and no more."""
    return max(1, cores // max(1, workers))


def use_large_pages(environment: MutableMapping[str, str] = os.environ) -> None:
    """Put tensors of 2 MiB and more on large pages, unless the caller has said otherwise.

    A float64 convolution unfolds its input into new memory at each step, whose page faults take a
    fifth of the step's time. Read when torch makes its first tensor (pytorch#107697).
    """
    environment.setdefault(LARGE_PAGES, "1")


# --- GPUs ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG slice of one; ``id`` is its name in ``CUDA_VISIBLE_DEVICES``.

    ``memory`` is its free memory in MiB, if known. ``exclusive`` means that only one process at a
    time can use it.
    """

    id: str
    uuid: str = ""
    memory: int | None = None
    exclusive: bool = False

    @property
    def capacity(self) -> int:
        """How many workers fit on it; at least one, since the caller chose this GPU."""
        if self.exclusive or self.memory is None:
            return 1
        return max(1, self.memory // WORKER_MEMORY)


def named_gpus(value: str | None) -> list[str] | None:
    """The ids in a ``CUDA_VISIBLE_DEVICES``; ``None`` if it is not set, which means all.

    As in CUDA, everything from the first empty or negative id on is left out.
    """
    if value is None:
        return None
    named: list[str] = []
    for entry in value.split(","):
        name = entry.strip()
        if not name or name.startswith("-") or name.lower() in ("nodevfiles", "none"):
            break
        named.append(name)
    return list(dict.fromkeys(named))


def find_gpus(environment: Mapping[str, str] = os.environ, run: Run | None = None) -> list[Gpu]:
    """The GPUs that the caller lets this process see, under the caller's own names for them.

    Found by ``nvidia-smi`` or, if that is missing (ROCm, some containers), by torch in a separate
    process, so that no CUDA context is made in this one.
    """
    run = run or _output
    named = named_gpus(environment.get(VISIBLE))
    if named == []:
        return []
    listed = _by_nvidia_smi(run)
    if listed:
        return listed if named is None else _chosen(named, listed)
    seen = _by_torch(run)
    names = [str(index) for index in range(len(seen))] if named is None else named
    return [Gpu(name, memory=memory) for name, memory in zip(names, seen, strict=False)]


def _chosen(named: Sequence[str], listed: Sequence[Gpu]) -> list[Gpu]:
    """The named GPUs, up to the first unknown name: CUDA ignores everything from there on."""
    chosen = []
    for name in named:
        gpu = _match(name, listed)
        if gpu is None:
            break
        chosen.append(Gpu(name, gpu.uuid, gpu.memory, gpu.exclusive))
    return chosen


def _match(name: str, listed: Sequence[Gpu]) -> Gpu | None:
    if name.isdigit():
        return next((gpu for gpu in listed if gpu.id == name), None)
    if "/" in name:  # MIG-GPU-uuid/instance/instance: how drivers before 470 name a slice
        return Gpu(name)
    return next((gpu for gpu in listed if name and gpu.uuid.startswith(name)), None)


def _by_nvidia_smi(run: Run) -> list[Gpu]:
    """Every GPU of the machine; a divided one is replaced by its MIG slices."""
    fields = "index,uuid,memory.free,compute_mode,mig.mode.current"
    try:
        table = run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"])
        divided = "Enabled" in table
        slices = _slices(run(["nvidia-smi", "-L"])) if divided else {}
    except (OSError, subprocess.SubprocessError):
        return []
    gpus: list[Gpu] = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 5 and cells[0].isdigit():
            index, uuid, free, mode, _ = cells
            whole = Gpu(index, uuid, int(free) if free.isdigit() else None, "Exclusive" in mode)
            gpus += slices.get(uuid) or [whole]
    return gpus


def _slices(listing: str) -> dict[str, list[Gpu]]:
    """The MIG slices in what ``nvidia-smi -L`` prints, by the UUID of their GPU."""
    slices: dict[str, list[Gpu]] = {}
    parent = ""
    for line in listing.splitlines():
        uuid = re.search(r"UUID: ([^)]+)\)", line)
        if uuid is None:
            continue
        size = re.match(r"\s+MIG \S*?\.(\d+)gb", line)
        if line.startswith("GPU "):
            parent = uuid[1]
        elif size is not None:
            slices.setdefault(parent, []).append(Gpu(uuid[1], uuid[1], int(size[1]) * 1024))
    return slices


_ASK_TORCH = (
    "import json, torch; c = torch.cuda; "
    "print(json.dumps([c.mem_get_info(i)[0] >> 20 for i in range(c.device_count())]))"
)


def _by_torch(run: Run) -> list[int]:
    """The free memory, in MiB, of each GPU that torch sees in another process."""
    try:
        printed = run([sys.executable, "-c", _ASK_TORCH]).strip().splitlines()
        return [int(free) for free in json.loads(printed[-1])]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return []


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


# --- who gets which ------------------------------------------------------------------------------


def places(gpus: Sequence[Gpu], each: int = 1) -> list[str]:
    """The ``CUDA_VISIBLE_DEVICES`` of each worker, in the order in which workers start.

    The first workers get different GPUs; further ones share them as long as memory lasts. A worker
    gets ``each`` GPUs; those left over stay unused.
    """
    groups = [gpus[i : i + each] for i in range(0, len(gpus) - each + 1, each)]
    capacities = [min(gpu.capacity for gpu in group) for group in groups]
    return [
        ",".join(gpu.id for gpu in group)
        for level in range(max(capacities, default=0))
        for group, capacity in zip(groups, capacities, strict=True)
        if capacity > level
    ]


def count_on_gpus(gpus: Sequence[Gpu], cores: int, each: int = 1) -> int:
    """How many workers the GPUs and the cores allow; at least one."""
    return max(1, min(len(places(gpus, each)), cores))


@dataclass
class Pinning:
    """Which worker has which place. A worker that takes over from a dead one gets a free place."""

    places: Sequence[str]
    taken: dict[str, str] = field(default_factory=dict)

    def take(self, worker: str) -> str:
        """Give a worker the least occupied place, the first if there are several."""
        load = Counter(self.taken.values())
        offered = Counter(self.places)
        place = min(dict.fromkeys(self.places), key=lambda place: load[place] / offered[place])
        self.taken[worker] = place
        return place

    def release(self, worker: str) -> None:
        """Free the place of a worker that is gone."""
        self.taken.pop(worker, None)


def peak_memory() -> int:
    """The peak memory of this process in MiB; 0 if the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had when it started this process
        peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(peak[1]) // 1024 if peak else 0
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit)
