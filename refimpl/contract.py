"""The contract: what a plugin says about a documented example.

Everything here is plain data and imports no torch, so that plugins can be validated and listed
quickly. A plugin makes one :class:`Example` and hands it over in its ``refimpl_examples`` hook.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from refimpl.data import DataSet, Tier
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
    Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
    Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]

CONTRACT = 1
"""The version of this contract. A plugin that states a newer one is refused, with advice."""


# --- what a variant yields -----------------------------------------------------------------------


@dataclass(slots=True)
class Step:
    """One update, as seen right after it.

    ``loss`` (a scalar) and ``output`` (one row for each row of the batch) are values from before
    the update; ``target`` is what the loss compared the output with. ``parameters``, by name, are
    values from after it; they may be the very tensors that the loop goes on changing. The gradients
    of this step must still be in each parameter's ``.grad``: zero them before the next
    ``backward``, not before the ``yield``. If autograd did not make them, give them in
    ``gradients``, under the same names. ``model`` gives the outputs of the current parameters for
    inputs in the form that the batches have. Only ``loss`` and ``parameters`` are required, but
    what is not given cannot be checked.
    """

    loss: Tensor | float
    parameters: Mapping[str, Tensor]
    output: Tensor | None = None
    target: Tensor | None = None
    model: Callable[[Tensor], Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None
    gradients: Mapping[str, Tensor] | None = None


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
    """A number that the document reports at the end of training.

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
    So every version of torch tests every erratum. ``needs`` is as in :class:`Exact`.
    """

    name: str
    says: str
    today: str
    since: str
    holds: Callable[[], bool]
    needs: str | None = None


# --- how an example is trained -------------------------------------------------------------------


@dataclass(frozen=True)
class Protocol:
    """How the document trains: everything about a run except the model and the data.

    ``batch_size=None`` means the whole training set in one batch. ``valid_batch_size`` defaults to
    the training batch size. ``shuffle_valid`` also shuffles the validation rows, once, for figures
    that need more than one class in each batch. ``stand_in_epochs`` replaces ``epochs`` on the
    stand-in tier. ``report`` says which training figures the document prints: ``"epoch"`` for means
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

    def epochs_on(self, tier: Tier) -> int:
        """How many epochs a run has on this tier."""
        if tier == "stand-in" and self.stand_in_epochs is not None:
            return self.stand_in_epochs
        return self.epochs


@dataclass(frozen=True, eq=False)
class Variant:
    """One way in which the document writes the computation.

    ``steps(problem)`` is a generator that yields one :class:`Step` after each update. How many
    steps are taken, and what is done with them, is for its caller to decide.

    Variants with the same ``ladder`` are the same computation: from the same start and batch order
    they give the same losses, gradients and parameters. ``ladder_depth="gradients"`` limits that
    claim to the loss and gradients of the first step, for variants whose optimizers differ.
    ``names`` maps the variant's own parameter names to those of the ladder's first variant, where
    they differ; ``"weights.T"`` means that this variant stores the transpose.

    ``build()`` makes the module that ``steps`` trains, and ``optimizer(parameters, lr=...)`` makes
    its optimizer. Executions that run the computation differently, such as many seeds at
    once, need both. Without ``start``, start values are drawn as torch draws them for ``build()``.

    ``prepare`` is what the variant's loader does to inputs before the model sees them. ``needs``
    names an optional package, or ``"cuda"``, without which the variant cannot run. ``bare`` means
    that it computes with bare tensors, so that there is no module to wrap; ``numpy`` means that it
    computes in NumPy, on the CPU. ``data_parallel=False`` means that its loss or a layer combines
    the rows of a batch in such a way that the gradients of shards do not average to those of the
    whole batch. ``seed`` is used unless a run names another one; set it if the start of seed 0 does
    not converge.

    Fields that are left ``None`` are taken from the example.
    """

    name: str
    steps: Callable[[Problem], Steps] | None = None
    summary: str = ""
    start: Start | None = None
    documented_start: Arrays | None = None
    loss: Loss | None = None
    metrics: Mapping[str, Metric] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    ladder: str | None = None
    ladder_depth: Literal["trajectory", "gradients"] = "trajectory"
    protocol: Protocol | None = None
    facts: Facts | None = None
    data: DataSet | None = None
    prepare: Callable[[Tensor], Tensor] | None = None
    build: Callable[[], nn.Module] | None = None
    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    needs: str | None = None
    bare: bool = False
    numpy: bool = False
    data_parallel: bool = True
    seed: int = 0

    @property
    def trains(self) -> bool:
        """Whether it has data to train on, and a protocol."""
        return self.data is not None and self.protocol is not None

    @property
    def has_module(self) -> bool:
        """Whether it trains a module, and not bare tensors or NumPy arrays."""
        return not (self.bare or self.numpy)

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


@dataclass(frozen=True, eq=False)
class ModuleVariant(Variant):
    """A variant made of ``build``, ``loss`` and ``optimizer``; it needs no loop of its own."""


@dataclass(frozen=True, eq=False)
class Example:
    """A documented example: its data, its variants, and what its document states.

    ``document`` and ``section`` say which document it is from, and where in it. ``data``,
    ``protocol``, ``start``, ``documented_start``, ``loss``, ``metrics`` and ``facts`` hold for
    every variant that does not set its own. ``metrics`` are functions of (output, target) that
    return a score for each row or one number for the batch. ``baselines`` is the folder of the
    example's baselines, if it is not refimpl's own.
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

    def __post_init__(self) -> None:
        inherited = ("data", "protocol", "start", "documented_start", "loss", "metrics", "facts")
        filled = tuple(
            replace(v, **{f: getattr(self, f) for f in inherited if getattr(v, f) is None})
            for v in self.variants
        )
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


# --- how a computation is run --------------------------------------------------------------------


def _nothing_missing() -> str | None:
    """What this machine lacks for it; by default nothing."""
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
    (autocast). ``sees_outputs`` is ``False`` if a step's output is not that of the whole batch.
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
    suits: InitVar[Callable[[Variant], bool] | None] = None

    def __post_init__(self, suits: Callable[[Variant], bool] | None) -> None:
        if suits is not None:
            warnings.warn(
                f"execution {self.name!r}: suits= is now supports=; it works until refimpl 0.4",
                DeprecationWarning,
                stacklevel=3,
            )
            object.__setattr__(self, "supports", suits)
