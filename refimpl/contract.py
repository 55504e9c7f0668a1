"""The contract: what a plugin says about a documented example.

Everything here is plain data and imports no torch, so that plugins can be validated and listed
quickly. A plugin makes one :class:`Example` and hands it over in its ``refimpl_examples`` hook.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from refimpl.data import DataSet, Rows, Tier
from refimpl.errors import UnknownNameError
from refimpl.names import unknown

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from refimpl.training.problem import Problem

    Arrays: TypeAlias = Mapping[str, NDArray[Any]]
    Start: TypeAlias = Callable[[np.random.Generator], Arrays]
    Tree: TypeAlias = Any  # a tensor, or tuples, lists and dicts of tensors
    Loss: TypeAlias = Callable[..., Tensor]
    Metric: TypeAlias = Callable[..., Tensor]

CONTRACT = 2
"""The version of this contract. A plugin that states a newer one is refused, with advice."""


# --- what a variant yields -----------------------------------------------------------------------


@dataclass(init=False, eq=False, slots=True)
class Step:
    """One update, as it is seen right after it: ``Step(loss, net, output, target, optimizer)``.

    *Computes.* ``loss`` (a scalar) and ``output`` (one row for each row of the batch) are values
    from before the update; ``target`` is what the loss compared the output with. Both may be tuples
    or dicts of tensors. Several losses are a mapping of their names, and so are their optimizers,
    under the same names: each loss is then the one whose gradients its optimizer uses. Optimizers
    that share one loss are a mapping too, beside the one loss.

    *States.* ``net`` is the module that is trained, from which the parameters follow, or a mapping
    of the parameters by name. They are values from after the update and may be the very tensors
    that the loop goes on changing. ``model``, if it is not the net itself, gives the outputs of the
    current parameters for inputs in the form that the batches have. ``state`` is whatever else a
    resumed run needs, by name: anything with a ``state_dict`` (a scheduler, an average of the
    weights), or tensors (a hidden state); ``problem.resume(..., name)`` gives it back.

    *Gradients.* They must still be in each parameter's ``.grad``: zero them before the next
    ``backward``, not before the ``yield``. If autograd did not make them, or the loop changed them,
    give them in ``gradients``, under the parameters' names. Those of several optimizers, and of one
    that takes a closure, are noted by ``problem.resume`` as each optimizer first uses them.

    Only ``loss`` and ``net`` are required, but what is not given cannot be checked. (Contract 1
    wrote ``Step(loss, parameters, output, target, model, optimizer)``, which is still understood.)
    """

    loss: Tensor | float | Mapping[str, Tensor | float]
    net: nn.Module | Mapping[str, Tensor] | None
    output: Tree
    target: Tree
    model: Callable[[Any], Any] | None
    optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer] | None
    gradients: Mapping[str, Tensor] | None
    state: Mapping[str, Any]
    _parameters: Mapping[str, Tensor] | None = field(init=False, repr=False)

    def __init__(
        self,
        loss: Tensor | float | Mapping[str, Tensor | float],
        net: nn.Module | Mapping[str, Tensor] | None = None,
        output: Tree = None,
        target: Tree = None,
        *fifth: Any,
        model: Callable[[Any], Any] | None = None,
        optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer] | None = None,
        gradients: Mapping[str, Tensor] | None = None,
        state: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> None:
        if (fifth and callable(fifth[0])) or len(fifth) > 1:  # contract 1: a model, an optimizer
            model, optimizer, gradients = (*fifth, *(model, optimizer, gradients)[len(fifth) :])[:3]
        elif fifth and fifth[0] is not None:
            optimizer = fifth[0]
        self.loss, self.output, self.target = loss, output, target
        self.net = net if parameters is None else parameters
        self._parameters = None
        self.model = self.net if model is None and callable(self.net) else model
        self.optimizer, self.gradients, self.state = optimizer, gradients, state or {}

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Every parameter of the net, by name."""
        if self._parameters is None:
            net: Any = self.net
            named = getattr(net, "named_parameters", None)
            self._parameters = dict(named()) if named else net
        return self._parameters

    @property
    def losses(self) -> Mapping[str, Tensor | float]:
        """Each loss by its name; a single loss has the empty name."""
        return self.loss if isinstance(self.loss, Mapping) else {"": self.loss}

    @property
    def total(self) -> Tensor | float:
        """The loss, or the sum of several."""
        first, *others = self.losses.values()
        return sum(others, start=first)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Each optimizer by its name; a single one has the empty name."""
        if self.optimizer is None:
            return {}
        return self.optimizer if isinstance(self.optimizer, Mapping) else {"": self.optimizer}

    @property
    def module(self) -> nn.Module | None:
        """The module that is trained, or, if only parameters are shown, the one that predicts."""
        shown: tuple[Any, ...] = (self.net, self.model)
        return next((each for each in shown if hasattr(each, "named_modules")), None)

    def used_gradients(self) -> dict[str, Tensor]:
        """The gradient that each parameter was updated with, of those that have one."""
        if self.gradients is not None:
            return dict(self.gradients)
        noted: dict[int, Tensor] = {}
        for optimizer in self.optimizers.values():
            noted |= getattr(optimizer, NOTED, {})
        used = {name: noted.get(id(p), p.grad) for name, p in self.parameters.items()}
        return {name: gradient for name, gradient in used.items() if gradient is not None}


NOTED = "_refimpl_gradients"
"""The attribute of an optimizer in which ``problem.resume`` notes the gradients that it used."""


@dataclass(frozen=True)
class Epoch:
    """Figures that the variant itself measured at the end of an epoch, such as ``val_loss``."""

    metrics: Mapping[str, float]


Steps: TypeAlias = "Iterator[Step | Epoch]"


# --- what a document states ----------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A row of a layer table.

    ``output`` has −1 for the batch size; ``parameters`` counts those of this layer alone.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Sizes:
    """The size rows under a layer table, in MB of float32, printed to six digits."""

    input: float
    forward_backward: float
    parameters: float
    total: float


@dataclass(frozen=True)
class Figure:
    """A number that the document reports at the end of training, or after an ``epoch`` of it.

    Epoch 0 is the first batch before any update: its ``loss``, or a metric of it. With a ``step``
    it is the mean over the first ``step`` batches of that epoch, as it is printed during it.

    With ``digits`` it must be exact on the real tier: |measured − documented| is at most half a
    unit of that decimal. Otherwise ``real`` and ``stand_in`` are the ranges (low, high), both ends
    included, in which most runs on that tier must end; nothing is asserted on a tier without a
    range. If the data is generated and training is equally long on both tiers, the real range
    holds on both. If today's runs on real data do not end near the documented figure,
    ``outside_because`` says why.
    """

    metric: str
    documented: float | None
    digits: int | None = None
    real: tuple[float, float] | None = None
    stand_in: tuple[float, float] | None = None
    outside_because: str = ""
    epoch: int | None = None
    step: int | None = None

    @property
    def name(self) -> str:
        """The metric, and after which epoch or step if it is not that of the end."""
        if self.epoch is None:
            return self.metric
        if self.step is not None:
            return f"{self.metric} at step {self.step} of epoch {self.epoch}"
        return f"{self.metric} {f'after epoch {self.epoch}' if self.epoch else 'before training'}"

    def range_on(self, tier: Tier) -> tuple[float, float] | None:
        """The range that holds on this tier, or ``None`` if nothing is asserted."""
        if tier == "stand-in":
            return self.stand_in
        if self.digits is not None and self.documented is not None:
            half = 0.5 * 10.0**-self.digits
            return (self.documented - half, self.documented + half)
        return self.real


@dataclass(frozen=True)
class Facts:
    """What the document states about a variant's model and its training.

    ``layers`` are the rows of its layer table and ``state_dict`` the keys of its state dict, both
    in order. ``output`` is the shape of the output for one documented batch. ``summary_input`` is
    the shape of the sample that the layer table was made with, if it is not that of the data.
    """

    parameters: int | None = None
    trainable: int | None = None
    layers: tuple[Layer, ...] = ()
    state_dict: tuple[str, ...] = ()
    sizes: Sizes | None = None
    output: tuple[int, ...] | None = None
    summary_input: tuple[int, ...] | None = None
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Exact:
    """An exact value of the document: ``compute()`` must give ``expected``.

    ``digits`` is how many decimals the document prints; ``None`` means that both must be equal
    (floating-point numbers up to the rounding of their dtype). ``needs`` names an optional package,
    or ``"cuda"``, without which the value cannot be computed.
    """

    name: str
    compute: Callable[[], Any]
    expected: Any
    digits: int | None = None
    needs: str | None = None


@dataclass(frozen=True)
class Failure:
    """A documented mistake that must still fail: ``attempt()`` must raise ``raises``.

    ``match`` is a regular expression that must be found in the message. ``needs`` is as in
    :class:`Exact`.
    """

    name: str
    attempt: Callable[[], object]
    raises: type[BaseException]
    match: str = ""
    needs: str | None = None


@dataclass(frozen=True)
class Erratum:
    """Something the document says that no longer holds.

    ``holds()`` tries it and returns whether the document is right here. It must return ``False``
    where ``since`` (a requirement such as ``"torch>=2.6"``) is met, and ``True`` where it is not.
    So every version of torch tests every erratum. If the question is only whether it runs,
    ``raises`` are the errors that say it does not, and what ``holds()`` returns does not matter.
    ``needs`` is as in :class:`Exact`.
    """

    name: str
    says: str
    today: str
    since: str
    holds: Callable[[], object]
    needs: str | None = None
    raises: tuple[type[BaseException], ...] = ()


# --- how an example is trained -------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes: the stated one times ``factor(n)``.

    ``n`` counts the epochs, or with ``per="step"`` the updates, that were made before.
    """

    factor: Callable[[int], float]
    per: Literal["epoch", "step"] = "epoch"


@dataclass(frozen=True)
class Stop:
    """Where a run ends early: ``metric`` has not got better for ``patience`` epochs.

    Better is lower, unless ``higher_is_better``.
    """

    metric: str = "val_loss"
    patience: int = 1
    higher_is_better: bool = False

    def ends(self, values: Sequence[float]) -> bool:
        """Whether a run with these figures, epoch by epoch, ends after the last of them."""
        sign = 1.0 if self.higher_is_better else -1.0
        better = [sign * value for value in values]
        best = better.index(max(better)) if better else 0
        return len(better) - 1 - best >= self.patience


@dataclass(frozen=True)
class Protocol:
    """How the document trains: everything about a run except the model and the data.

    *Length.* A run has ``epochs`` epochs, or ``stand_in_epochs`` on the stand-in tier. With
    ``stop``, it may be shorter: it ends where the figure no longer gets better.

    *Batches.* ``batch_size=None`` means the whole training set in one batch. ``valid_batch_size``
    defaults to the training batch size. ``shuffle_valid`` also shuffles the validation rows, once,
    for figures that need more than one class in each batch. ``accumulate`` batches make one update.

    *Updates.* ``clip`` is the largest norm that all gradients together may have. ``schedule``
    says how the learning rate changes. A loop of one's own reads both from the problem.

    *Figures.* ``report`` says which training figures the document prints: ``"epoch"`` for means
    over the batches of the epoch, ``"last-batch"`` for those of the last batch after its update.
    ``average`` says whether the mean of validation figures gives the same weight to each of the
    batches or to each of the samples.
    """

    epochs: int
    learning_rate: float
    batch_size: int | None = None
    valid_batch_size: int | None = None
    shuffle: bool = True
    shuffle_valid: bool = False
    stand_in_epochs: int | None = None
    report: Literal["epoch", "last-batch"] = "epoch"
    average: Literal["batches", "samples"] = "batches"
    dtype: Literal["float32", "float64"] = "float32"
    accumulate: int = 1
    clip: float | None = None
    schedule: Schedule | None = None
    stop: Stop | None = None

    def epochs_on(self, tier: Tier) -> int:
        """How many epochs a run has on this tier."""
        if tier == "stand-in" and self.stand_in_epochs is not None:
            return self.stand_in_epochs
        return self.epochs


@dataclass(frozen=True)
class Final:
    """The end of a run, in NumPy: what ``Variant.recompute`` has.

    ``predict(x)`` gives the final model's outputs for rows such as the data set has, in evaluation
    mode; ``parameters`` are its parameters by name; ``train`` and ``valid`` are the rows.
    """

    predict: Callable[[Any], NDArray[Any]]
    parameters: Arrays
    train: Rows
    valid: Rows | None


@dataclass(frozen=True, eq=False)
class Variant:
    """One way in which the document writes the computation.

    Fields that are left ``None`` are taken from the example, or follow as said here.

    *Computes.* ``steps(problem)`` is a generator that yields one :class:`Step` after each update.
    How many are made, and what is done with them, is for its caller to decide. Without ``steps``,
    the framework's own loop trains ``build()`` with ``loss`` and ``optimizer``.

    *Starts.* Without ``start``, start values are drawn as torch draws them for ``build()``.
    ``seed`` is used for a run that asks for none; set it where seed 0 does not converge.

    *States.* Variants with the same ``ladder`` are the same computation, step by step.

    *Cannot.* ``exempt`` names checks that cannot apply, each with the reason, which is shown.
    """

    # --- computes ---

    name: str
    steps: Callable[[Problem], Steps] | None = None
    """The loop, as the document writes it."""
    summary: str = ""
    """In a line, what the variant shows; otherwise the docstring of its loop or module."""

    # --- starts ---

    start: Start | None = None
    """Draws the start values by parameter name from a NumPy generator."""
    documented_start: Arrays | None = None
    """The start that the document prints, used by a run that asks for no seed."""

    # --- states ---

    loss: Loss | None = None
    """(output, target) → scalar."""
    metrics: Mapping[str, Metric] | None = None
    """(output, target) → a score for each row, or one number for the batch."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Its parameters' names → those of the ladder's first variant; ``"weights.T"``: transposed."""
    ladder: str | None = None
    """The name of the ladder that it is on."""
    ladder_depth: Literal["trajectory", "gradients"] = "trajectory"
    """``"gradients"``: only loss and gradients of the first step are the same."""
    protocol: Protocol | None = None
    """How it is trained."""
    facts: Facts | None = None
    """What the document states about it."""
    data: DataSet | None = None
    """What it is trained on."""
    prepare: Callable[[Any], Any] | None = None
    """What its loader does to inputs before the model sees them."""

    # --- computes, in pieces that executions need ---

    build: Callable[[], nn.Module] | None = None
    """Makes the module that is trained; without it, the variant computes with bare tensors."""
    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    """``optimizer(parameters, lr=...)`` makes its optimizer."""

    # --- cannot ---

    needs: str | None = None
    """An optional package, or ``"cuda"``, without which it cannot run."""
    bare: bool | None = None
    """Whether there is no module to wrap; follows from ``build``."""
    numpy: bool = False
    """Whether it computes in NumPy, on the CPU."""
    data_parallel: bool | None = None
    """Whether the gradients of shards average to those of the batch; follows from the layers."""
    seed: int = 0
    """The seed of a run that asks for none."""
    collate: Callable[[list[Any]], Any] | None = None
    """Makes a batch of inputs and targets from a list of (input, target), for ragged rows."""
    exempt: Mapping[str, str] = field(default_factory=dict)
    """Checks that cannot apply to it, each with the reason."""
    recompute: Callable[[Final], Mapping[str, float]] | None = None
    """Its own figures a second time, from the final model and the rows, in NumPy."""

    @property
    def trains(self) -> bool:
        """Whether it has data to train on, and a protocol."""
        return self.data is not None and self.protocol is not None

    @property
    def has_module(self) -> bool:
        """Whether it trains a module, and not bare tensors or NumPy arrays."""
        bare = self.build is None if self.bare is None else self.bare
        return not (bare or self.numpy)

    @property
    def has_own_loop(self) -> bool:
        """Whether the document writes a loop, and not only a module, a loss and an optimizer."""
        return self.steps is not None

    @property
    def splits(self) -> bool:
        """Whether the gradients of a batch's shards average to those of the whole batch.

        Unless the variant says so, they do if no layer normalises over the batch and the loss is
        no sum.
        """
        if self.data_parallel is not None:
            return self.data_parallel
        if getattr(self.loss, "reduction", "mean") == "sum":
            return False
        return self.build is None or not _normalises_batches(self.build())

    def has_layer(self, *kinds: type[nn.Module]) -> bool:
        """Whether the module that it builds has a layer of one of these kinds."""
        return self.build is not None and any(
            isinstance(module, kinds) for module in self.build().modules()
        )

    def figures_tier(self, tier: Tier) -> Tier:
        """The tier whose figures hold: the real one if a run is the same on both tiers."""
        generated = self.data is not None and self.data.real is None
        shortened = self.protocol is not None and self.protocol.stand_in_epochs is not None
        return "real" if generated and not shortened else tier

    def stated_ranges(self, tier: Tier) -> list[tuple[Figure, tuple[float, float]]]:
        """The figures that have a range on this tier, each with its range."""
        figures = self.facts.figures if self.facts else ()
        ranged = ((figure, figure.range_on(self.figures_tier(tier))) for figure in figures)
        return [(figure, bounds) for figure, bounds in ranged if bounds is not None]


def _normalises_batches(module: nn.Module) -> bool:
    from torch import nn

    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return any(isinstance(layer, kinds) for layer in module.modules())


ModuleVariant = Variant
"""The name that contract 1 had for a :class:`Variant` without ``steps``."""


@dataclass(frozen=True, eq=False)
class Example:
    """A documented example: its data, its variants, and what its document states.

    ``document`` and ``section`` say which document it is from, and where in it. ``data``,
    ``protocol``, ``start``, ``documented_start``, ``loss``, ``metrics`` and ``facts`` hold for
    every variant that does not set its own. ``baselines`` is the folder of the example's
    baselines; if it is not given, ``baselines`` beside the plugin, or refimpl's own. ``contract``
    is the version of the contract that it was written for.
    """

    name: str
    title: str
    document: str
    section: str
    variants: tuple[Variant, ...] = ()
    data: DataSet | None = None
    protocol: Protocol | None = None
    start: Start | None = None
    documented_start: Arrays | None = None
    loss: Loss | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    values: tuple[Exact, ...] = ()
    failures: tuple[Failure, ...] = ()
    errata: tuple[Erratum, ...] = ()
    contract: int = CONTRACT
    baselines: Path | None = None
    collate: Callable[[list[Any]], Any] | None = None

    def __post_init__(self) -> None:
        inherited = (
            "data", "protocol", "start", "documented_start", "loss", "metrics", "facts", "collate",
        )  # fmt: skip
        filled = tuple(
            replace(v, **{f: getattr(self, f) for f in inherited if getattr(v, f) is None})
            for v in self.variants
        )
        if self.contract == 1:
            filled = tuple(map(_of_contract_1, filled))
        object.__setattr__(self, "variants", filled)

    def variant(self, name: str | None = None) -> Variant:
        """The variant of that name; without a name, the first, which is the reference."""
        if not self.variants:
            raise UnknownNameError(f"{self.name} trains nothing, so it has no variants")
        if name is None:
            return self.variants[0]
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = [v.name for v in self.variants]
        raise unknown(f"{self.name} has no variant {name!r}", name, names)

    def reseeded(self, by: int) -> Example:
        """The same example with other draws: ``by`` is added to the seed of every variant.

        Start values that the document prints stay as they are.
        """
        return replace(self, variants=tuple(replace(v, seed=v.seed + by) for v in self.variants))


def _of_contract_1(variant: Variant) -> Variant:
    """The variant with the defaults that contract 1 gave what now follows from other fields."""
    return replace(
        variant,
        bare=bool(variant.bare),
        data_parallel=True if variant.data_parallel is None else variant.data_parallel,
    )


# --- how a computation is run --------------------------------------------------------------------


def _nothing_missing() -> str | None:
    """What this machine lacks for it; by default nothing."""
    return None


def _fits(variant: Variant) -> str | None:
    """Why the execution cannot run the variant; by default it can."""
    return None


def _everything(variant: Variant) -> bool:
    """Whether the execution supports the variant; by default it supports every variant."""
    return True


@dataclass(frozen=True)
class Execution:
    """A way to run a computation: a device, a precision, a wrapper of the module.

    ``missing()`` returns what this machine lacks ("needs 2 CUDA devices"), or ``None``.
    ``supports(variant)`` returns whether this execution can run the variant: a wrapper, for
    example, needs a module. ``wrap(module)`` is applied to each module once its start is loaded.
    ``around()`` makes a context manager that is entered for each step. ``steps``, where given,
    takes over the whole run: in other processes, for example, or with many seeds at once.
    ``rounding`` is the dtype whose rounding errors are allowed, if it is not that of the tensors
    (autocast); ``"tf32"`` allows products of 10 bits. ``sees_outputs`` is ``False`` if a step's
    output is not that of the whole batch.

    Executions are composed by name (``cuda+bf16+compile``). A part whose ``device`` is the CPU
    leaves the device to others. ``per_device(device)`` gives the part for a device, where it
    differs from one to the next; ``beside(parts)`` gives it for a composition, where it depends on
    the other parts. ``sets`` says in words what else it settles ("the compiler"): of
    two parts that settle the same, one is refused. ``wrappable`` is ``False`` if it does not call
    the module that ``wrap`` gives. ``unfit(variant)`` says why a variant that it supports cannot be
    run with it; the check is then skipped for that reason.
    ``suits`` is the deprecated name of ``supports``.
    """

    name: str
    summary: str
    device: str = "cpu"
    dtype: str | None = None
    missing: Callable[[], str | None] = _nothing_missing
    supports: Callable[[Variant], bool] = _everything
    wrap: Callable[[nn.Module], nn.Module] | None = None
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    steps: Callable[[Variant, Problem], Steps] | None = None
    rounding: str | None = None
    sees_outputs: bool = True
    sets: tuple[str, ...] = ()
    wrappable: bool = True
    unfit: Callable[[Variant], str | None] = _fits
    per_device: Callable[[str], Execution] | None = None
    beside: Callable[[Sequence[Execution]], Execution] | None = None
    suits: InitVar[Callable[[Variant], bool] | None] = None

    def __post_init__(self, suits: Callable[[Variant], bool] | None) -> None:
        if suits is not None:
            warnings.warn(
                f"execution {self.name!r}: suits= is now supports=; it works until refimpl 0.4",
                DeprecationWarning,
                stacklevel=3,
            )
            object.__setattr__(self, "supports", suits)
