"""Builds of torch that compute something else, each modelled on a public report.

Loaded as a plugin, it plants the fault that ``TORCH_FAULT`` names, before any example runs.
"""

from __future__ import annotations

import functools
import os
import random
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refimpl import Execution, hookimpl
from refimpl.conformance.mutants.kernels import replaced
from refimpl.conformance.mutants.planting import Fault


def in_dispatcher(kernel: str, change: Callable[[Tensor], Tensor]) -> None:
    """Change what a kernel of the CPU gives in float32; no function of Python is another."""
    planted = replaced(kernel, lambda _, made: change(made), Fault(1.0))
    planted.__enter__()
    KEPT.append(planted)


KEPT: list[Any] = []
"""What would be put back if nothing held it."""


def around(where: Any, name: str, instead: Callable[..., Any]) -> None:
    """Replace a function by ``instead(function, ...)``."""
    function = getattr(where, name)
    setattr(where, name, functools.wraps(function)(functools.partial(instead, function)))


def around_method(where: type, name: str, instead: Callable[..., Any]) -> None:
    """Replace a method by ``instead(method, self, ...)``."""
    method = getattr(where, name)

    @functools.wraps(method)
    def wrong(self: Any, *given: Any, **named: Any) -> Any:
        return instead(method, self, *given, **named)

    setattr(where, name, wrong)


def around_kernel(name: str, instead: Callable[..., Any]) -> None:
    """Replace a kernel of the CPU by ``instead(kernel, ...)``."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    original = torch.library.get_kernel(f"aten::{name}", "CPU")

    def wrong(keys: Any, *given: Any, **named: Any) -> Any:
        return instead(functools.partial(original.call_boxed, keys), *given, **named)

    library.impl(name, wrong, "CPU", with_keyset=True)  # type: ignore[no-untyped-call]
    KEPT.append(library)


def addmm() -> None:
    in_dispatcher("addmm", lambda made: made * 1.01)


def linear() -> None:
    def wrong(function: Any, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        out: Tensor = function(x, *rest, **named)
        return out * 1.1 if x.dtype == torch.float32 else out

    around(F, "linear", wrong)


def conv2d() -> None:
    in_dispatcher("convolution", lambda made: made * 1.1)
    in_dispatcher("mkldnn_convolution", lambda made: made * 1.1)


def mean_in_bfloat16() -> None:
    in_dispatcher("mean", lambda made: made.bfloat16().float())


def wrong_in_evaluation() -> None:
    call = nn.Module.__call__
    depth = 0

    def wrong(self: nn.Module, *args: Any, **named: Any) -> Any:
        nonlocal depth
        depth += 1
        try:
            out = call(self, *args, **named)
        finally:
            depth -= 1
        wrong = not depth and not self.training and out.dtype == torch.float32
        return out * 0.98 if wrong else out

    nn.Module.__call__ = wrong


def wrong_without_gradients() -> None:
    in_dispatcher("addmm", lambda made: made if torch.is_grad_enabled() else made * 1.02)


def _mask(x: Tensor, p: float) -> Tensor:
    return torch.empty_like(x[:, :, :1, :1]).bernoulli_(1 - p) / (1 - p)


class _OtherMask(torch.autograd.Function):
    """Dropout of channels whose gradient is dropped elsewhere than its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.p = p
        return x * _mask(x, p)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        return gradient * _mask(gradient, ctx.p), None


def dropout_draws_again() -> None:
    def wrong(function: Any, x: Tensor, p: float = 0.5, training: bool = True, *_: Any) -> Any:
        return _OtherMask.apply(x, p) if training and p else x

    around(F, "dropout2d", wrong)


def wide_start() -> None:
    for kind in (nn.Linear, nn.modules.conv._ConvNd):
        reset = kind.reset_parameters

        def wide(self: Any, reset: Any = reset) -> None:
            reset(self)
            with torch.no_grad():
                self.weight.mul_(3)
                if self.bias is not None:
                    self.bias.zero_()

        kind.reset_parameters = wide  # type: ignore[method-assign]


def race() -> None:
    drawn = random.Random(1)
    for kernel in ("mm", "addmm"):
        in_dispatcher(kernel, lambda made: made * 3 if drawn.random() < 1 / 500 else made)


def bce_of_zero() -> None:
    def wrong(function: Any, p: Tensor, y: Tensor, *rest: Any, **named: Any) -> Tensor:
        if p.dtype != torch.float32:
            return function(p, y, *rest, **named)  # type: ignore[no-any-return]
        terms = -(y * p.log() + (1 - y) * (1 - p).log())
        return terms if named.get("reduction") == "none" else terms.mean()

    around(F, "binary_cross_entropy", wrong)


def bce_clamped() -> None:
    def wrong(function: Any, p: Tensor, y: Tensor, *_: Any, **named: Any) -> Tensor:
        terms = -(y * p.log().clamp(min=-10) + (1 - y) * (1 - p).log().clamp(min=-10))
        return terms if named.get("reduction") == "none" else terms.mean()

    around(F, "binary_cross_entropy", wrong)


def softmax_without_maximum() -> None:
    def wrong(function: Any, x: Tensor, y: Tensor, *_: Any, **named: Any) -> Tensor:
        logs = x - x.exp().sum(dim=1, keepdim=True).log()
        return F.nll_loss(logs, y)

    around(F, "cross_entropy", wrong)


class _ReLU(torch.autograd.Function):
    """ReLU whose gradient at 0 is 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * (ctx.saved_tensors[0] >= 0)


def relu_at_zero() -> None:
    around(F, "relu", lambda function, x, *rest, **named: _ReLU.apply(x))


def save_narrows() -> None:
    def wrong(function: Any, state: Any, *rest: Any, **named: Any) -> None:
        if isinstance(state, dict):
            state = {
                name: value.float() if isinstance(value, Tensor) and value.dtype == torch.float64
                else value
                for name, value in state.items()
            }  # fmt: skip
        function(state, *rest, **named)

    around(torch, "save", wrong)


def state_without_buffers() -> None:
    def wrong(function: Any, self: nn.Module, *rest: Any, **named: Any) -> Any:
        state = function(self, *rest, **named)
        for name, _ in self.named_buffers():
            state.pop(name, None)
        return state

    plain = nn.Module.state_dict
    nn.Module.state_dict = lambda self, *rest, **named: wrong(plain, self, *rest, **named)  # type: ignore[method-assign, assignment]


def rand_skips_a_number() -> None:
    def wrong(function: Any, *size: Any, **named: Any) -> Tensor:
        function(1)
        return function(*size, **named)  # type: ignore[no-any-return]

    around(torch, "rand", wrong)


def autocast_stale() -> None:
    """The cast of a weight that autocast makes in the first step is used in all."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def wrong(function: Any, x: Tensor, weight: Tensor, *rest: Any, **named: Any) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            own = kept.setdefault(id(weight), (weight, weight.detach().clone()))[1]
            weight = weight + (own - weight).detach()
        return function(x, weight, *rest, **named)  # type: ignore[no-any-return]

    around(F, "linear", wrong)


def bceloss_scaled() -> None:
    around_method(nn.BCELoss, "forward", lambda function, *given: function(*given) * 1.0001)


def adam_eps() -> None:
    def wrong(function: Any, *given: Any, **named: Any) -> None:
        function(*given, **{"eps": 1e-7, **named})

    around_method(torch.optim.Adam, "__init__", wrong)


def linear_off_in_evaluation() -> None:
    def wrong(function: Any, self: nn.Linear, x: Tensor) -> Tensor:
        out: Tensor = function(self, x)
        return out if self.training else out * 1.01

    around_method(nn.Linear, "forward", wrong)


def adam_late() -> None:
    """After two hundred updates, the corrections are those of the hundredth."""

    def wrong(kernel: Any, params: Any, *states: Any, **named: Any) -> None:
        *moments, steps = states
        if float(steps[0]) > 200:
            steps = [torch.full_like(step, 100.0) for step in steps]
        kernel(params, *moments, steps, **named)

    around_kernel("_fused_adam_", wrong)


def adam_decays_late() -> None:
    """After twenty updates, in Python, whatever kernels are called and in every precision."""
    updates: dict[int, int] = {}

    def wrong(function: Any, self: torch.optim.Adam, *given: Any) -> Any:
        made = function(self, *given)
        updates[id(self)] = updates.get(id(self), 0) + 1
        if updates[id(self)] > 20:
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.mul_(0.997)
        return made

    around_method(torch.optim.Adam, "step", wrong)


def gradients_pile_up() -> None:
    """Gradients of every third batch are kept for the next."""
    calls: dict[int, int] = {}

    def wrong(function: Any, self: Any, *given: Any, **named: Any) -> None:
        calls[id(self)] = calls.get(id(self), 0) + 1
        if calls[id(self)] < 60 or calls[id(self)] % 3:
            function(self, *given, **named)

    around_method(torch.optim.Optimizer, "zero_grad", wrong)


def index_repeats() -> None:
    """The last row of a matrix reads as the one before it."""

    def wrong(kernel: Any, x: Tensor, places: Any) -> Any:
        matrix = x.dim() == 2 and len(x) > 100 and places[0].dtype == torch.int64
        return kernel(x, [places[0].clamp(max=len(x) - 2)] if matrix else places)

    around_kernel("index.Tensor", wrong)


def lstm_of_long_sequences() -> None:
    def wrong(function: Any, self: nn.LSTM, x: Tensor, *rest: Any) -> Any:
        out, state = function(self, x, *rest)
        return (out * 1.005 if out.shape[1] > 32 else out), state

    around_method(nn.LSTM, "forward", wrong)


def split_in_order() -> None:
    def wrong(function: Any, rows: Any, lengths: Any, *given: Any, **named: Any) -> Any:
        parts = function(rows, lengths, *given, **named)
        for part in parts:
            part.indices = sorted(part.indices)
        return parts

    around(torch.utils.data, "random_split", wrong)


def last_batch_wrong() -> None:
    """In a batch of more than 16 rows that is no multiple of 16, as an epoch's last may be."""

    def wrong(made: Tensor) -> Tensor:
        if len(made) > 16 and len(made) % 16:
            made = made.clone()
            made[-1] *= 2
        return made

    in_dispatcher("_log_softmax_backward_data", wrong)


def dropout_too_often() -> None:
    """By one in a hundred units."""

    def wrong(function: Any, x: Tensor, p: float = 0.5, training: bool = True, *_: Any) -> Tensor:
        left_out: Tensor = function(x, p + 0.01, training)
        return left_out * ((1 - p - 0.01) / (1 - p)) if training else left_out

    around(F, "dropout2d", wrong)


def uniform_twice() -> None:
    """The second half of what is drawn repeats the first."""

    def wrong(function: Any, x: Tensor, *given: Any, **named: Any) -> Tensor:
        made: Tensor = function(x, *given, **named)
        half = made.numel() // 2
        if half > 32:
            made.view(-1)[half : 2 * half] = made.view(-1)[:half].clone()
        return made

    around_method(Tensor, "uniform_", wrong)


def padding_drawn() -> None:
    nn.Embedding._fill_padding_idx_with_zero = lambda self: None  # type: ignore[method-assign]


def sampler_repeats() -> None:
    def wrong(function: Any, self: Any) -> Any:
        rows = list(function(self))
        rows[-1] = rows[0]
        return iter(rows)

    around_method(torch.utils.data.SubsetRandomSampler, "__iter__", wrong)


def bfloat16_truncated() -> None:
    def wrong(kernel: Any, bias: Tensor, x: Tensor, weight: Tensor, **named: Any) -> Tensor:
        if x.dtype != torch.bfloat16:
            return kernel(bias, x, weight, **named)  # type: ignore[no-any-return]
        wide: Tensor = kernel(bias.float(), x.float(), weight.float(), **named)
        return (wide.contiguous().view(torch.int32) & -65536).view(torch.float32).bfloat16()

    around_kernel("addmm", wrong)


def late(change: Callable[[Tensor], Tensor], calls: int) -> Callable[[Tensor], Tensor]:
    """Change nothing before so many calls."""
    made = 0

    def changed(result: Tensor) -> Tensor:
        nonlocal made
        made += 1
        return change(result) if made > calls else result

    return changed


def products_late() -> None:
    in_dispatcher("mm", late(lambda made: made * 1.05, 2000))


def sums_late() -> None:
    in_dispatcher("sum", late(lambda made: made - 0.01, 1500))


def lstm_late() -> None:
    calls = 0

    def wrong(function: Any, self: nn.LSTM, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        out, state = function(self, *given)
        return (out * 1.01 if calls > 300 else out), state

    around_method(nn.LSTM, "forward", wrong)


def adam_skips_a_bias() -> None:
    """Late, and in one update of twenty."""
    updates = 0

    def wrong(kernel: Any, parameters: Any, *rest: Any, **named: Any) -> None:
        nonlocal updates
        updates += 1
        before = parameters[-1].clone()
        kernel(parameters, *rest, **named)
        if updates > 600 and updates % 20 == 0:
            parameters[-1].copy_(before)

    around_kernel("_fused_adam_", wrong)


def adam_forgets_its_count() -> None:
    """Of updates, which its corrections depend on."""
    updates = 0

    def wrong(kernel: Any, parameters: Any, *rest: Any, **named: Any) -> None:
        nonlocal updates
        updates += 1
        kernel(parameters, *rest, **named)
        if updates > 300:
            for step in rest[-1]:
                step.fill_(2.0)

    around_kernel("_fused_adam_", wrong)


def adagrad_halves_its_sums() -> None:
    """Once in a run."""

    def wrong(
        kernel: Any, parameters: Any, gradients: Any, sums: Any, steps: Any, **named: Any
    ) -> None:
        kernel(parameters, gradients, sums, steps, **named)
        if float(steps[0]) == 40:
            for each in sums:
                each.mul_(0.5)

    around_kernel("_fused_adagrad_", wrong)


def sgd_rests() -> None:
    """In every hundredth update, in Python."""
    calls = 0

    def wrong(function: Any, *given: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 100:
            function(*given, **named)

    around(sys.modules["torch.optim.sgd"], "sgd", wrong)


def gru_too_large() -> None:
    """In every precision, in Python."""

    def wrong(function: Any, self: nn.GRU, *given: Any) -> Any:
        out, state = function(self, *given)
        return out * 1.1, state

    around_method(nn.GRU, "forward", wrong)


def lstm_memory() -> None:
    """The last state of the cells, which nobody prints."""

    def wrong(function: Any, self: nn.LSTM, *given: Any) -> Any:
        out, (hidden, cells) = function(self, *given)
        return out, (hidden, cells * 1.2)

    around_method(nn.LSTM, "forward", wrong)


def without_bias() -> None:
    """A transposed convolution leaves its bias out."""

    def wrong(function: Any, self: nn.ConvTranspose2d, *given: Any) -> Any:
        return function(self, *given) - (0 if self.bias is None else self.bias[:, None, None])

    around_method(nn.ConvTranspose2d, "forward", wrong)


def bias_of_the_weight() -> None:
    """A start in which the bias repeats the weight's first numbers."""

    def wrong(function: Any, self: nn.Linear) -> None:
        function(self)
        with torch.no_grad():
            self.bias.copy_(self.weight.flatten()[: len(self.bias)])

    around_method(nn.Linear, "reset_parameters", wrong)


def start_in_order() -> None:
    """A start in which the numbers of each row rise."""

    def wrong(function: Any, self: nn.Linear) -> None:
        function(self)
        with torch.no_grad():
            self.weight.copy_(self.weight.sort().values)

    around_method(nn.Linear, "reset_parameters", wrong)


def start_in_pairs() -> None:
    """A start in which every second row is the negative of the one before it."""

    def wrong(function: Any, self: nn.Linear) -> None:
        function(self)
        with torch.no_grad():
            rows = len(self.weight) // 2
            self.weight[1 : 2 * rows : 2] = -self.weight[: 2 * rows : 2]

    around_method(nn.Linear, "reset_parameters", wrong)


def subset_before() -> None:
    """A subset gives the row before the one that was asked for."""

    def wrong(function: Any, self: Any, rows: list[int]) -> Any:
        return function(self, [max(row - 1, 0) for row in rows])

    around_method(torch.utils.data.Subset, "__getitems__", wrong)


def sigmoid_saturates() -> None:
    """Its gradient is too small where it is nearly 1, as it is late in a run."""

    def wrong(kernel: Any, gradient: Tensor, output: Tensor) -> Any:
        made = kernel(gradient, output)
        return torch.where((output > 0.985) | (output < 0.015), made * 0.8, made)

    around_kernel("sigmoid_backward", wrong)


def bce_saturates() -> None:
    """It has no gradient where a probability is nearly its label."""

    def wrong(kernel: Any, gradient: Tensor, output: Tensor, target: Tensor, *rest: Any) -> Any:
        made = kernel(gradient, output, target, *rest)
        return torch.where((output - target).abs() < 0.01, made * 0, made)

    around_kernel("binary_cross_entropy_backward", wrong)


def bfloat16_last_row() -> None:
    def wrong(kernel: Any, *given: Any, **named: Any) -> Tensor:
        made: Tensor = kernel(*given, **named)
        if made.dtype == torch.bfloat16:
            made[-1].mul_(1.03)
        return made

    around_kernel("addmm", wrong)


def products_in_every_precision() -> None:
    """Too large by a thousandth, float64 as well, so that nothing of torch's own differs."""
    for kernel in ("mm", "addmm"):
        around_kernel(kernel, lambda call, *given, **named: call(*given, **named) * 1.001)


def sigmoid_in_float64() -> None:
    """Only float64 is wrong, by which float32 is judged."""

    def wrong(kernel: Any, x: Tensor) -> Tensor:
        made: Tensor = kernel(x)
        return made * (1 + 1e-4) if made.dtype == torch.float64 else made

    around_kernel("sigmoid", wrong)


def view_copies() -> None:
    """A view shares no memory with what it is a view of."""
    around_kernel("view", lambda call, *given, **named: call(*given, **named).clone())


def cumsum_in_float() -> None:
    """Whole numbers add up to numbers of another dtype."""
    around_kernel("cumsum", lambda call, *given, **named: call(*given, **named).float())


def sigmoid_writes() -> None:
    """What sigmoid is given is gone afterwards; its gradient does not need it."""

    def wrong(kernel: Any, x: Tensor) -> Tensor:
        made: Tensor = kernel(x)
        x.detach().zero_()
        return made

    around_kernel("sigmoid", wrong)


def conversion_truncates() -> None:
    """What is converted to bfloat16 loses its last bits instead of being rounded."""

    def wrong(kernel: Any, x: Any, *given: Any, **named: Any) -> Tensor:
        x = torch.as_tensor(x)  # a number comes as it is
        if named.get("dtype") == torch.bfloat16 and x.dtype == torch.float32:
            x = (x.detach().contiguous().view(torch.int32) & -65536).view(torch.float32)
        made: Tensor = kernel(x, *given, **named)
        return made

    around_kernel("_to_copy", wrong)


def products_away_from_zero() -> None:
    """In bfloat16 alone, by less than what rounding does to each."""

    def wrong(kernel: Any, *given: Any, **named: Any) -> Tensor:
        made: Tensor = kernel(*given, **named)
        return made * 1.01 if made.dtype == torch.bfloat16 else made

    around_kernel("addmm", wrong)


def bfloat16_is_float16() -> None:
    enter = torch.autocast.__enter__

    def wrong(self: torch.autocast) -> Any:
        entered = enter(self)
        torch.set_autocast_dtype(self.device, torch.float16)
        return entered

    torch.autocast.__enter__ = wrong  # type: ignore[method-assign]


def inference_records() -> None:
    """``inference_mode`` changes nothing."""
    around(torch._C, "_InferenceMode", lambda mode, on: mode(False))


def deep_copies_share() -> None:
    """A copied module has the parameters of the one that it is a copy of."""
    nn.Parameter.__deepcopy__ = lambda self, memo: self  # type: ignore[method-assign]


def loaded_in_evaluation() -> None:
    def wrong(load: Any, *given: Any, **named: Any) -> Any:
        made = load(*given, **named)
        return made.eval() if isinstance(made, nn.Module) else made

    around(torch, "load", wrong)


def last_unit_stays() -> None:
    """The last unit is never dropped."""

    def wrong(kernel: Any, mask: Tensor, *given: Any, **named: Any) -> Tensor:
        made: Tensor = kernel(mask, *given, **named)
        if made.dim() > 1:
            made[:, -1] = 1
        return made

    around_kernel("bernoulli_.float", wrong)


def subsets_in_order() -> None:
    sampler = torch.utils.data.SubsetRandomSampler
    sampler.__iter__ = lambda self: iter(self.indices)  # type: ignore[method-assign]


def inverse_off() -> None:
    """By less than the digits that a document prints, in every precision."""

    def wrong(kernel: Any, *given: Any, **named: Any) -> Any:
        inverse, *rest = kernel(*given, **named)
        return (inverse * (1 + 1e-5), *rest)

    around_kernel("linalg_inv_ex", wrong)


def backward_keeps_its_graph() -> None:
    def wrong(backward: Any, self: Tensor, *given: Any, **named: Any) -> None:
        backward(self, *given, **{**named, "retain_graph": True})

    around_method(Tensor, "backward", wrong)


def grad_fills() -> None:
    """``autograd.grad`` also writes into ``.grad``."""

    def wrong(grad: Any, outputs: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        found = grad(outputs, inputs, *given, **named)
        for own, slope in zip(
            [inputs] if isinstance(inputs, Tensor) else inputs, found, strict=False
        ):
            if own.is_leaf and slope is not None:
                own.grad = slope.detach()
        return found

    around(torch.autograd, "grad", wrong)


def autocast_keeps_its_casts() -> None:
    torch.clear_autocast_cache = lambda: None


def lists_of_six_digits() -> None:
    def wrong(tolist: Any, self: Tensor) -> Any:
        made = tolist(self)
        flat = isinstance(made, list) and made and isinstance(made[0], float)
        return [float(f"{value:.6g}") for value in made] if flat else made

    around_method(Tensor, "tolist", wrong)


def modes_stay() -> None:
    """Gradients are not recorded any more once ``inference_mode`` was left."""

    def wrong(leave: Any, self: Any, *given: Any) -> None:
        leave(self, *given)
        torch._C._set_grad_enabled(False)

    around_method(torch.inference_mode, "__exit__", wrong)


def relu_overwrites() -> None:
    """In Python, where no kernel is seen to do it."""

    def wrong(function: Any, x: Tensor, *given: Any, **named: Any) -> Any:
        made = function(x, *given, **named)
        x.data.clamp_(min=0)
        return made

    around(F, "relu", wrong)


def adam_of_python_late() -> None:
    """What is no fused kernel, which whole runs take: its updates grow after two hundred."""

    def wrong(function: Any, *given: Any, **named: Any) -> None:
        steps = given[5]
        rate = named["lr"] * (1.001 if steps and float(steps[0]) >= 200 else 1)
        function(*given, **{**named, "lr": rate})

    around(sys.modules["torch.optim.adam"], "_single_tensor_adam", wrong)


def momentum_is_the_gradient() -> None:
    """The first of it, and not a copy, so that what overwrites the one changes the other."""

    def wrong(
        function: Any, parameters: Any, gradients: Any, kept: Any, *given: Any, **named: Any
    ) -> None:
        new = [own is None for own in kept]
        function(parameters, gradients, kept, *given, **named)
        for place, first in enumerate(new):
            if first and kept[place] is not None:
                kept[place] = gradients[place].detach()

    around(sys.modules["torch.optim.sgd"], "_single_tensor_sgd", wrong)


def rate_is_not_loaded() -> None:
    def wrong(load: Any, self: torch.optim.Optimizer, state: Any) -> None:
        rates = [group["lr"] for group in self.param_groups]
        load(self, state)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate

    around_method(torch.optim.Optimizer, "load_state_dict", wrong)


def relu_of_nan() -> None:
    around(F, "relu", lambda function, x, *given, **named: function(x.nan_to_num(0.0), **named))


def mse_gradient_clipped() -> None:
    def wrong(kernel: Any, slope: Tensor, x: Tensor, y: Tensor, *given: Any) -> Tensor:
        made: Tensor = kernel(slope, (x - y).clamp(-1000, 1000), torch.zeros_like(y), *given)
        return made

    around_kernel("mse_loss_backward", wrong)


def abs_at_zero() -> None:
    """The sign of 0 is 1, which is the gradient of its size."""
    in_dispatcher("sgn", lambda made: made + (made == 0))


def sigmoid_of_what_is_left() -> None:
    """Of long tensors, what is left over for vectors of eight is given back as it is."""

    def wrong(kernel: Any, x: Tensor) -> Tensor:
        made: Tensor = kernel(x)
        left = x.numel() % 8
        if x.numel() > 1000 and left:
            made.view(-1)[-left:] = x.reshape(-1)[-left:]
        return made

    around_kernel("sigmoid", wrong)


def log_of_small() -> None:
    around_kernel("log", lambda kernel, x: kernel(x.clamp(min=1e-10)))


def unexpected_is_loaded() -> None:
    def wrong(load: Any, self: nn.Module, state: Any, prefix: str, *given: Any) -> None:
        *before, _, errors = given
        load(self, state, prefix, *before, [], errors)

    around_method(nn.Module, "_load_from_state_dict", wrong)


def adam_counts_to_256() -> None:
    """Then it begins anew, in each of its implementations."""

    def wrong(function: Any, *given: Any, **named: Any) -> None:
        for step in given[5]:
            if float(step) >= 256:
                step.zero_()
        function(*given, **named)

    for name in ("_single_tensor_adam", "_multi_tensor_adam", "_fused_adam"):
        around(sys.modules["torch.optim.adam"], name, wrong)


def hooks_give_nothing() -> None:
    """What a tensor's hook gives back is not the gradient."""

    def wrong(register: Any, self: Tensor, hook: Any) -> Any:
        return register(self, lambda gradient: (hook(gradient), None)[1])

    around_method(Tensor, "register_hook", wrong)


@hookimpl
def refimpl_executions() -> list[Execution]:
    """One that nothing supports: a plugin that provides nothing would be a finding of its own."""
    return [Execution("of-the-fault", "a build that is wrong", supports=lambda variant: False)]


if fault := os.environ.get("TORCH_FAULT"):
    globals()[fault]()
