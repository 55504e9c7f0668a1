"""How many threads torch computes with.

Threads wait for each other at the end of every operation. Operations on small batches take so
little time that a second thread makes them slower, and many times slower where another program uses
one of the cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""By which a caller says how many threads there are to be."""

LARGE = 100_000
"""Numbers in a batch from which on more than one thread helps."""


_limits: list[int] = []
"""What this process was limited to by us; to be within it is no wish of the caller's."""


def stated(environment: Mapping[str, str] = os.environ) -> str | None:
    """How many threads the caller has said, if so."""
    return next((environment[name] for name in VARIABLES if name in environment), None)


def limit(threads: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Let this process compute with this many threads, unless the caller has said otherwise.

    What is said for one library is meant for all. The variables are read when torch and NumPy are
    imported; torch is set directly if it is already imported.
    """
    said = stated(environment)
    for variable in VARIABLES:
        environment.setdefault(variable, said or str(threads))
    if said is None:
        _limits.append(threads)
    torch = sys.modules.get("torch")
    if torch is not None and said is None:
        torch.set_num_threads(threads)


@contextmanager
def suited_to(numbers: Callable[[], int]) -> Iterator[None]:
    """Compute with one thread where a batch has few ``numbers``, unless the caller says otherwise.

    The number of threads is put back afterwards.
    """
    import torch

    before = torch.get_num_threads()
    said = stated() is not None and not _limits
    if before == 1 or said or numbers() >= LARGE:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
