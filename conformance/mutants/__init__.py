"""Known training bugs, planted in the variants: each must be killed by a check of the suite.

The bugs are data: :data:`ALL`. :mod:`~refimpl.conformance.mutants.planting` plants one,
:mod:`~refimpl.conformance.mutants.hunting` runs the suite's checks on it.
"""

from __future__ import annotations

from refimpl.conformance.mutants import batches, executions, kernels, losses, models, optimising
from refimpl.conformance.mutants.planting import Mutant

ALL: tuple[Mutant, ...] = (
    *(
        each
        for module in (optimising, losses, batches, models, executions)
        for each in vars(module).values()
        if isinstance(each, Mutant)
    ),
    *kernels.ALL,
)
"""Every mutant, by subject."""
