"""The recipe: how a variant is built and trained, against what its document states."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import register_optimizer_step_pre_hook

from refimpl.calls import EachCall
from refimpl.checking import claims
from refimpl.checking.checks import Measurement, Subject, check, equal, true
from refimpl.checking.laws import Quantity, law
from refimpl.checking.recipes import NONE, TORCH, Recipe, built, distribution
from refimpl.conformance.checks.starts import ALPHA, ENOUGH, MOST, TIMES, of_distribution
from refimpl.contract import Step, Variant
from refimpl.records.of_models import described
from refimpl.training.loop import steps_of
from refimpl.training.problem import Problem, pose, start_values
from refimpl.training.starts import default_values, known_start
from refimpl.training.witness import OWN_BUSINESS
from refimpl.trees import call, mapped

FEW_ROWS = 8
"""An update of so many rows makes the same calls."""

CLOSE = 1e-4
"""How far, relatively, a loss in float32 may be from the document's in float64."""

ANEW = "made_anew"
"""What a recipe says of an optimizer that the document makes anew for each update."""

LINEAR = ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "einsum", "tensordot")
"""Names of one thing: sums of products."""

REFLECTED = ("mul", "matmul", "pow", "truediv")
"""Operators that have one name more where the left side is a number, or is changed in place."""

COUNTED = frozenset(
    (
        *LINEAR, "conv1d", "conv2d", "conv3d", "conv_transpose2d", "bilinear", "embedding",
        "embedding_bag", "rnn_tanh", "rnn_relu", "lstm", "gru", "batch_norm", "layer_norm",
        "group_norm", "instance_norm", "rms_norm", "dropout", "dropout1d", "dropout2d", "dropout3d",
        "alpha_dropout", "feature_dropout", "relu", "relu6", "leaky_relu", "elu", "selu", "celu",
        "gelu", "silu", "mish", "softplus", "sigmoid", "logsigmoid", "tanh", "hardtanh", "softmax",
        "log_softmax", "clamp", "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d",
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d",
        "mean", "sum", "amax", "max", "min", "prod", "cat", "stack", "pad", "mul", "div", "exp",
        "log", "sqrt", "pow", "flip", "roll", "cumsum", "scaled_dot_product_attention",
    )
)  # fmt: skip
"""What a forward pass is counted by; shapes, indexing and sums can be written in many ways."""


def _recipes(subject: Subject) -> list[Recipe]:
    return [r for r in claims.beside(subject.example).recipes if r.is_of(subject.trained.name)]


@check(
    "built-as-its-document-says",
    on_cpu=True,
    applies=lambda subject: subject.trained.trains and bool(_recipes(subject)),
    reading="the plugin builds, starts or trains something else than the document, whose recipe is "
    "in the plugin's ledger of claims; if the document does say so, mend the recipe by hand",
)
def built_as_its_document_says(subject: Subject) -> Iterator[Measurement]:
    """Are layers, calls, start, loss, optimizer and protocol those that the document states?

    Recipes are written by hand from the document, and no command renews them.
    """
    variant = subject.trained
    problem = pose(variant, subject.tier)
    seen = _first_update(variant, problem.shortened(FEW_ROWS, 1))
    for recipe in _recipes(subject):
        if recipe.layers:
            yield from _layers(recipe, seen)
        if recipe.calls:
            yield _calls(recipe.calls, seen.calls)
        if recipe.start:
            yield from _start(recipe.start, variant, problem, seen)
        if recipe.loss:
            yield _loss(recipe.loss, seen)
        if recipe.optimizer:
            yield from _optimizer(recipe.optimizer, variant, seen)
            yield from _kept(recipe.optimizer, variant, problem.shortened(FEW_ROWS, 1))
        if recipe.rows and variant.figures_tier(subject.tier) == "real":
            yield equal("rows to train on, and to validate with", _rows(problem), recipe.rows)
        if recipe.law:
            yield from _law(recipe.law, problem)
        for name, stated in recipe.protocol.items():
            should = None if stated == NONE else stated
            yield equal(f"{name} of the protocol", getattr(variant.protocol, name), should)


# --- what a first update shows -------------------------------------------------------------------


@dataclass
class Seen:
    """What one update showed: its calls, its optimizers, and parameters before it, by identity."""

    step: Step
    calls: Counter[str]
    optimizers: list[torch.optim.Optimizer]
    before: dict[int, Tensor]


@dataclass
class _Watch:
    inside: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    before: dict[int, Tensor] = field(default_factory=dict)

    def enters(self, module: nn.Module, given: Any) -> None:
        if not self._counts(module):
            return
        self.inside += 1
        for parameter in module.parameters():
            if id(parameter) not in self.before and not self.optimizers:
                self.before[id(parameter)] = parameter.detach().clone()

    def leaves(self, module: nn.Module, given: Any, made: Any) -> None:
        self.inside -= self._counts(module)

    def _counts(self, module: nn.Module) -> bool:
        """Whether it is trained, or part of what is; a loss may be a module of one's own."""
        return bool(self.inside) or any(True for _ in module.parameters())

    def noted(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        name = str(getattr(function, "__name__", "")).rstrip("_").removeprefix("__")
        name = name[1:] if name[1:] in REFLECTED else name
        name = "div" if name.endswith("truediv") else name
        if self.inside and name in COUNTED:
            self.calls["linear" if name in LINEAR else name] += 1


def _first_update(variant: Variant, problem: Problem) -> Seen:
    watch = _Watch()
    with ExitStack() as hooks:
        for handle in (
            register_module_forward_pre_hook(watch.enters),
            register_module_forward_hook(watch.leaves),
            register_optimizer_step_pre_hook(lambda own, *_: watch.optimizers.append(own)),
        ):
            hooks.callback(handle.remove)
        hooks.enter_context(EachCall(watch.noted))
        step = next(iter(steps_of(variant, problem, 1)))
        if step.module is None and step.model is not None:  # bare tensors: no hook sees their pass
            watch.inside, prepare = 1, variant.prepare or (lambda rows: rows)
            call(step.model, prepare(problem.sample(FEW_ROWS)))
    return Seen(step, watch.calls, watch.optimizers, watch.before)


# --- layers --------------------------------------------------------------------------------------


def _calls(stated: Mapping[str, int], seen: Mapping[str, int]) -> Measurement:
    """How often the functions of a forward pass are called, each by its name."""
    own, other = Counter(seen), Counter(stated)
    said = [f"lacks {_times(other - own)}"] if other - own else []
    said += [f"has {_times(own - other)} besides"] if own - other else []
    made = equal("calls of a forward pass", dict(sorted(own.items())), dict(sorted(other.items())))
    message = f"a forward pass {' and '.join(said)}; the document's has {_times(other)}"
    return replace(made, message="" if made.holds else message)


def _times(calls: Mapping[str, int]) -> str:
    counted = (name if n == 1 else f"{name} {n} times" for name, n in sorted(calls.items()))
    return ", ".join(counted)


def _layers(recipe: Recipe, seen: Seen) -> Iterator[Measurement]:
    module = seen.step.module
    if module is None:
        yield true("its layers are seen", False, "the variant shows no module, so it has no layers")
        return
    found = [
        own for own in module.modules()
        if type(own).__module__.startswith("torch.nn.") and not any(True for _ in own.children())
    ]  # fmt: skip
    stated = [built(text) for text in recipe.layers]
    kinds = [_kind(own) for own in found], [_kind(own) for own in stated]
    yield equal("layers", *kinds)
    if kinds[0] == kinds[1]:
        for number, (own, should) in enumerate(zip(found, stated, strict=True), 1):
            yield equal(f"layer {number}", described(own), described(should))


def _kind(layer: nn.Module) -> str:
    return type(layer).__name__


# --- start ---------------------------------------------------------------------------------------


def _start(
    stated: str | Mapping[str, str], variant: Variant, problem: Problem, seen: Seen
) -> Iterator[Measurement]:
    yield from _is_loaded(problem, seen)
    if stated == TORCH and variant.start is None:
        # It is drawn as starts.py restates torch's, which starts-as-torch-does compares with torch.
        return
    drawn = _drawn(variant)
    tests, own = len(drawn), start_values(variant, variant.seed)
    for name, values in drawn.items():
        shape = tuple(np.shape(own[name]))
        if isinstance(stated, str):
            from_ = _by_torch(variant, name)
        else:
            text = next((t for p, t in stated.items() if fnmatch.fnmatch(name, p)), None)
            from_ = (
                None if text is None
                else _by_torch(variant, name) if text == TORCH
                else distribution(text, shape)
            )  # fmt: skip
        if from_ is None:
            yield true(f"start of {name}", False, f"the recipe states no start of {name}")
            continue
        yield from of_distribution(
            f"start of {name}", values, from_, ALPHA / tests, who="the variant"
        )


def _is_loaded(problem: Problem, seen: Seen) -> Iterator[Measurement]:
    """Whether the first forward pass computes with the start values, and not with others."""
    module = seen.step.module
    values = problem.start
    other = []
    for name, parameter in dict(module.named_parameters() if module is not None else ()).items():
        before = seen.before.get(id(parameter))
        if before is not None and name in values:
            own = values[name].reshape(before.shape).to(before.dtype)
            if not torch.equal(own, before):
                other.append(name)
    yield equal("parameters that begin with other values than the start", other, [])


def _drawn(variant: Variant) -> dict[str, NDArray[Any]]:
    """Each parameter's start values of so many seeds that there are enough.

    A start of the plugin's own that is small is drawn more often: few numbers tell little.
    """
    drawn: dict[str, list[NDArray[Any]]] = {}
    for seed in range(TIMES if variant.start is None else ENOUGH):
        values = _undocumented(variant, seed)
        if seed >= TIMES and sum(map(np.size, values.values())) > MOST:
            break
        for name, value in values.items():
            parts = drawn.setdefault(name, [])
            if sum(map(len, parts)) < MOST:
                parts.append(np.asarray(value, np.float64).ravel()[:MOST])
        if all(sum(map(len, parts)) >= ENOUGH for parts in drawn.values()):
            break
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def _undocumented(variant: Variant, seed: int) -> Mapping[str, Any]:
    if variant.start is not None:
        return variant.start(np.random.default_rng(seed))
    assert variant.build is not None, "a variant without start= builds a module"
    return default_values(variant.build(), np.random.default_rng(seed))


def _by_torch(variant: Variant, name: str) -> Any:
    """What torch draws this parameter of the module from that the variant builds."""
    if variant.build is None:
        return None
    path, _, own = name.rpartition(".")
    return (known_start(variant.build().get_submodule(path)) or {}).get(own)


# --- loss and optimizer --------------------------------------------------------------------------


def _loss(text: str, seen: Seen) -> Measurement:
    step = seen.step
    with torch.no_grad():
        output, target = mapped(_in_float64, step.output), mapped(_in_float64, step.target)
        expected = float(built(text)(output, target))
    found = float(torch.as_tensor(step.total).detach())
    message = f"the loss of the first update is {found:.6g}; {text} makes it {expected:.6g}"
    return true(f"the loss is {text}", abs(found - expected) <= CLOSE * abs(expected), message)


def _in_float64(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        leaf = leaf.detach()
        return leaf.double() if leaf.is_floating_point() else leaf
    return leaf


def _optimizer(stated: Mapping[str, Any], variant: Variant, seen: Seen) -> Iterator[Measurement]:
    """By the optimizer that steps; where the loop updates by hand, by the one that it states."""
    constants = {name: value for name, value in stated.items() if name not in ("kind", ANEW)}
    rate = variant.protocol.learning_rate if variant.protocol else 0.0
    parameters = [torch.zeros(1, requires_grad=True)]
    should = getattr(torch.optim, stated["kind"])(parameters, lr=rate, **constants)
    used = seen.optimizers
    if not used and variant.optimizer is not None:
        used = [variant.optimizer(parameters, lr=rate)]
    yield equal("optimizer", sorted({type(own).__name__ for own in used}), [stated["kind"]])
    expected = {k: v for k, v in should.param_groups[0].items() if k not in (*OWN_BUSINESS, "lr")}
    for group in (group for own in used for group in own.param_groups):
        apart = {
            name: f"{group[name]}, stated {value}"
            for name, value in expected.items()
            if name in group and not _same(group[name], value)
        }
        yield equal("constants of the optimizer that are not as stated", apart, {})


def _kept(stated: Mapping[str, Any], variant: Variant, problem: Problem) -> Iterator[Measurement]:
    """Whether the second update is made by the optimizer of the first, and not by a new one."""
    stepped: list[list[torch.optim.Optimizer]] = [[]]
    handle = register_optimizer_step_pre_hook(lambda own, *_: stepped[-1].append(own))
    try:
        for _ in steps_of(variant, problem, 2):
            stepped.append([])
    finally:
        handle.remove()
    first, second = ({id(own) for own in each} for each in stepped[:2])
    if first and second:
        yield equal("a new optimizer for each update", first != second, bool(stated.get(ANEW)))


def _same(found: Any, stated: Any) -> bool:
    if isinstance(stated, (tuple, list)):
        return tuple(found) == tuple(stated)
    return bool(found == stated)


# --- rows ----------------------------------------------------------------------------------------


def _rows(problem: Problem) -> tuple[int, ...]:
    parts = (problem.train, problem.valid)
    return tuple(len(part) for part in parts if part is not None)


def _law(stated: Mapping[str, str], problem: Problem) -> Iterator[Measurement]:
    """Whether each quantity of the rows, of both splits together, follows its law; none repeats."""
    from scipy import stats

    parts = [part for part in (problem.train, problem.valid) if part is not None]
    x, y = (np.concatenate([np.asarray(getattr(p, n), np.float64) for p in parts]) for n in "xy")
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    repeated = len(x) - len(np.unique(np.hstack([x, y]), axis=0))
    message = f"{repeated} of the {len(x)} rows occur before, which rows drawn anew never do"
    yield true("rows drawn anew", not repeated, message)
    for quantity, text in stated.items():
        values = Quantity.of(quantity).of_rows(x, y[:, 0])
        p = float(stats.kstest(values, law(text).cdf).pvalue)
        message = (
            f"{quantity} of the {len(values)} rows does not follow {text}: between "
            f"{np.min(values):.4g} and {np.max(values):.4g}, mean {values.mean():.4g} (p = {p:.2g})"
        )
        yield true(f"law of {quantity}", p >= ALPHA / len(stated), message)
