"""Bugs of the data: rows, labels, their order, and how they are cut into batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from refimpl.conformance.mutants.planting import Fault, Plant, mutant
from refimpl.data import philox
from refimpl.training.problem import Problem, TensorRows

# --- labels --------------------------------------------------------------------------------------


def _labels(change: Callable[[Tensor], Tensor]) -> Plant:
    """Change the training targets."""
    return Plant(train=lambda rows, valid: TensorRows(rows.x, change(rows.y)))


def _some(rows: int, share: float, what: str) -> Tensor:
    """A share of the rows, always the same ones; at least one."""
    count = max(1, round(share * rows))
    return torch.from_numpy(philox(what).permutation(rows)[:count].copy())


def _values(y: Tensor) -> set[float]:
    return set(y.flatten().tolist())


def _wrong(y: Tensor) -> Tensor:
    """Wrong targets of the same kind: the next class, the other of two, that of the row before."""
    if not y.is_floating_point():
        return (y + 1) % (int(y.max()) + 1)
    if _values(y) <= {0.0, 1.0}:
        return 1 - y
    return y.roll(1, 0)


@mutant()
def labels_off_by_one(fault: Fault) -> Plant:
    """Every class is numbered one too high, and the last is the first."""
    return _labels(lambda y: y if y.is_floating_point() else _wrong(y))


@mutant()
def labels_inverted(fault: Fault) -> Plant:
    """Of two classes, each is taken for the other."""
    return _labels(lambda y: _wrong(y) if _values(y) == {0.0, 1.0} else y)


@mutant()
def targets_shifted(fault: Fault) -> Plant:
    """Every row has the target of the row before it."""
    return _labels(lambda y: y.roll(1, 0))


@mutant(weakest=1e-4, strongest=0.5)
def label_noise(fault: Fault) -> Plant:
    """This share of the labels (at least one) is wrong."""

    def noisy(y: Tensor) -> Tensor:
        rows = _some(len(y), fault.strength, "label noise").to(y.device)
        made = y.clone()
        made[rows] = _wrong(y)[rows]
        return made

    return _labels(noisy)


@mutant()
def targets_flattened(fault: Fault) -> Plant:
    """Targets come as (N,) where the document has (N, 1)."""
    return _labels(lambda y: y.squeeze(1) if y.dim() == 2 and y.shape[1] == 1 else y)


# --- inputs --------------------------------------------------------------------------------------


def _inputs(change: Callable[[Tensor], Tensor]) -> Plant:
    """Change the training inputs, if they are floats and not ids."""
    return Plant(
        train=lambda rows, valid: TensorRows(
            change(rows.x) if rows.x.is_floating_point() else rows.x, rows.y
        )
    )


@mutant()
def inputs_not_scaled(fault: Fault) -> Plant:
    """Inputs come as they are stored: bytes where the document has shares of 255."""
    return _inputs(lambda x: x * 255)


@mutant()
def inputs_standardised(fault: Fault) -> Plant:
    """Inputs are brought to mean 0 and spread 1, which the document does not do."""
    return _inputs(lambda x: (x - x.mean()) / x.std())


@mutant()
def inputs_reversed(fault: Fault) -> Plant:
    """The last axis of the inputs runs the wrong way."""
    return Plant(train=lambda rows, valid: TensorRows(rows.x.flip(-1), rows.y))


@mutant(weakest=1e-12, strongest=1.0)
def input_noise(fault: Fault) -> Plant:
    """Inputs carry noise of this share of their spread."""

    def noisy(x: Tensor) -> Tensor:
        noise = torch.from_numpy(philox("input noise").standard_normal(tuple(x.shape)))
        return x + fault.strength * x.std() * noise.to(x)

    return _inputs(noisy)


@mutant()
def inputs_rounded(fault: Fault) -> Plant:
    """Inputs are stored in bfloat16 on their way to the model."""
    return _inputs(lambda x: x.bfloat16().to(x))


# --- which rows ----------------------------------------------------------------------------------


@mutant()
def validation_rows_leak(fault: Fault) -> Plant:
    """The first training rows are those of the validation set."""

    def leaked(rows: TensorRows, valid: TensorRows | None) -> TensorRows:
        if valid is None:
            return rows
        n = min(len(rows) // 2, len(valid))
        return TensorRows(
            torch.cat([valid.x[:n], rows.x[n:]]), torch.cat([valid.y[:n], rows.y[n:]])
        )

    return Plant(train=leaked)


@mutant()
def validated_on_the_training_rows(fault: Fault) -> Plant:
    """The figures of the validation are those of training rows."""
    return Plant(valid=lambda rows, train: TensorRows(train.x[: len(rows)], train.y[: len(rows)]))


@mutant(weakest=1e-4, strongest=0.5)
def rows_deleted(fault: Fault) -> Plant:
    """This share of the rows (at least one) is missing; the first row stands in for them."""

    def fewer(rows: TensorRows, valid: TensorRows | None) -> TensorRows:
        gone = _some(len(rows), fault.strength, "rows deleted").to(rows.x.device)
        x, y = rows.x.clone(), rows.y.clone()
        x[gone], y[gone] = rows.x[0], rows.y[0]
        return TensorRows(x, y)

    return Plant(train=fewer)


@mutant()
def one_class_is_rare(fault: Fault) -> Plant:
    """Nine in ten rows of one class are replaced by rows of another."""

    def unbalanced(rows: TensorRows, valid: TensorRows | None) -> TensorRows:
        flat = rows.y.flatten()
        if len(flat) != len(rows) or len(_values(flat)) > 20:
            return rows
        of_class = (flat == flat.max()).nonzero().flatten()
        others = (flat != flat.max()).nonzero().flatten()
        if not len(others) or not len(of_class):
            return rows
        gone = of_class[torch.arange(len(of_class)) % 10 != 0]
        instead = others[torch.arange(len(gone)) % len(others)]
        x, y = rows.x.clone(), rows.y.clone()
        x[gone], y[gone] = rows.x[instead], rows.y[instead]
        return TensorRows(x, y)

    return Plant(train=unbalanced)


# --- order and batches ---------------------------------------------------------------------------


@mutant()
def rows_not_shuffled(fault: Fault) -> Plant:
    """Rows are read as they are stored where the document shuffles them."""
    return Plant(order=lambda order, epoch, size: order.sort().values)


@mutant()
def same_order_in_every_epoch(fault: Fault) -> Plant:
    """Rows are shuffled once, and not again for the second epoch."""
    first: list[Tensor] = []

    def once(problem: Problem) -> Problem:
        first.append(problem.but(checkpoint=None, shard=(0, 1)).row_order(0))
        return problem

    return Plant(problem=once, order=lambda order, epoch, size: first[0])


@mutant()
def first_batch_repeated(fault: Fault) -> Plant:
    """The first batch is read again in the place of the second."""

    def repeated(order: Tensor, epoch: int, size: int) -> Tensor:
        second = order[size : 2 * size]
        return torch.cat([order[:size], order[: len(second)], order[2 * size :]])

    return Plant(order=repeated)


@mutant()
def last_full_batch_repeated(fault: Fault) -> Plant:
    """What is left at the end of an epoch is not read; rows from its middle are read twice."""

    def repeated(order: Tensor, epoch: int, size: int) -> Tensor:
        left = len(order) % size or size
        if left == len(order):
            return order
        return torch.cat([order[:-left], order[-2 * left : -left]])

    return Plant(order=repeated)


@mutant()
def last_batch_dropped(fault: Fault) -> Plant:
    """The short last batch of an epoch is dropped."""
    return Plant(order=lambda order, epoch, size: order[: len(order) // size * size])


@mutant()
def batches_half_as_large(fault: Fault) -> Plant:
    """Batches have half of the documented rows."""

    def halved(problem: Problem) -> Problem:
        size = problem.protocol.batch_size or len(problem.train)
        if size < 2:
            return problem
        return problem.but(protocol=replace(problem.protocol, batch_size=size // 2))

    return Plant(problem=halved)


@mutant()
def order_of_another_seed(fault: Fault) -> Plant:
    """Every run reads the rows in the order of one seed, whatever its own."""

    run: list[Problem] = []

    def noted(problem: Problem) -> Problem:
        run.append(problem.but(seed=0, checkpoint=None, shard=(0, 1)))
        return problem

    return Plant(problem=noted, order=lambda order, epoch, size: run[0].row_order(epoch))
