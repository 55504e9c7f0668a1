"""Shorter runs of the same training: its epochs are all alike."""

from __future__ import annotations

from dataclasses import replace

from refimpl.training.problem import Problem

FEWEST_EPOCHS = 2
"""The fewest epochs that are timed, if the document has as many: the first may be slower."""


def of_epochs(problem: Problem, epochs: int) -> Problem:
    """The same problem with at most that many epochs."""
    epochs = min(epochs, problem.protocol.epochs_on(problem.tier))
    return problem.but(protocol=replace(problem.protocol, epochs=epochs, stand_in_epochs=None))


def of_part(problem: Problem, part: float) -> Problem:
    """The same problem with this part of its epochs."""
    documented = problem.protocol.epochs_on(problem.tier)
    return of_epochs(problem, max(FEWEST_EPOCHS, round(part * documented)))
