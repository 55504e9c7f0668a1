"""The contract: what a plugin says about a documented example.

Everything here is plain data and imports no torch, so that plugins can be validated and listed
quickly. A plugin makes one :class:`Example` and hands it over in its ``refimpl_examples`` hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
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

    from refimpl.problem import Problem

    Arrays: TypeAlias = Mapping[str, NDArray[Any]]
    Start: TypeAlias = Callable[[np.random.Generator], Arrays]
    Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
    Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]

CONTRACT = 1
"""Version of this contract. A plugin that states a newer one is refused with what to do."""


# --- what a variant yields -----------------------------------------------------------------------


@dataclass(slots=True)
class Step:
    """What is seen of one update, right after it.

    ``loss``, a scalar, and ``output``, a row for each of the batch, are from before the update;
    ``target`` is what the loss held the output against. ``parameters`` are from after it, by name;
    a tensor that the loop goes on changing may be given as it is. The gradients of this step still
    stand in each parameter's ``.grad`` (zero them before the next ``backward``, not before the
    ``yield``), or are given in ``gradients``, by the same names, where autograd did not make them.
    ``model`` predicts with the current parameters: outputs for inputs as the batches have them.
    Only ``loss`` and ``parameters`` are needed, but what is not shown cannot be checked.
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
    """Figures that a variant measured itself at the end of an epoch, such as ``val_loss``."""

    metrics: Mapping[str, float]


Steps: TypeAlias = "Iterator[Step | Epoch]"


# --- what a document states ----------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A row of a layer table: ``output`` has −1 for the batch; ``parameters`` counts its own."""

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

    With ``digits`` it is exact on the real tier: |measured − documented| ≤ half a unit of that
    decimal. Otherwise ``real`` and ``stand_in`` are the ranges (low, high), ends included, that
    most runs must reach on each tier; a tier without a range asserts nothing. Where the document
    generates its data and trains as long on both tiers, the real range holds on both.
    ``outside_because`` says why today's runs on real data do not end near the documented figure,
    where they do not.
    """

    metric: str
    documented: float | None
    digits: int | None = None
    real: tuple[float, float] | None = None
    stand_in: tuple[float, float] | None = None
    outside_because: str = ""

    def range_on(self, tier: Tier) -> tuple[float, float] | None:
        """The range that holds on this tier, or ``None`` where nothing is asserted."""
        if tier == "stand-in":
            return self.stand_in
        if self.digits is not None and self.documented is not None:
            half = 0.5 * 10.0**-self.digits
            return (self.documented - half, self.documented + half)
        return self.real


@dataclass(frozen=True)
class Facts:
    """What the document states about a variant's model and its training.

    ``layers`` are the rows of its layer table, in order; ``state_dict`` the keys, in order;
    ``output`` the shape of the output for one documented batch; ``summary_input`` the shape of
    one sample where the table was taken at another shape than the data's.
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

    ``digits``: to how many decimals it was printed; ``None`` means equal as it stands (numbers to
    rounding of their dtype). ``needs`` names an optional package, or ``"cuda"``, that it cannot do
    without.
    """

    name: str
    compute: Callable[[], Any]
    expected: Any
    digits: int | None = None
    needs: str | None = None


@dataclass(frozen=True)
class Failure:
    """A documented mistake that must stay one: ``attempt()`` must raise ``raises``.

    ``match`` is a regular expression that the message must contain.
    """

    name: str
    attempt: Callable[[], object]
    raises: type[BaseException]
    match: str = ""
    needs: str | None = None


@dataclass(frozen=True)
class Erratum:
    """Something the document says that no longer holds.

    ``holds()`` tries it and answers whether the document is right here. It must answer ``False``
    where ``since`` (a requirement such as ``"torch>=2.6"``) is met, and ``True`` where it is not,
    so that the list is proven on every version.
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
    """How the document trains: everything of a run that is neither model nor data.

    ``batch_size`` ``None`` is the whole training set at once. ``shuffle_valid`` shuffles the
    validation rows too, once, for a figure of a batch that needs more than one class in it.
    ``stand_in_epochs`` is used on the stand-in tier. ``report`` tells what the document prints as
    the training figures: means over the batches of the epoch, or the last batch after its update.
    ``average`` tells how validation figures of batches are put together.
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
        """How many epochs a run takes on this tier."""
        if tier == "stand-in" and self.stand_in_epochs is not None:
            return self.stand_in_epochs
        return self.epochs


@dataclass(frozen=True, eq=False)
class Variant:
    """One way in which the document writes the computation.

    ``steps(problem)`` is a generator: one :class:`Step` after each update, nothing else decided.

    ``names`` maps the variant's own parameter names to those of its ladder's first variant where
    they differ; ``"weights.T"`` says that it is stored transposed. Variants with the same
    ``ladder`` are the same computation: from one start and one batch order they give the same
    losses, gradients and parameters. ``ladder_depth="gradients"`` limits that claim to the first
    step's loss and gradients (their optimizers differ).

    ``build()`` makes the module that ``steps`` trains and ``optimizer(parameters, lr=...)`` makes
    what updates it, for executions that carry the same computation out differently, such as many
    seeds at once. Where ``start`` is not given, it is drawn from torch's defaults for ``build()``.

    ``prepare`` is what the variant's loader does to inputs before the model sees them. ``needs``
    names an optional package or ``"cuda"`` that the variant cannot do without; ``bare`` says that
    it computes with bare tensors, so that there is no module to wrap; ``numpy`` that it computes
    in NumPy, on the CPU. ``data_parallel=False`` says that its loss or its layers look across the
    rows of a batch, so that shards of it do not make up the whole. ``seed`` is that of a run for
    which none is asked: another than 0 where seed 0's is one of the starts that do not converge.

    What is left ``None`` is taken from the example.
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
        """Whether there is something to train on, and a protocol to do it by."""
        return self.data is not None and self.protocol is not None

    @property
    def has_module(self) -> bool:
        """Whether a module is trained, and not bare tensors or arrays."""
        return not (self.bare or self.numpy)

    def has_layer(self, *kinds: type[nn.Module]) -> bool:
        """Whether what it builds has a layer of one of these kinds."""
        return self.build is not None and any(
            isinstance(module, kinds) for module in self.build().modules()
        )

    def figures_tier(self, tier: Tier) -> Tier:
        """The tier whose figures hold: the real one too where the stand-in is the same run."""
        generated = self.data is not None and self.data.real is None
        shortened = self.protocol is not None and self.protocol.stand_in_epochs is not None
        return "real" if generated and not shortened else tier

    def stated_ranges(self, tier: Tier) -> list[tuple[Figure, tuple[float, float]]]:
        """The figures that state where a run on this tier should end, with the range."""
        figures = self.facts.figures if self.facts else ()
        ranged = ((figure, figure.range_on(self.figures_tier(tier))) for figure in figures)
        return [(figure, bounds) for figure, bounds in ranged if bounds is not None]

    def run(self, problem: Problem) -> Steps:
        """The steps of one training run."""
        if self.steps is None:
            raise TypeError(f"variant {self.name!r} has no steps")
        return self.steps(problem)


@dataclass(frozen=True, eq=False)
class ModuleVariant(Variant):
    """A variant that is ``build``, ``loss`` and ``optimizer``; it needs no loop of its own."""

    def run(self, problem: Problem) -> Steps:
        """The steps of one training run, by the framework's own loop."""
        from refimpl.training import module_steps

        return module_steps(self, problem)


@dataclass(frozen=True, eq=False)
class Example:
    """A documented example: its data, its variants, and what its document states.

    ``document`` and ``section`` say where it stands. ``data``, ``protocol``, ``start``,
    ``documented_start``, ``loss``, ``metrics`` and ``facts`` hold for every variant that does not
    say otherwise. ``metrics`` are functions of (output, target) that return a score for each row
    or one number for the batch. ``baselines`` is the folder of the example's baselines, where it
    is not refimpl's own.
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
        """The variant of that name; without one, the first: the example's reference."""
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
        """The same with other draws: every variant's seed is moved by so much.

        A start that the document prints stays.
        """
        return replace(self, variants=tuple(replace(v, seed=v.seed + by) for v in self.variants))


# --- how a computation is carried out ------------------------------------------------------------


def _nothing_missing() -> str | None:
    return None


def _everything(variant: Variant) -> bool:
    return True


@dataclass(frozen=True)
class Execution:
    """How a computation is carried out: a device, a precision, a wrapper of the module.

    ``missing()`` says what this machine lacks ("needs 2 CUDA devices"), ``None`` if nothing.
    ``suits(variant)`` says whether there is anything to carry out so: a wrapper needs a module.
    ``wrap(module)`` is applied to each module with its start loaded; ``around()`` is entered
    around each step. ``steps``, where given, runs the variant altogether differently: other
    processes, many seeds at once. ``rounding`` is the dtype whose rounding it is judged by, where
    that is not the one its tensors have (autocast). ``sees_outputs`` is false where outputs are
    not those of the whole batch.
    """

    name: str
    summary: str
    device: str = "cpu"
    dtype: str | None = None
    missing: Callable[[], str | None] = _nothing_missing
    suits: Callable[[Variant], bool] = _everything
    wrap: Callable[[nn.Module], nn.Module] | None = None
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    steps: Callable[[Variant, Problem], Steps] | None = None
    rounding: str | None = None
    sees_outputs: bool = True
