"""A stand-in for a device's graphs on the CPU, which keeps what a real capture keeps.

A capture records the operations below autograd with their tensors and Python numbers, leaves every
tensor that was there before as it was, and fills what it made with NaN: nothing was computed. A
replay makes the same operations again, into the same memory. It refuses what a device refuses
while it captures, and raises where a tensor that a graph uses has moved in between.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from refimpl.training.graphs import WARM_UPS, Work

REFUSED = {
    "aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select",
    "aten::_unique2", "aten::equal", "aten::is_nonzero", "aten::bincount",
}  # fmt: skip
"""Operations that wait for the device, or whose result's shape depends on its numbers."""


class Refused(RuntimeError):
    """As CUDA raises it."""


class Moved(AssertionError):
    """A real graph would go on with the old address."""


def tensors_of(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


class Recording(TorchDispatchMode):
    """The operations of one capture."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.before: dict[int, tuple[Tensor, Tensor, int]] = {}
        self.made: dict[int, Tensor] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = kwargs or {}
        if function._schema.name in REFUSED or by_mask(function, args):
            raise Refused(f"operation not permitted when stream is capturing: {function}")
        if function._schema.name == "aten::_to_copy" and self._comes_from_elsewhere(kwargs):
            raise Refused("cannot copy between devices during capture")
        for tensor in tensors_of((args, kwargs)):
            own = tensor.untyped_storage().data_ptr()
            if own not in self.made and own not in self.before:
                self.before[own] = (tensor, whole(tensor).clone(), tensor.data_ptr())
        results = function(*args, **kwargs)
        made = tensors_of(results)
        for tensor in made:
            own = tensor.untyped_storage().data_ptr()
            if own not in self.before:
                self.made.setdefault(own, tensor)
        self.operations.append((function, args, kwargs, made))
        return results

    def _comes_from_elsewhere(self, kwargs: dict[str, Any]) -> bool:
        return kwargs.get("device") not in (None, torch.device("cpu"))

    def undo(self) -> None:
        """Leave memory as a capture leaves it."""
        for tensor, was, _ in self.before.values():
            whole(tensor).copy_(was)
        for tensor in self.made.values():
            if tensor.is_floating_point():
                whole(tensor).fill_(torch.nan)

    def replay(self) -> None:
        """Make every operation again, with the Python numbers of the capture."""
        for tensor, _, address in self.before.values():
            if tensor.data_ptr() != address:
                raise Moved("a tensor that the graph reads or writes has another address now")
        with torch.no_grad():
            for function, args, kwargs, made in self.operations:
                if is_view(function):
                    continue
                for place, value in zip(made, tensors_of(function(*args, **kwargs)), strict=True):
                    if place is not value:
                        place.copy_(value)


def by_mask(function: Any, args: Any) -> bool:
    """Whether rows are chosen by truth values, which are counted first."""
    indexes = function._schema.name in ("aten::index", "aten::index_put_")
    return indexes and any(own.dtype == torch.bool for own in tensors_of(args[1]))


def is_view(function: Any) -> bool:
    """Whether the result is memory of an argument, and is not written to."""
    aliased = [result.alias_info for result in function._schema.returns]
    return bool(aliased) and all(own is not None and not own.is_write for own in aliased)


def whole(tensor: Tensor) -> Tensor:
    """All of the memory that a tensor is in."""
    storage, own = tensor.untyped_storage(), tensor.detach()
    return own.as_strided((storage.nbytes() // own.element_size(),), (1,), 0)


class StandIn:
    """The graphs of a device; ``faulty`` changes what a replay does, to test who looks at it."""

    def __init__(self, faulty: Callable[[Recording], Work] | None = None) -> None:
        self.faulty = faulty
        self.captures = self.replays = 0

    @property
    def generator(self) -> torch.Generator:
        return torch.default_generator

    def warm_up(self, work: Work) -> None:
        for _ in range(WARM_UPS):
            work()

    def capture(self, work: Work) -> Work:
        recording = Recording()
        draws = self.generator.get_state()
        with recording:
            work()
        recording.undo()
        self.generator.set_state(draws)
        self.captures += 1
        make = self.faulty(recording) if self.faulty else recording.replay

        def replay() -> None:
            self.replays += 1
            make()

        return replay
