"""The ends of the range: saturated units, huge logits, exact ties, empty batches, padding rows.

Training rarely comes there on stand-in data, and a build of torch, or a plugin's own layer, may do
something else there. What is expected is computed by hand, or with SciPy in float64. So are values
and slopes on the way there, which a run may come to late.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from refimpl.checking.checks import Measurement, Subject, check, equal, true
from refimpl.conformance.checks.state import saved_and_loaded
from refimpl.parity.kernel_bounds import dtype_name
from refimpl.training.loop import steps_of
from refimpl.training.problem import pose

UNITS = 8.0
"""How many units in the last place a function may be off at an end; libraries state 1 to 4."""

LARGE = (-200.0, -20.0, 0.0, 20.0, 200.0)
"""Pre-activations at which units are saturated, and at which they are not."""

ALONG = np.arange(-97, 98) / 8
"""Pre-activations on the way to both ends, an odd number of them, each exact in float32."""

MANY = np.resize(ALONG, 40_003)
"""The same, over and over: so many that threads share them, and some are left over for vectors."""

Make = Callable[..., Tensor]


class _Called(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The names of the operations that are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Make the call, and note its name."""
        self.names.add(func._schema.name.removeprefix("aten::").rstrip("_"))
        return func(*args, **(kwargs or {}))


def _called(subject: Subject) -> set[str]:
    """The operations that the first step of a variant makes on the CPU."""
    variant, called = subject.trained, _Called()
    around = replace(pose(variant, subject.tier).execution, around=lambda: called)
    next(steps_of(variant, pose(variant, subject.tier, execution=around), 1), None)
    return called.names


def _trains_in_torch(subject: Subject) -> bool:
    return subject.trained.trains and not subject.trained.numpy


@check(
    "right-at-the-ends",
    applies=_trains_in_torch,
    reading="an operation or layer is wrong where numbers saturate, tie or end; the message has "
    "what it gives and what it should",
)
def right_at_the_ends(subject: Subject) -> Iterator[Measurement]:
    """Are losses, activations and layers right where numbers saturate, tie or end?"""
    called = _called(subject)
    device = torch.device(subject.execution.device)
    for dtype in _dtypes(device):
        end = End(device, dtype)
        for name, probe in PROBES.items():
            found: list[Measurement] = []
            try:
                found.extend(probe(end))
            except (NotImplementedError, RuntimeError):
                # A build that is wrong may make another call in its place, so all are probed; but
                # a device need not have what the variant does without.
                if name in called:
                    raise
            found.append(end.unchanged(name.strip("_")))
            yield from _isolating(name, found)
        yield from _of_own_layers(subject, end)
    yield from _of_the_state(subject)


def _isolating(operation: str, found: list[Measurement]) -> Iterator[Measurement]:
    """The figures of one probe; what is wrong is about the innermost thing that is wrong.

    That is the operation, unless only the forms of one function, or of one class, are wrong.
    """
    wrong = {measured.isolates for measured in found if not measured.holds}
    functions = sorted(name for name in wrong if name.islower())
    inmost = operation.strip("_") if "" in wrong else functions[0] if functions else ""
    for measured in found:
        yield replace(measured, isolates=inmost) if inmost and not measured.holds else measured


def _form(name: str, measured: Measurement) -> Measurement:
    """A figure of one form of an operation: of a function of ``F`` or of a class of ``nn``."""
    where, _, own = name.partition(".")
    return replace(measured, isolates=own) if where in ("F", "nn") else measured


def _dtypes(device: torch.device) -> list[torch.dtype]:
    """float32, and float64 if the device has it."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return [torch.float32]
    return [torch.float32, torch.float64]


class End:
    """Where and in what a probe computes, and how what it finds is compared."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._given: list[tuple[Tensor, Tensor]] = []

    def tensor(self, values: ArrayLike) -> Tensor:
        """These values here, as a leaf that requires grad."""
        made = torch.tensor(np.asarray(values), dtype=self.dtype, device=self.device)
        self._given.append((made, made.clone()))
        return made.requires_grad_()

    def unchanged(self, operation: str) -> Measurement:
        """Whether what was given since this was last looked at is as it was."""
        given, self._given = self._given, []
        same = partial(torch.allclose, rtol=0, atol=0, equal_nan=True)
        holds = all(same(now, before) for now, before in given)
        return true(f"what {operation} is given", holds, f"{operation} changes what it is given")

    def same(
        self, what: str, found: Tensor, expected: ArrayLike, terms: float = 0.0
    ) -> Measurement:
        """``found`` must be ``expected``, to a few units of each value and of its ``terms``."""
        here = found.detach().cpu().double().numpy()
        wanted = np.asarray(expected, dtype=np.float64)
        about = torch.finfo(self.dtype)
        what = f"{what} in {dtype_name(self.dtype)}"
        shown = f"{_digits(here)}, expected {_digits(wanted)}"
        if _digits(here) == _digits(wanted):
            shown = f"{here.tolist()}, expected {wanted.tolist()}"
        if here.shape != wanted.shape:
            return true(what, False, f"{what} has shape {here.shape}, expected {wanted.shape}")
        allowed = UNITS * about.eps * (np.abs(wanted) + terms) + about.tiny
        holds = bool(((here == wanted) | (np.abs(here - wanted) <= allowed)).all())
        return true(what, holds, f"{what} is {shown}")

    def along(
        self, what: str, x: NDArray[np.float64], found: Tensor | None, expected: NDArray[np.float64]
    ) -> Measurement:
        """``found`` must be ``expected`` at each ``x``, to a few units of it or, if more, of 1."""
        here = np.full(x.shape, np.nan) if found is None else found.detach().cpu().double().numpy()
        off = np.abs(here - expected) / np.maximum(np.abs(expected), 1)
        at = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
        holds = bool(off[at] <= UNITS * torch.finfo(self.dtype).eps)
        what = f"{what} in {dtype_name(self.dtype)}"
        shown = f"{here[at]:.9g} at {x[at]:g}, expected {expected[at]:.9g}"
        low, high = np.sort(x)[[0, -1]]
        return true(f"{what} from {low:g} to {high:g}", holds, f"{what} is {shown}")


def _digits(values: NDArray[np.float64]) -> str:
    """Numbers with the digits of float32, which fill less of a line."""
    shown = {"float_kind": lambda value: f"{value:.9g}"}
    return np.array2string(values, separator=", ", formatter=shown, max_line_width=sys.maxsize)  # type: ignore[arg-type]


# --- probes --------------------------------------------------------------------------------------


def _relu(end: End) -> Iterator[Measurement]:
    forms: dict[str, Make] = {
        "F.relu": F.relu, "nn.ReLU": nn.ReLU(), "torch.relu": torch.relu,
        "Tensor.relu": lambda x: x.relu(), "relu in place": lambda x: F.relu(x * 1, inplace=True),
    }  # fmt: skip
    for name, form in forms.items():
        x = end.tensor([-1.0, 0.0, 2.0])
        out = form(x)
        out.sum().backward()  # type: ignore[no-untyped-call]
        slope = end.same(f"gradient of {name} at -1, 0 and 2", x.grad, [0, 0, 1])  # type: ignore[arg-type]
        yield _form(name, end.same(f"{name} of -1, 0 and 2", out, [0, 0, 2]))
        yield _form(name, slope)
        yield _form(name, _of_nan(end, name, form))


def _of_nan(end: End, name: str, form: Make) -> Measurement:
    """What is not a number stays none, so that a run that has diverged is seen to have."""
    found = form(end.tensor([np.nan, 1.0])).detach().isnan().tolist()
    return equal(f"where {name} of NaN and 1 is NaN", found, [True, False])


def _abs(end: End) -> Iterator[Measurement]:
    x = end.tensor([-1.0, 0.0, 2.0])
    out = x.abs()
    out.sum().backward()  # type: ignore[no-untyped-call]
    yield end.same("abs of -1, 0 and 2", out, [1, 0, 2])
    yield end.same("gradient of abs at -1, 0 and 2", x.grad, [-1, 0, 1])  # type: ignore[arg-type]


def _sigmoid(end: End) -> Iterator[Measurement]:
    yield from _of_sigmoid(end, "torch.sigmoid", torch.sigmoid)
    yield from _of_sigmoid(end, "nn.Sigmoid", nn.Sigmoid())


def _of_sigmoid(end: End, name: str, form: Make) -> Iterator[Measurement]:
    from scipy.special import expit

    found = end.same(f"{name} from -200 to 200", form(end.tensor(LARGE)), expit(np.array(LARGE)))
    yield _form(name, found)
    yield _form(name, _of_nan(end, name, form))
    for measured in _curve(end, name, form, expit(ALONG), expit(ALONG) * expit(-ALONG)):
        yield _form(name, measured)


def _curve(
    end: End, name: str, form: Make, values: NDArray[np.float64], slopes: NDArray[np.float64]
) -> Iterator[Measurement]:
    """A function of one number, and its slope, along the way."""
    x = end.tensor(MANY)
    out = form(x)
    out.sum().backward()  # type: ignore[no-untyped-call]
    yield end.along(name, MANY, out, np.resize(values, MANY.shape))
    yield end.along(f"gradient of {name}", MANY, x.grad, np.resize(slopes, MANY.shape))


def _tanh(end: End) -> Iterator[Measurement]:
    yield end.same("torch.tanh", torch.tanh(end.tensor(LARGE)), np.tanh(np.array(LARGE)))
    yield _of_nan(end, "torch.tanh", torch.tanh)
    yield from _curve(end, "torch.tanh", torch.tanh, np.tanh(ALONG), np.cosh(ALONG) ** -2.0)


LOGITS = ((200.0, -200.0, 0.0), (-200.0, 200.0, 199.0))
CLASSES = (1, 2)


def _cross_entropy(end: End) -> Iterator[Measurement]:
    from scipy.special import log_softmax, softmax

    logits = np.array(LOGITS)
    x = end.tensor(logits)
    yield end.same("log_softmax of ±200", F.log_softmax(x, dim=1), log_softmax(logits, axis=1))
    classes = torch.tensor(CLASSES, device=end.device)
    losses = -log_softmax(logits, axis=1)[[0, 1], CLASSES]
    forms: dict[str, Make] = {
        "F.cross_entropy": F.cross_entropy, "nn.CrossEntropyLoss": nn.CrossEntropyLoss()
    }  # fmt: skip
    for name, form in forms.items():
        x.grad = None
        loss = form(x, classes)
        loss.backward()  # type: ignore[no-untyped-call]
        yield _form(name, end.same(f"{name} of ±200", loss, losses.mean()))
        slope = (softmax(logits, axis=1) - np.eye(3)[list(CLASSES)]) / 2
        made = x.grad.cpu().double().numpy() if x.grad is not None else np.zeros_like(slope)
        largest = made - slope
        near = bool((np.abs(largest) < UNITS * torch.finfo(end.dtype).eps).all())
        message = f"gradient of {name} of ±200 is {made.tolist()}, expected {slope.tolist()}"
        yield _form(name, true(f"gradient of {name} of ±200", near, message))


def _log(end: End) -> Iterator[Measurement]:
    powers = np.arange(0, 126, 25)
    yield end.same("log of 1 to 2⁻¹²⁵", end.tensor(2.0**-powers).log(), -powers * np.log(2))


def _softmax(end: End) -> Iterator[Measurement]:
    from scipy.special import softmax

    logits = np.array(LOGITS)
    found = F.softmax(end.tensor(logits), dim=1)
    yield end.same("softmax of ±200", found, softmax(logits, axis=1))


def _bce(end: End) -> Iterator[Measurement]:
    tiny = 2.0**-60
    p, y = (0.0, 1.0, tiny, 0.0, 0.5), (1.0, 0.0, 1.0, 0.0, 1.0)
    expected = [100.0, 100.0, 60 * np.log(2), 0.0, np.log(2)]
    forms: dict[str, Make] = {
        "F.binary_cross_entropy": partial_none(F.binary_cross_entropy),
        "nn.BCELoss": nn.BCELoss(reduction="none"),
    }
    for name, form in forms.items():
        found = form(end.tensor(p), end.tensor(y).detach())
        yield _form(name, end.same(f"{name} of 0, 1, 2⁻⁶⁰, 0 and 1/2", found, expected))
    whole = F.binary_cross_entropy(end.tensor(p), end.tensor(y).detach())
    yield end.same("mean binary cross entropy of the same", whole, np.mean(expected))
    shares = np.concatenate([2.0 ** -np.arange(12, 5, -1), np.arange(2, 63) / 64])
    shares = np.concatenate([shares, 1 - shares[:7][::-1]])
    for label in (0.0, 1.0):
        x = end.tensor(shares)
        loss = partial_none(F.binary_cross_entropy)(x, torch.full_like(x, label))
        loss.sum().backward()  # type: ignore[no-untyped-call]
        what = f"binary cross entropy with {label:g}"
        own = shares if label else 1 - shares
        yield end.along(what, shares, loss, -np.log(own))
        yield end.along(f"gradient of {what}", shares, x.grad, (1 - 2 * label) / own)


def partial_none(loss: Make) -> Make:
    """A functional loss without reduction."""
    return lambda output, target: loss(output, target, reduction="none")


def _bce_with_logits(end: End) -> Iterator[Measurement]:
    y = (1.0, 0.0, 1.0, 0.0, 0.0)
    x = np.array(LARGE)
    expected = np.logaddexp(0, x) - x * np.array(y)
    found = partial_none(F.binary_cross_entropy_with_logits)(end.tensor(x), end.tensor(y).detach())
    off = np.abs(found.detach().cpu().double().numpy() - expected)
    allowed = UNITS * torch.finfo(end.dtype).eps * np.maximum(np.abs(expected), 1)
    holds = bool((off <= allowed).all())
    message = f"binary_cross_entropy_with_logits is {found.tolist()}, expected {expected.tolist()}"
    yield true(f"binary_cross_entropy_with_logits of ±200 in {end.dtype}", holds, message)


def _mse(end: End) -> Iterator[Measurement]:
    x = end.tensor([1e15, -1e15, 0.0])
    loss = F.mse_loss(x, torch.zeros_like(x))
    yield end.same("mse_loss of ±1e15", loss, 2e30 / 3)
    loss.backward()  # type: ignore[no-untyped-call]
    yield end.same("gradient of mse_loss of ±1e15", x.grad, [2e15 / 3, -2e15 / 3, 0])  # type: ignore[arg-type]
    x = end.tensor(ALONG)
    F.mse_loss(x, torch.zeros_like(x)).backward()  # type: ignore[no-untyped-call]
    yield end.along("gradient of mse_loss", ALONG, x.grad, 2 * ALONG / len(ALONG))


def _max_pool(end: End) -> Iterator[Measurement]:
    x = end.tensor(np.ones((1, 1, 2, 2)))
    out = F.max_pool2d(x, 2)
    out.sum().backward()  # type: ignore[no-untyped-call]
    yield end.same("max_pool2d of four equal pixels", out, [[[[1.0]]]])
    taken = x.grad.flatten().sort().values if x.grad is not None else out
    yield end.same("gradient of max_pool2d of four equal pixels, sorted", taken, [0, 0, 0, 1])
    below = F.max_pool2d(end.tensor(np.full((1, 1, 2, 2), -3.0)), 2, padding=1)
    yield end.same("max_pool2d of padded −3", below, np.full((1, 1, 2, 2), -3.0))


def _average_pool(end: End) -> Iterator[Measurement]:
    pixels = np.arange(8.0).reshape(1, 2, 2, 2)
    expected = pixels.mean(axis=(2, 3), keepdims=True)
    x = end.tensor(pixels)
    yield end.same("adaptive_avg_pool2d to one", F.adaptive_avg_pool2d(x, 1), expected)
    yield end.same("avg_pool2d of all", F.avg_pool2d(x, 2), expected)


def _embedding(end: End) -> Iterator[Measurement]:
    table = end.tensor(np.arange(8.0).reshape(4, 2))
    rows = torch.tensor([1, 1, 3, 1], device=end.device)
    F.embedding(rows, table, padding_idx=1).sum().backward()  # type: ignore[no-untyped-call]
    wanted = [[0, 0], [0, 0], [0, 0], [1, 1]]
    yield end.same("gradient of a table whose row 1 is padding", table.grad, wanted)  # type: ignore[arg-type]
    none = F.embedding(rows[:0], table)
    yield end.same("embedding of no rows", none, np.zeros((0, 2)))


def _addmm(end: End) -> Iterator[Measurement]:
    weight, bias = np.arange(6.0).reshape(2, 3), np.array([1.0, -1.0])
    x = np.array([[1.0, 2.0, 3.0]])
    for rows in (0, 1):
        expected = x[:rows] @ weight.T + bias
        for name, form in (("torch.addmm", _addmm_of), ("F.linear", F.linear)):
            found = form(end.tensor(x[:rows]), end.tensor(weight), end.tensor(bias))
            yield _form(name, end.same(f"{name} of {rows} rows", found, expected))


def _addmm_of(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x, weight.T)


def _batch_norm(end: End) -> Iterator[Measurement]:
    row, epsilon = 7.0, 1e-5
    x = end.tensor(np.full((4, 2), row))
    mean, variance = torch.zeros_like(x[0]).detach(), torch.ones_like(x[0]).detach()
    out = F.batch_norm(x, mean, variance, training=True, momentum=0.1, eps=epsilon)
    # x/σ − μ/σ: both are rounded before they cancel.
    yield end.same("batch_norm of equal rows", out, np.zeros((4, 2)), row / epsilon**0.5)
    yield end.same("running mean of equal rows", mean, [0.7, 0.7])
    yield end.same("running variance of equal rows", variance, [0.9, 0.9])


PROBES: dict[str, Callable[[End], Iterator[Measurement]]] = {
    "relu": _relu,
    "abs": _abs,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "log": _log,
    "_log_softmax": _cross_entropy,
    "_softmax": _softmax,
    "binary_cross_entropy": _bce,
    "binary_cross_entropy_with_logits": _bce_with_logits,
    "mse_loss": _mse,
    "max_pool2d_with_indices": _max_pool,
    "mean": _average_pool,
    "avg_pool2d": _average_pool,
    "_adaptive_avg_pool2d": _average_pool,
    "embedding": _embedding,
    "addmm": _addmm,
    "native_batch_norm": _batch_norm,
}
"""A probe of each operation, by its name in aten."""


# --- what is the plugin's own --------------------------------------------------------------------


def _of_own_layers(subject: Subject, end: End) -> Iterator[Measurement]:
    """Layers of a plugin's own that are kinds of torch's, which say the same of themselves."""
    build = subject.trained.build
    for layer in build().modules() if build is not None else ():
        kind = type(layer)
        if kind.__module__.startswith("torch."):
            continue
        if isinstance(layer, nn.Sigmoid):
            yield from _of_sigmoid(end, kind.__name__, layer)
        elif isinstance(layer, nn.ReLU):
            out = layer(end.tensor([-1.0, 0.0, 2.0]))
            yield end.same(f"{kind.__name__} of -1, 0 and 2", out, [0, 0, 2])


def _of_the_state(subject: Subject) -> Iterator[Measurement]:
    """A state dict has every parameter and buffer, and comes back from a file in its own dtype."""
    build = subject.trained.build
    if build is None:
        return
    module = build().double()
    with_buffer = nn.Sequential(nn.BatchNorm1d(2).double())
    for what, owner in (("the variant's module", module), ("a batch normalisation", with_buffer)):
        state = owner.state_dict()
        own = [name for name, _ in owner.named_parameters(remove_duplicate=False)]
        own += [name for name, _ in _persistent(owner)]
        lost = sorted(set(own) - state.keys())
        yield equal(f"what the state dict of {what} lacks", lost, [])
        loaded = saved_and_loaded(state)
        changed = [n for n, value in state.items() if not _alike(value, loaded.get(n))]
        yield equal(f"what torch.save changes in {what} in float64", changed, [])


def _persistent(owner: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, layer in owner.named_modules():
        for name, buffer in layer.named_buffers(recurse=False):
            if name not in layer._non_persistent_buffers_set:
                yield f"{prefix}.{name}".lstrip("."), buffer


def _alike(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor):
        return bool(one == other)
    return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
