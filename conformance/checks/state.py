"""What torch keeps, shares and forgets: graphs, gradients, modes, optimizers' states, copies.

No number of a step need be wrong where these are. They are tried on small nets, once an example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from copy import deepcopy
from functools import partial
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from refimpl.checking.checks import Measurement, Subject, check, equal
from refimpl.errors import one_line
from refimpl.whereabouts import names_something_of

THIRD = 1 / 3
"""A number that has no few digits."""


@check(
    "autograd-and-copies-work",
    about="example",
    on_cpu=True,
    applies=lambda subject: names_something_of(subject.example, "torch"),
    reading="this build of torch records, frees, shares or copies otherwise than it documents; no "
    "example need be wrong by it: report it to torch",
)
def autograd_and_copies_work(subject: Subject) -> Iterator[Measurement]:
    """Do graphs, modes, gradients and copies of small nets work as torch documents?"""
    for probes in (_modes, _gradients, _optimizers, _copies, _handed_over):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for what, (look, expected) in probes().items():
                yield equal(what, _found(look, expected), expected)


Probes = dict[str, tuple[Callable[[], object], object]]
"""What is looked at: how, and what it must be."""


def _found(look: Callable[[], object], expected: object) -> object:
    """What is found; an error by its kind, if that is expected, else with what it says."""
    try:
        return look()
    except Exception as error:
        kind = type(error).__name__
        return kind if kind == expected else f"{kind}: {one_line(error)}"


def _leaf(value: float = 3.0) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


# --- modes ---------------------------------------------------------------------------------------


def _modes() -> Probes:
    """What is recorded in which mode, and whether a mode ends and reaches every layer."""
    net = nn.Sequential(nn.Sequential(nn.Dropout()), nn.Dropout())
    modes = torch.no_grad, torch.inference_mode
    return {
        "whether no_grad records for gradients": (lambda: _recorded(torch.no_grad), False),
        "whether enable_grad in no_grad records for gradients": (
            lambda: _recorded(torch.no_grad, torch.enable_grad),
            True,
        ),
        "whether inference_mode records for gradients": (
            lambda: _recorded(torch.inference_mode),
            False,
        ),
        "whether gradients are recorded after these modes": (lambda: _recorded_after(*modes), True),
        "whether no_grad records for gradients after another inside it": (
            _recorded_after_inner,
            False,
        ),
        "layers that train after eval()": (lambda: _in_training(net.eval()), []),
        "layers that train after train()": (
            lambda: _in_training(net.train()),
            ["", "0", "0.0", "1"],
        ),
        "what autocast multiplies by, as the weight is 1 and then 2,": (_cast_twice, [1.0, 2.0]),
    }


def _recorded(*modes: Callable[[], AbstractContextManager[object]]) -> bool:
    x = _leaf()
    with ExitStack() as within:
        for mode in modes:
            within.enter_context(mode())
        return (2 * x).requires_grad


def _recorded_after(*modes: Callable[[], AbstractContextManager[object]]) -> bool:
    for mode in modes:
        _recorded(mode)
    return _recorded()


def _recorded_after_inner() -> bool:
    with torch.no_grad():
        _recorded_after(torch.no_grad)
        return _recorded()


def _cast_twice() -> list[float]:
    layer, found = nn.Linear(1, 1, bias=False), []
    for weight in (1.0, 2.0):
        with torch.no_grad():
            layer.weight.fill_(weight)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(layer(torch.ones(1, 1)).item())
    return found


# --- gradients -----------------------------------------------------------------------------------


def _gradients() -> Probes:
    """What a backward pass frees, adds and refuses. The gradient of x² at 3 is 6."""
    return {
        "what a second backward pass of one graph gives": (_second_pass, "RuntimeError"),
        "the gradient after two passes of a graph that is kept": (_kept_graph, 12.0),
        "the gradient after two graphs": (_two_graphs, 12.0),
        "what autograd.grad leaves in .grad": (_asked_for, None),
        "what autograd.grad gives of what was not used": (_of_unused, "RuntimeError"),
        "what backward through a number that was overwritten gives": (_overwritten, "RuntimeError"),
        "what overwriting a leaf that requires gradients gives": (
            lambda: _leaf().add_(1),
            "RuntimeError",
        ),
        "whether a detached number requires gradients": (
            lambda: _leaf().detach().requires_grad,
            False,
        ),
        "a gradient that a hook doubles": (_hooked, 12.0),
        "a gradient that a hook doubled before it was removed": (lambda: _hooked(remove=True), 6.0),
        "calls of a layer's hook, and of one that was removed": (_layer_hooked, [1, 0]),
        "gradients that zero_grad leaves": (lambda: _zeroed(set_to_none=True), None),
        "gradients that zero_grad(set_to_none=False) leaves": (
            lambda: _zeroed(set_to_none=False),
            0.0,
        ),
        "parameters with a gradient, where the first layer requires none": (
            _frozen,
            ["1.weight", "1.bias"],
        ),
    }


def _second_pass() -> None:
    y = _leaf() ** 2
    _backward(y)
    _backward(y)


def _kept_graph() -> float:
    x = _leaf()
    y = x**2
    _backward(y, retain_graph=True)
    _backward(y)
    return _gradient(x)


def _two_graphs() -> float:
    x = _leaf()
    _backward(x**2)
    _backward(x**2)
    return _gradient(x)


def _asked_for() -> Tensor | None:
    x = _leaf()
    torch.autograd.grad(x**2, x)
    return x.grad


def _of_unused() -> object:
    return torch.autograd.grad(_leaf() ** 2, _leaf())


def _overwritten() -> None:
    x = _leaf()
    y = x.exp()
    z = y**2
    with torch.no_grad():
        y.add_(1)
    _backward(z)


def _hooked(remove: bool = False) -> float:
    x = _leaf()
    hook = x.register_hook(lambda gradient: 2 * gradient)  # type: ignore[no-untyped-call]
    if remove:
        hook.remove()
    _backward(x**2)
    return _gradient(x)


def _layer_hooked() -> list[int]:
    layer, calls = nn.Identity(), [0, 0]

    def counted(place: int) -> Callable[..., None]:
        def count(*_: object) -> None:
            calls[place] += 1

        return count

    layer.register_forward_hook(counted(0))
    layer.register_forward_hook(counted(1)).remove()
    layer(torch.ones(1))
    return calls


def _zeroed(set_to_none: bool) -> float | None:
    x = _leaf()
    _backward(x**2)
    torch.optim.SGD([x], lr=1.0).zero_grad(set_to_none=set_to_none)
    return None if x.grad is None else x.grad.item()


def _frozen() -> list[str]:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    net[0].requires_grad_(False)
    _backward(net(torch.ones(1, 2)).sum())
    return [name for name, own in net.named_parameters() if own.grad is not None]


def _backward(y: Tensor, retain_graph: bool | None = None) -> None:
    y.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]


def _gradient(x: Tensor) -> float:
    assert x.grad is not None
    return x.grad.item()


# --- optimizers ----------------------------------------------------------------------------------


def _optimizers() -> Probes:
    """Whether an optimizer keeps a state of its own, and takes that of a state dict as it is."""
    return {
        # The first is −1. The second has the momentum 1/2 + 2, and not 2/2 + 2.
        "a number after two steps of momentum, its gradient overwritten,": (
            _overwritten_twice,
            -3.5,
        ),
        "what load_state_dict gives another SGD": (
            _state_taken_over,
            "lr = 0.25, momentum = 0.5, momentum_buffer = 2.0",
        ),
    }


def _overwritten_twice() -> float:
    x = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=1.0, momentum=0.5)
    x.grad = torch.ones(1)
    optimizer.step()
    x.grad.fill_(2)
    optimizer.step()
    return x.item()


def _state_taken_over() -> str:
    x = _leaf()
    first = torch.optim.SGD([x], lr=0.25, momentum=0.5)
    x.grad = torch.full_like(x, 2.0)
    first.step()
    other = torch.optim.SGD([x], lr=1.0)
    other.load_state_dict(first.state_dict())
    (group,), buffer = other.param_groups, other.state[x]["momentum_buffer"]
    lr, momentum = group["lr"], group["momentum"]
    return f"lr = {lr}, momentum = {momentum}, momentum_buffer = {buffer.item()}"


# --- copies --------------------------------------------------------------------------------------


def _copies() -> Probes:
    """Whether a net that is copied or loaded is as it was, and has numbers of its own."""
    probes: Probes = {}
    for mode in ("training", "evaluation"):
        net = nn.Sequential(nn.Linear(3, 2), nn.Dropout(), nn.Linear(2, 1))
        net.train(mode == "training")[0].requires_grad_(False)
        for how, copied in COPIES.items():
            of = f"of {how}, in {mode}"
            probes |= {
                f"layers {of}, that train": (
                    partial(_of_copy, net, copied, _in_training),
                    _in_training(net),
                ),
                f"parameters {of}, that train": (
                    partial(_of_copy, net, copied, _trained),
                    _trained(net),
                ),
                f"parameters {of}, that are the original's": (
                    partial(_of_copy, net, copied, partial(_shared, net)),
                    [],
                ),
            }
    probes["whether a state dict has the parameters' own numbers"] = (_state_shares, True)
    probes["whether reshape gives the same numbers in another shape"] = (_reshape_shares, True)
    probes["loaded numbers that require gradients"] = (_loaded_leaves, [])
    probes["parameters after load_state_dict that are the state's"] = (_loaded_into, [])
    probes["whether two names of one tensor are one after saving and loading"] = (_one_of_two, True)
    probes["what load_state_dict gives of a state with another parameter"] = (
        _unexpected,
        "RuntimeError",
    )
    probes["what load_state_dict gives of a state that lacks a parameter"] = (
        _lacking,
        "RuntimeError",
    )
    return probes


def saved_and_loaded(what: object, weights_only: bool = True) -> Any:
    """What ``torch.load`` gives of what ``torch.save`` stores."""
    file = BytesIO()
    torch.save(what, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only)


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "a deep copy": deepcopy,
    "a saved and loaded net": lambda net: saved_and_loaded(net, weights_only=False),
}


def _of_copy(
    net: nn.Module,
    copied: Callable[[nn.Module], nn.Module],
    look: Callable[[nn.Module], list[str]],
) -> list[str]:
    return look(copied(net))


def _in_training(net: nn.Module) -> list[str]:
    """The layers in training mode, by name."""
    return [name for name, layer in net.named_modules() if layer.training]


def _trained(net: nn.Module) -> list[str]:
    return [name for name, parameter in net.named_parameters() if parameter.requires_grad]


def _shared(net: nn.Module, copy: nn.Module) -> list[str]:
    own = {parameter.data_ptr() for parameter in net.parameters()}
    return [name for name, value in copy.named_parameters() if value.data_ptr() in own]


def _loaded_leaves() -> list[str]:
    state = saved_and_loaded(nn.Linear(3, 2).state_dict())
    return [name for name, value in state.items() if value.requires_grad]


def _loaded_into() -> list[str]:
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(net.state_dict())
    return _shared(net, other)


def _state_shares() -> bool:
    net = nn.Linear(3, 2)
    return bool(net.state_dict()["weight"].data_ptr() == net.weight.data_ptr())


def _reshape_shares() -> bool:
    x = torch.zeros(4)
    return x.reshape(2, 2).data_ptr() == x.data_ptr()


def _one_of_two() -> bool:
    one = torch.zeros(1)
    loaded = saved_and_loaded({"a": one, "b": one})
    loaded["a"].fill_(1)
    return bool(loaded["b"] == 1)


def _unexpected() -> None:
    net = nn.Linear(3, 2)
    net.load_state_dict({**net.state_dict(), "another": torch.zeros(1)})


def _lacking() -> None:
    net = nn.Linear(3, 2)
    net.load_state_dict({"weight": net.weight})


# --- handed over ---------------------------------------------------------------------------------


def _handed_over() -> Probes:
    """Whether Python and NumPy are given every digit, and what is printed."""
    third, large = torch.tensor([THIRD], dtype=torch.float64), torch.tensor([2**53 + 1])
    return {
        "1/3 by item()": (third.item, THIRD),
        "1/3 by tolist()": (third.tolist, [THIRD]),
        "1/3 by numpy()": (lambda: third.numpy().tolist(), [THIRD]),
        "2⁵³ + 1 by item()": (large.item, 2**53 + 1),
        "2⁵³ + 1 by tolist()": (large.tolist, [2**53 + 1]),
        "a leaf, printed,": (
            lambda: str(_leaf()),
            "tensor(3., dtype=torch.float64, requires_grad=True)",
        ),
        "its square, printed,": (
            lambda: str(_leaf() ** 2),
            "tensor(9., dtype=torch.float64, grad_fn=<PowBackward0>)",
        ),
    }
