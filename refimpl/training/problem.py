"""Everything about a training run except the computation: start, batches, device, dtype."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from refimpl.composition import CPU
from refimpl.contract import NOTED, Execution, Protocol, Variant
from refimpl.data import DataSet, Rows, Tier, philox
from refimpl.errors import CheckpointError, ContractError
from refimpl.training import fast_kernels
from refimpl.training.replaying import MARK, Replays
from refimpl.trees import is_ragged, leaves, mapped, rows_of

if TYPE_CHECKING:
    from refimpl.training.checkpoint import Checkpoint

Module = TypeVar("Module", bound=nn.Module)
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class TensorRows:
    """Rows of one split as tensors on the problem's device; floats are in the problem's dtype.

    As in :class:`~refimpl.data.Rows`, each may be a tuple or dict, and a list has ragged rows.
    """

    x: Any
    y: Any

    def __len__(self) -> int:
        return rows_of(self.x)

    def chosen(self, rows: Tensor | slice) -> TensorRows:
        """Some of the rows, by number."""
        return TensorRows(_chosen(self.x, rows), _chosen(self.y, rows))


@dataclass(frozen=True)
class Problem:
    """What a variant is given to solve. It holds no state: the same problem gives the same run.

    ``values`` are the start values by parameter name. ``seed`` decides the batch order and the
    draws of dropout. ``precision`` is a dtype, such as ``"float64"``, that takes precedence over
    those of the execution and the protocol. ``dropout=False`` turns dropout off, so that
    trajectories can be compared. With a ``checkpoint``, the run continues where another one
    stopped. ``horizon`` is how many updates will be used, if that is known. ``shard`` is
    (rank, count): of each batch, this process gets every ``count``-th row, from row ``rank`` on.
    ``swift`` lets torch choose kernels that are faster and round differently
    (:mod:`refimpl.training.fast_kernels`). ``collate`` makes a batch of a list of (input, target).
    ``most_rows`` leaves out the rows of each split past so many, for runs with short epochs.
    ``replays`` are the graphs of a whole run.
    """

    data: DataSet
    tier: Tier
    protocol: Protocol
    values: Mapping[str, NDArray[Any]]
    seed: int = 0
    execution: Execution = CPU
    precision: str | None = None
    dropout: bool = True
    checkpoint: Checkpoint | None = field(default=None, repr=False)
    horizon: int | None = None
    shard: tuple[int, int] = (0, 1)
    swift: bool = False
    collate: Callable[[list[Any]], Any] | None = None
    most_rows: int | None = None
    replays: Replays | None = field(default=None, repr=False)

    # --- where and in what -----------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """The device that every tensor of the run is on."""
        return torch.device(self.execution.device)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every floating-point tensor of the run."""
        name = self.precision or self.execution.dtype or self.protocol.dtype
        dtype: torch.dtype = getattr(torch, name)
        return dtype

    @property
    def lr(self) -> float:
        """The document's learning rate."""
        return self.protocol.learning_rate

    @property
    def clip(self) -> float:
        """The largest norm that all gradients together may have; infinity if there is none."""
        return math.inf if self.protocol.clip is None else self.protocol.clip

    def rate(self, step: int) -> float:
        """The learning rate of update ``step``, counted from 0, by the protocol's schedule."""
        schedule = self.protocol.schedule
        if schedule is None:
            return self.lr
        at = step if schedule.per == "step" else step // self.steps_per_epoch
        return self.lr * float(schedule.factor(at))  # NumPy's own numbers are no weights to load

    def draws(self) -> np.random.Generator:
        """A generator for what this step draws: the same numbers on every device, in every dtype.

        Take it once in each step, inside the loop, and make tensors with :meth:`tensor`.
        """
        return philox("draws", self.generator.initial_seed() % 2**63)

    def tensor(self, array: Any) -> Tensor:
        """An array as a tensor on the run's device; floats in its dtype."""
        return self._on_device(torch.as_tensor(np.asarray(array)))

    def _on_device(self, value: Tensor) -> Tensor:
        return value.to(self.device, self.dtype if value.is_floating_point() else None)

    @property
    def dropout_seed(self) -> int:
        """The seed of dropout in the first step; it grows by one with each step."""
        return int(philox("dropout", self.seed).integers(2**62))

    @property
    def generator(self) -> torch.Generator:
        """The generator that dropout on this device draws from.

        Seeding it alone takes a microsecond; ``torch.manual_seed`` seeds every back end and may
        take longer than a whole step of a small net.
        """
        if self.device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            return torch.cuda.default_generators[index]
        if self.device.type == "mps":
            return torch.mps._get_default_mps_generator()
        return torch.default_generator

    # --- data ------------------------------------------------------------------------------------

    @property
    def train(self) -> TensorRows:
        """The training rows."""
        return self._cut(_tensors(self.data, self.tier, "train", self.device, self.dtype))

    @property
    def valid(self) -> TensorRows | None:
        """The validation rows in the order they are read in, or ``None`` if there are none."""
        if self.streams or self.data.load(self.tier).valid is None:
            return None
        rows = self._cut(_tensors(self.data, self.tier, "valid", self.device, self.dtype))
        if not self.protocol.shuffle_valid:
            return rows
        order = philox("valid-order", self.seed).permutation(len(rows))
        shuffled = torch.from_numpy(order).to(self.device)
        return rows.chosen(shuffled)

    def _cut(self, rows: TensorRows) -> TensorRows:
        return rows if self.most_rows is None else rows.chosen(slice(self.most_rows))

    def shortened(self, rows: int, updates: int) -> Problem:
        """The same problem with ``updates`` in an epoch, of batches of at most ``rows`` rows.

        A stream stays as it is, and so does a run whose every update uses all rows.
        """
        size = self.protocol.batch_size
        if self.streams or size is None:
            return self
        protocol = replace(
            self.protocol, batch_size=min(size, rows, len(self.train)), valid_batch_size=None
        )
        most = updates * protocol.accumulate * (protocol.batch_size or 1)
        return self.but(protocol=protocol, most_rows=min(most, len(self.train)))

    def short_run(self, rows: int) -> Problem:
        """A run of one epoch of few rows; what a loop computes after its steps, it computes too."""
        protocol = replace(self.protocol, epochs=1, stand_in_epochs=None, stop=None)
        return self.but(protocol=protocol).shortened(rows, 1)

    @property
    def streams(self) -> bool:
        """Whether the data is a stream of batches, and not rows."""
        return self.data.batches is not None

    @property
    def batch_size(self) -> int:
        """Rows in a training batch, or in this process's part of it."""
        rank, count = self.shard
        return len(range(rank, self._whole_batch, count))

    @property
    def valid_batch_size(self) -> int:
        """Rows in a validation batch; defaults to the training batch size."""
        return self.protocol.valid_batch_size or self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one epoch; the last batch may be smaller than the others."""
        return -(-self.batches_per_epoch // self.protocol.accumulate)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in one epoch, of which the protocol may ``accumulate`` several for an update."""
        if self.streams:
            return self.data.length or 1
        return -(-len(self.train) // self._whole_batch)

    @property
    def length(self) -> int:
        """How many updates the whole run has, from its start to the end of its protocol."""
        return self.steps_per_epoch * self.protocol.epochs_on(self.tier)

    @property
    def _whole_batch(self) -> int:
        if self.streams:
            return self.protocol.batch_size or 1
        count = len(self.train)
        return min(self.protocol.batch_size or count, count)

    @property
    def first_step(self) -> int:
        """How many updates were made before this run: 0, or those before the checkpoint."""
        return self.checkpoint.step if self.checkpoint else 0

    def epochs(self) -> Iterator[int]:
        """The epochs still to run, counted from 0; part of the first may be done already."""
        yield from range(
            self.first_step // self.steps_per_epoch, self.protocol.epochs_on(self.tier)
        )

    def order(self, epoch: int) -> list[int]:
        """Numbers of the rows of this epoch that are still to be read, in reading order."""
        return self.row_order(epoch).tolist()

    @property
    def shuffles(self) -> bool:
        """Whether each epoch reads the rows in an order of its own."""
        return self.protocol.shuffle and self._whole_batch < len(self.train)

    def row_order(self, epoch: int) -> Tensor:
        """The same as ``order``, in a tensor."""
        count = len(self.train)
        if self.shuffles:
            order = torch.from_numpy(philox("order", self.seed, epoch).permutation(count))
        else:
            order = torch.arange(count)
        order = order[self._rows_done(epoch) :]
        rank, shards = self.shard
        if shards == 1:
            return order
        return torch.cat([batch[rank::shards] for batch in torch.split(order, self._whole_batch)])

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Every batch that is still to come, epoch by epoch, as inputs and targets."""
        for epoch in self.epochs():
            yield from self.epoch_batches(epoch)

    def updates(self) -> Iterator[list[tuple[Any, Any]]]:
        """The batches of every update that is still to come; an epoch's last may have fewer."""
        for epoch in self.epochs():
            batches = self.epoch_batches(epoch)
            while together := list(islice(batches, self.protocol.accumulate)):
                yield together

    def epoch_batches(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """The batches of one epoch that are still to come."""
        if self.streams:
            yield from self._streamed(epoch)
            return
        train, size = self.train, self.batch_size
        x, y = train.x, train.y
        if self.collate is not None:
            for rows in torch.split(self.row_order(epoch), size):
                yield self._collated(train, rows.tolist())
        elif not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            for rows in torch.split(self.row_order(epoch).to(self.device), size):
                batch = train.chosen(rows)
                yield batch.x, batch.y
        elif size == len(x):
            yield x, y
        elif self.protocol.shuffle or self.shard != (0, 1):
            for rows in torch.split(self.row_order(epoch).to(self.device), size):
                yield x[rows], y[rows]
        else:
            done = self._rows_done(epoch)
            yield from zip(torch.split(x[done:], size), torch.split(y[done:], size), strict=True)

    def valid_batches(self) -> Iterator[tuple[Any, Any]]:
        """The validation rows in batches; none if there are no validation rows."""
        rows, size = self.valid, self.valid_batch_size
        if rows is None:
            return
        if self.collate is None and isinstance(rows.x, Tensor) and isinstance(rows.y, Tensor):
            yield from zip(torch.split(rows.x, size), torch.split(rows.y, size), strict=True)
            return
        for numbers in torch.split(torch.arange(len(rows)), size):
            if self.collate is not None:
                yield self._collated(rows, numbers.tolist())
            else:
                batch = rows.chosen(numbers.to(self.device))
                yield batch.x, batch.y

    def sample(self, count: int) -> Any:
        """The inputs of the first ``count`` training rows, as a batch has them.

        Of a stream, those of its first batch, however many they are.
        """
        if self.streams:
            return next(self._streamed(0))[0]
        count = min(count, len(self.train))
        if self.collate is not None:
            return self._collated(self.train, list(range(count)))[0]
        return _chosen(self.train.x, slice(count))

    @property
    def numbers_in_a_batch(self) -> int:
        """How many numbers the inputs of a batch have, which says how long a step takes."""
        batch = leaves(self.sample(self.batch_size))
        return sum(leaf.numel() for leaf in batch if isinstance(leaf, Tensor))

    def _collated(self, rows: TensorRows, numbers: list[int]) -> Any:
        assert self.collate is not None
        batch = self.collate([(_row(rows.x, n), _row(rows.y, n)) for n in numbers])
        return mapped(lambda leaf: self._on_device(leaf) if torch.is_tensor(leaf) else leaf, batch)

    def _streamed(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """The batches of an epoch of a stream; raises if there are fewer than it says."""
        assert self.data.batches is not None
        done = max(self.first_step - epoch * self.steps_per_epoch, 0) * self.protocol.accumulate
        rank, shards = self.shard
        count = done
        given = self.data.batches(philox("stream", self.seed, epoch))
        for x, y in islice(given, done, self.batches_per_epoch):
            count += 1
            yield mapped(partial(self._streamed_leaf, rank, shards), (x, y))
        if count < self.batches_per_epoch:
            raise ContractError(
                f"the stream {self.data.name!r} gives {count} batches in epoch {epoch + 1} where "
                f"its length is {self.batches_per_epoch}"
            )

    def _streamed_leaf(self, rank: int, shards: int, leaf: Any) -> Any:
        if torch.is_tensor(leaf) or isinstance(leaf, np.ndarray):
            return self.tensor(leaf[rank::shards] if shards > 1 else leaf)
        return leaf

    def _rows_done(self, epoch: int) -> int:
        steps_done = self.first_step - epoch * self.steps_per_epoch
        return max(steps_done, 0) * self.protocol.accumulate * self._whole_batch

    # --- start -----------------------------------------------------------------------------------

    @property
    def start(self) -> dict[str, Tensor]:
        """New leaf tensors that require grad, one for each start value, on the device."""
        return {
            name: torch.tensor(
                np.asarray(value), dtype=self.dtype, device=self.device
            ).requires_grad_()
            for name, value in self._present_values().items()
        }

    def load(self, module: Module) -> Module:
        """``module`` with the start values loaded, on the device, and wrapped by the execution.

        Raises :class:`ContractError` if names or shapes do not match, and
        :class:`CheckpointError` if the checkpoint lacks a buffer.
        """
        module = module.to(self.device, self.dtype)
        if self.swift:
            fast_kernels.channels_last(module)
        own, values = dict(module.named_parameters()), self._present_values()
        if own.keys() != values.keys():
            raise ContractError(
                f"the start has values for {sorted(values)} but {type(module).__name__} has "
                f"parameters {sorted(own)}; map them with names= or give the variant its own start="
            )
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != values[name].shape:
                    raise ContractError(
                        f"the start of {name} has shape {values[name].shape} but the parameter of "
                        f"{type(module).__name__} has {tuple(parameter.shape)}"
                    )
                parameter.copy_(torch.tensor(np.asarray(values[name])))
            if self.checkpoint:
                for name, buffer in module.named_buffers():
                    if name not in self.checkpoint.buffers:
                        raise CheckpointError(
                            f"the checkpoint lacks buffer {name} of {type(module).__name__}: "
                            "it is of another model"
                        )
                    buffer.copy_(self.checkpoint.buffers[name])
        if not self.dropout:
            _turn_dropout_off(module)
        # Constructors draw from the generator of dropout, and a resumed run constructs once more.
        self.generator.manual_seed(self.dropout_seed + self.first_step)
        if self.execution.wrap is None:
            return module
        return self.execution.wrap(module)  # type: ignore[return-value]

    def resume(self, kept: Kept, name: str = "") -> Kept:
        """What a run that continues from a checkpoint had at this place; otherwise ``kept`` itself.

        Anything with a ``state_dict``, such as an optimizer, a scheduler or an average of the
        weights, gets its state loaded and is returned. Tensors, such as a hidden state, are
        replaced by those of the checkpoint; ``None`` may stand for them at the start. A single
        optimizer needs no ``name``; everything else is called as in the step's ``optimizer=`` or
        ``state=``. Raises :class:`CheckpointError` if the checkpoint lacks it.
        """
        optimizes = isinstance(kept, torch.optim.Optimizer)
        if self.checkpoint is not None:
            stored: Any = self.checkpoint.optimizer if not name else self._stored(name)
            if not hasattr(kept, "load_state_dict"):
                kept = mapped(lambda v: self._on_device(v) if torch.is_tensor(v) else v, stored)
            elif stored is not None:
                kept.load_state_dict(mapped(_copied, stored) if name else dict(stored))
            if optimizes:
                fast_kernels.as_made(kept)  # type: ignore[arg-type]
        if optimizes:
            if self.replays is not None:
                setattr(kept, MARK, self.replays)
            if self.swift:
                fast_kernels.fuse(kept)  # type: ignore[arg-type]
            if name or isinstance(kept, torch.optim.LBFGS):
                note_gradients(kept)  # type: ignore[arg-type]
        return kept

    def _stored(self, name: str) -> Any:
        assert self.checkpoint is not None
        if name in self.checkpoint.state:
            return self.checkpoint.state[name]
        if self.checkpoint.parameters_only:
            return None
        raise CheckpointError(
            f"the checkpoint has no state {name!r}; show it in each step: "
            f"Step(..., state={{{name!r}: ...}})"
        )

    def _present_values(self) -> Mapping[str, NDArray[Any]]:
        return self.checkpoint.parameters if self.checkpoint else self.values

    # --- the same problem, but -------------------------------------------------------------------

    def but(self, **changes: Any) -> Problem:
        """The same problem with some fields changed."""
        return replace(self, **changes)


def pose(
    variant: Variant, tier: Tier = "stand-in", *, seed: int | None = None, **changes: Any
) -> Problem:
    """The problem that the document sets for this variant.

    ``seed=None`` means the start that the document prints, if it prints one, and the variant's own
    seed for everything else. ``changes`` are further fields of :class:`Problem`.
    """
    if variant.data is None or variant.protocol is None:
        raise ContractError(f"variant {variant.name!r} has no data or no protocol to train with")
    drawn = variant.seed if seed is None else seed
    if seed is None and variant.documented_start is not None:
        values = variant.documented_start
    else:
        values = start_values(variant, drawn)
    own = {"seed": drawn, "collate": variant.collate}
    return Problem(variant.data, tier, variant.protocol, values, **{**own, **changes})


def start_values(variant: Variant, seed: int) -> Mapping[str, NDArray[Any]]:
    """The variant's start values for this seed, by its own parameter names.

    Raises :class:`ContractError` if it has none, or if they are not NumPy arrays.
    """
    from refimpl.training.starts import torch_default

    draw = variant.start
    if draw is None and variant.build is not None:
        draw = torch_default(variant.build)
    if draw is None:
        raise ContractError(f"variant {variant.name!r} has no start= to begin from")
    values = draw(philox("start", seed))
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            hint = "give a NumPy array, drawn from the generator that start= is given"
            raise ContractError(f"variant {variant.name!r} starts {name} as a Tensor; {hint}")
    return values


def _turn_dropout_off(module: nn.Module) -> None:
    """In dropout layers, between the layers of recurrent ones, and inside attention."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
        elif isinstance(layer, (nn.RNNBase, nn.MultiheadAttention)):
            layer.dropout = 0.0


@lru_cache(maxsize=32)
def _tensors(
    data: DataSet, tier: Tier, split: str, device: torch.device, dtype: torch.dtype
) -> TensorRows:
    rows: Rows = getattr(data.load(tier), split)

    def tensor(array: Any) -> Any:
        if is_ragged(array):
            return [tensor(row) for row in array]
        with warnings.catch_warnings():
            # Read-only, so that no run changes what the next one reads; no variant writes to it.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            made = torch.from_numpy(array)
        return made.to(device, dtype if made.is_floating_point() else None)

    return TensorRows(mapped(tensor, rows.x), mapped(tensor, rows.y))


def _chosen(tree: Any, rows: Tensor | slice) -> Any:
    """Some rows of every leaf."""

    def chosen(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) or isinstance(rows, slice):
            return leaf[rows]
        return [leaf[n] for n in rows.tolist()]

    return mapped(chosen, tree)


def _row(tree: Any, number: int) -> Any:
    return mapped(lambda leaf: leaf[number], tree)


def _copied(leaf: Any) -> Any:
    """A copy, so that what is loaded into a run leaves its checkpoint as it is."""
    return leaf.clone() if torch.is_tensor(leaf) else copy.deepcopy(leaf)


def note_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Have ``optimizer`` note the gradients of each update, as it first uses them.

    Those in ``.grad`` may be others by the time that the step is shown: another loss adds its own
    to them, and a closure may have been called many times.
    """

    def noted() -> None:
        used = (p for group in optimizer.param_groups for p in group["params"])
        setattr(
            optimizer, NOTED, {id(p): p.grad.detach().clone() for p in used if p.grad is not None}
        )

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = args[1:] if args and args[0] is optimizer else args
        closure = given[0] if given else kwargs.get("closure")
        if closure is None:
            noted()
            return None
        calls: list[None] = []

        def first_noted() -> Any:
            loss = closure()
            if not calls:
                noted()
                calls.append(None)
            return loss

        whole = (optimizer, first_noted) if given is not args else (first_noted,)
        return whole, {}

    optimizer.register_step_pre_hook(before)
