"""Makes one standalone script of a call of torch that rounding does not explain.

The call is taken as :class:`~refimpl.parity.kernel_judge.KernelJudge` saw it. Where random inputs
of its shapes show the fault too, they are drawn from a seed; else they are stored beside the
script. Sizes are made smaller as long as the fault stays.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from refimpl import environment
from refimpl._version import __version__
from refimpl.contract import Execution, Variant
from refimpl.data import Tier
from refimpl.errors import RefimplError
from refimpl.parity.judged_steps import judged
from refimpl.parity.kernel_bounds import bounds, in_float64, name_of, repeated, results_of, written
from refimpl.parity.kernel_judge import (
    AGAINST_NUMPY,
    Captured,
    JudgedCall,
    Widened,
    furthest,
    library_of,
)
from refimpl.trees import dense
from refimpl.writing import write_text

SEED = 0

SHOWN = 2.0
"""How many times what rounding explains a fault must be off, to be told from chance."""

SECONDS = 60.0
"""How long sizes are made smaller."""

LENGTH = 40
"""Lines that the script may have."""

Arrays = list[NDArray[Any]]
Within = Callable[[], AbstractContextManager[object]]


class ReproducerError(RefimplError):
    """There is nothing to reproduce, or it cannot be written as a script."""


@dataclass(frozen=True)
class Trial:
    """A call with some inputs: how far it is off, and what rounding explains, as shares of scale.

    ``at`` is the element that is looked at, if it is not the furthest one.
    """

    call: JudgedCall
    error: float
    limit: float
    at: int | None

    @property
    def shows(self) -> bool:
        """Whether the fault is there, beyond doubt."""
        return not self.call.ratio <= SHOWN


@dataclass(frozen=True)
class Inputs:
    """What a call is given: its leaves, in which tensors stand as their sizes and kinds.

    ``stored`` are the arrays, if they are not drawn; ``how`` says from which numbers floats are
    drawn.
    """

    leaves: tuple[Any, ...]
    how: str
    stored: tuple[NDArray[Any], ...] | None = None

    @property
    def tensors(self) -> list[Sized]:
        """The tensors among the leaves."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Sized)]

    def arrays(self) -> Arrays:
        """The values, exactly as the script makes them."""
        if self.stored is not None:
            pairs = zip(self.tensors, self.stored, strict=True)
            return [array[tuple(map(slice, own.shape))] for own, array in pairs]
        draw = np.random.default_rng(SEED)
        return [own.drawn(draw, self.how) for own in self.tensors]


@dataclass(frozen=True)
class Sized:
    """A tensor of a call: its shape, its dtype, and the range of its integers."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    low: int = 0
    high: int = 1

    def drawn(self, draw: np.random.Generator, how: str) -> NDArray[Any]:
        """Random values for it."""
        if self.dtype.is_floating_point:
            return np.asarray(getattr(draw, how)(self.shape))
        return draw.integers(self.low, self.high + 1, self.shape)

    def written(self, how: str) -> str:
        """The expression that draws it."""
        made = f"draw.{how}({self.shape})"
        if not self.dtype.is_floating_point:
            made = f"draw.integers({self.low}, {self.high + 1}, {self.shape})"
        return f"torch.as_tensor({made}).to({self.dtype})"


def reproduce(
    variant: Variant, execution: Execution, tier: Tier, script: Path, kernel: str = ""
) -> tuple[str, list[Path]]:
    """Write a script for the first call that rounding does not explain.

    ``kernel`` may name another than the first, such as ``aten::mm``. Returns what the fault is, and
    the files. Raises :class:`ReproducerError` if every call is right.
    """
    seen = judged(variant, execution, tier).captured
    chosen = seen.get(kernel if "::" in kernel else f"aten::{kernel}") if kernel else None
    if kernel and chosen is None:
        raise ReproducerError(
            f"{kernel} is right in {variant.name} on {execution.name}; "
            f"wrong there: {', '.join(seen) or 'nothing'}"
        )
    if not seen:
        raise ReproducerError(
            f"every kernel is right in {variant.name} on {execution.name}, so there is none to "
            "reproduce; where a layer or a mode is wrong: refimpl compare"
        )
    return write(chosen or next(iter(seen.values())), execution, script)


def write(captured: Captured, execution: Execution, script: Path) -> tuple[str, list[Path]]:
    """Write the script of a call, and its inputs beside it if they cannot be drawn."""
    if captured.call.role == AGAINST_NUMPY:
        raise ReproducerError(
            f"no script is made, for it would compare {captured.call.kernel} with torch's float64, "
            f"which is itself wrong: {captured.call}"
        )
    inputs, trial = smallest(captured, execution.around, execution.device)
    text = script_of(captured, inputs, trial, execution.device)
    files = [script]
    if inputs.stored is not None:
        arrays = {f"t{number}": array for number, array in enumerate(inputs.arrays())}
        files.append(script.with_suffix(".npz"))
        np.savez_compressed(files[-1], **arrays)  # type: ignore[arg-type]
    write_text(script, text)
    return str(trial.call), files


# --- does a call show the fault? -----------------------------------------------------------------


def smallest(captured: Captured, around: Within, device: str) -> tuple[Inputs, Trial]:
    """The smallest inputs found that show the fault: drawn ones, or else the call's own.

    Raises :class:`ReproducerError` if the call's own inputs do not show it once more.
    """
    own = _own(captured)
    for how in ("standard_normal", "random"):
        drawn = Inputs(own.leaves, how)
        trial = _tried(captured, drawn, around, device)
        if trial is not None and trial.shows:
            return _shrunk(captured, drawn, trial, around, device)
    trial = _tried(captured, own, around, device)
    if trial is None or not trial.shows:
        raise ReproducerError(
            f"{captured.call.kernel} is right when the call is made again: the fault comes and "
            f"goes, or needs what came before it. It was: {captured.call}"
        )
    return _shrunk(captured, own, trial, around, device)


def _own(captured: Captured) -> Inputs:
    """The call's own inputs."""
    leaves: list[Any] = []
    stored: Arrays = []
    for leaf in tree_flatten((captured.args, captured.kwargs))[0]:
        value = leaf.value if isinstance(leaf, Widened) else leaf
        if not isinstance(value, Tensor):
            leaves.append(leaf)
            continue
        if isinstance(leaf, Widened):
            leaves.append(Sized(tuple(value.shape), leaf.dtype))
            stored.append(value.to(_kept_as(leaf.dtype)).numpy())
        else:
            low, high = (int(value.min()), int(value.max())) if value.numel() else (0, 0)
            leaves.append(Sized(tuple(value.shape), value.dtype, low, high))
            stored.append(value.numpy())
    return Inputs(tuple(leaves), "", tuple(stored))


def _kept_as(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _tried(captured: Captured, inputs: Inputs, around: Within, device: str) -> Trial | None:
    """The call with these inputs; ``None`` if it cannot be made with them."""
    func, spec = captured.func, tree_flatten((captured.args, captured.kwargs))[1]
    try:
        values = iter(inputs.arrays())
        rounded = [
            torch.as_tensor(next(values)).to(leaf.dtype) if isinstance(leaf, Sized) else leaf
            for leaf in inputs.leaves
        ]
        with torch.no_grad():
            args, kwargs = tree_unflatten([_there(leaf, device) for leaf in rounded], spec)
            with around():
                made = results_of(func, args, kwargs, func(*args, **kwargs))[captured.number]
            args, kwargs = tree_unflatten([in_float64(leaf) for leaf in rounded], spec)
            exact = [dense(each) for each in repeated(func, args, kwargs)]
            unit = _unit(rounded, made)
            on = made.device.type
            allowed = bounds(func, args, kwargs, exact, unit, on)[captured.number]
    except (RuntimeError, IndexError, ValueError, TypeError):
        return None
    right = exact[captured.number]
    if not made.numel() or not bool(right.isfinite().all()):
        return None
    found = furthest(dense(made), right, allowed)
    call = JudgedCall(
        captured.call.kernel, captured.call.role,
        tuple(own.shape for own in inputs.tensors)[:3], captured.call.dtype, captured.call.device,
        found.error, found.ratio, found.found, found.expected,
    )  # fmt: skip
    return _measured(call, made, right, torch.as_tensor(allowed, dtype=torch.float64))


def _measured(call: JudgedCall, made: Tensor, right: Tensor, allowed: Tensor) -> Trial:
    """By the furthest element of all where that tells; else by the one that is furthest beyond."""
    off = (dense(made.detach()).to("cpu", torch.float64) - right).abs()
    scale = float(right.abs().max()) or 1.0
    error, limit = float(off.max()) / scale, float(allowed.max()) / scale
    if not error <= SHOWN * limit:
        return Trial(call, error, limit, None)
    every = allowed.expand(off.shape)
    at = int((off / every.clamp(min=torch.finfo(torch.float64).tiny)).argmax())
    return Trial(call, float(off.flatten()[at]) / scale, float(every.flatten()[at]) / scale, at)


def _there(leaf: Any, device: str) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.to(device)
    return torch.device(device) if isinstance(leaf, torch.device) else leaf


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, torch.dtype) and leaf.is_floating_point


def _unit(leaves: Sequence[Any], made: Tensor) -> float:
    floats = [leaf for leaf in (*leaves, made) if isinstance(leaf, Tensor)]
    return max(torch.finfo(t.dtype).eps for t in floats if t.is_floating_point())


# --- smaller -------------------------------------------------------------------------------------


def _shrunk(
    captured: Captured, inputs: Inputs, trial: Trial, around: Within, device: str
) -> tuple[Inputs, Trial]:
    """The inputs with one size after another made smaller, as long as the fault stays."""
    until = time.monotonic() + SECONDS
    smaller = True
    while smaller:
        smaller = False
        for change in _changes(inputs):
            if time.monotonic() > until:
                return inputs, trial
            fewer = _changed(inputs, change)
            again = _tried(captured, fewer, around, device)
            if again is not None and again.shows and again.error >= trial.error / 10:
                inputs, trial, smaller = fewer, again, True
                break
    return inputs, trial


def _changes(inputs: Inputs) -> Iterator[Mapping[int, int]]:
    """Sizes and what they might become: one alone, or two that belong together by the same."""
    sizes = sorted({size for own in inputs.tensors for size in own.shape if size > 1}, reverse=True)
    for size in sizes:
        for less in sorted({1, 2, 3, 4, size // 4, size // 2, 3 * size // 4}):
            if 0 < less < size:
                yield {size: less}
    for large, small in combinations(sizes, 2):
        for by in sorted({small - 1, small // 2, 1}, reverse=True):
            if 0 < by < small:
                yield {large: large - by, small: small - by}


def _changed(inputs: Inputs, change: Mapping[int, int]) -> Inputs:
    """The inputs with these sizes, in tensors and in what is given as a size."""

    def changed(leaf: Any) -> Any:
        if isinstance(leaf, Sized):
            shape = tuple(change.get(size, size) for size in leaf.shape)
            return Sized(shape, leaf.dtype, leaf.low, leaf.high)
        plain = isinstance(leaf, int) and not isinstance(leaf, bool)
        return change.get(leaf, leaf) if plain else leaf

    return Inputs(tuple(map(changed, inputs.leaves)), inputs.how, inputs.stored)


# --- the script ----------------------------------------------------------------------------------

SCRIPT = '''\
"""{head}

Found by refimpl {version} with {environment}.
Exits with 1 where the fault is there, with 0 where it is not. Needs torch and NumPy alone.
"""

import sys{imports}

import numpy as np
import torch

DEVICE = "{device}"
LIMIT = {limit:.3g}  # of the largest value: what rounding explains
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
{inputs}


def call(device, real=None):
    t = [x.clone().to(device, real if x.is_floating_point() else None) for x in given]
    made = torch.ops.aten.{name}({arguments})
    return {result}


found, expected = call(DEVICE).cpu().double(), call("cpu", torch.float64)
error = float(((found - expected).abs() / expected.abs().max()){look})
print(f"torch {{torch.__version__}} on {{DEVICE}}: {kernel} is off by {{error:.2e}} of its "
      f"largest value, where rounding explains {{LIMIT:.2e}}")
sys.exit(not error <= LIMIT)
'''


def script_of(captured: Captured, inputs: Inputs, trial: Trial, device: str) -> str:
    """The text of the script."""
    imports = "" if inputs.stored is None else "\nfrom pathlib import Path"
    if inputs.stored is None:
        rows = "".join(f"\n    {own.written(inputs.how)}," for own in inputs.tensors)
        source = f"draw = np.random.default_rng({SEED})\ngiven = [{rows}\n]"
    else:
        kinds = ", ".join(str(own.dtype) for own in inputs.tensors)
        source = (
            'arrays = np.load(Path(__file__).with_suffix(".npz")).values()\n'
            f"kinds = [{kinds}]\n"
            "given = [torch.as_tensor(a).to(k) for a, k in zip(arrays, kinds)]"
        )
    func = captured.func
    name = f"{func._schema.name.removeprefix('aten::')}.{func._overloadname}"
    role = f", {trial.call.role}" if trial.call.role not in ("", "output") else ""
    library = f" ({library_of(trial.call)})" if library_of(trial.call) else ""
    text = SCRIPT.format(
        head=f"{trial.call.kernel}{role}: {trial.error:.1e} of its largest value off, "
        f"{trial.call.dtype}{library}.",
        version=__version__,
        environment=_here(),
        imports=imports,
        device=device,
        limit=trial.limit,
        inputs=source,
        name=name,
        kernel=f"{trial.call.kernel}{role}",
        arguments=_arguments(captured, inputs),
        result=_result(captured),
        look=".max()" if trial.at is None else f".flatten()[{trial.at}]",
    )
    if text.count("\n") >= LENGTH:
        raise ReproducerError(f"the call of {func} has too many inputs for a script of its own")
    return text


def _here() -> str:
    parts = [
        f"torch {torch.__version__}",
        *(f"{n} {v}" for n, v in environment.libraries().items()),
    ]
    return f"{', '.join(parts)}, Python {platform.python_version()}"


def _arguments(captured: Captured, inputs: Inputs) -> str:
    """The arguments as they stand in the script."""
    numbers = iter(range(len(inputs.tensors)))
    texts = [_Text(_written(leaf, numbers)) for leaf in inputs.leaves]
    spec = tree_flatten((captured.args, captured.kwargs))[1]
    args, kwargs = tree_unflatten(texts, spec)
    return ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])


class _Text:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _written(leaf: Any, numbers: Iterator[int]) -> str:
    if isinstance(leaf, Sized):
        return f"t[{next(numbers)}]"
    if isinstance(leaf, torch.device):
        return "device"
    if _is_real(leaf):
        return f"real or {leaf}"
    if isinstance(leaf, (int, float, bool, str, type(None), torch.dtype)):
        if isinstance(leaf, float) and leaf in (float("inf"), float("-inf")):
            return f'float("{leaf}")'
        return repr(leaf)
    if isinstance(leaf, (torch.memory_format, torch.layout)):
        return str(leaf)
    raise ReproducerError(f"an argument of {type(leaf).__name__} cannot be written in a script")


def _result(captured: Captured) -> str:
    """What the judged result is, of what the call makes or writes to."""
    func, number = captured.func, captured.number
    into = written(func)
    if number < len(into):
        place, _ = into[number]
        own = tree_flatten(captured.args[:place])[0]
        before = sum(isinstance(leaf, (Widened, Tensor)) for leaf in own)
        return f"t[{before}]"
    at = number - len(into)
    several = len(func._schema.returns) > 1 or name_of(func).startswith("_foreach")
    if not several:
        return "made"
    # A result that was not asked for is None, and is not counted.
    return f"[m for m in made if m is not None][{at}]"
