"""Loops to compare with refimpl's own: as documents write it, and with only what is needed, eagerly
or as one graph a step.

All take a variant that declares its ``build``, ``optimizer`` and ``loss``, or of which
an :class:`Own` says what it does instead, and the problem that ``refimpl run`` would pose: the same
start, batches and epochs. All return the parameters at the end, by name, and the last epoch's
figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms.functional import to_tensor

from refimpl import Epoch, Variant, metrics
from refimpl.composition import CPU
from refimpl.loading import registry
from refimpl.plugins import ring_focal
from refimpl.training.graphs import graphs_on
from refimpl.training.loop import drive
from refimpl.training.problem import Problem, TensorRows


@dataclass(frozen=True)
class End:
    """Where a loop ended."""

    parameters: dict[str, Tensor]
    figures: dict[str, float]
    model: object


# --- (a) as documents write it -------------------------------------------------------------------


def _thresholded(output: Tensor, target: Tensor) -> float:
    return float(accuracy_score(target.cpu().numpy() > 0.5, output.cpu().numpy() > 0.5))


def _classes(output: Tensor, target: Tensor) -> float:
    return float(accuracy_score(target.cpu().numpy(), output.cpu().numpy().argmax(axis=1)))


def _auc(output: Tensor, target: Tensor) -> float:
    return float(roc_auc_score(target.cpu().numpy(), output.cpu().numpy()))


def _recall(output: Tensor, target: Tensor) -> float:
    return float(recall_score(target.cpu().numpy() > 0.5, output.cpu().numpy() > 0.5))


AS_DOCUMENTED: dict[object, Callable[[Tensor, Tensor], float]] = {
    metrics.binary_accuracy: _thresholded,
    metrics.accuracy: _classes,
    metrics.roc_auc: _auc,
    metrics.recall: _recall,
}
"""The scikit-learn function for each metric of refimpl that documents take from there."""


Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Own:
    """What only the loop of a variant says: its optimizer, a loss that depends on the net, and
    the metrics that are computed on all validation rows at once.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    loss: Callable[[nn.Module], Loss]
    on_all_rows: Mapping[str, Callable[[Tensor, Tensor], Tensor]]


def _penalised(net: nn.Module) -> Loss:
    focal_loss: Loss = ring_focal.FocalLoss()  # type: ignore[no-untyped-call]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        l2 = ring_focal.l2_penalty(net, ring_focal.L2_STRENGTH)
        l1 = ring_focal.l1_penalty(net, ring_focal.L1_STRENGTH)
        return focal_loss(output, target) + l2 + l1

    return loss


OWN = {
    "ring-focal/focal": Own(
        torch.optim.Adam,
        _penalised,
        {"val_recall": metrics.recall, "val_auc": metrics.roc_auc},
    )
}
"""By example and variant."""


def _one(score: Tensor | float) -> float:
    return float(torch.as_tensor(score).mean())


class InOrder:
    """The rows of an epoch's batches, as a shuffling sampler would give them.

    A loader with workers asks for an iterator twice, so the epoch is set from outside.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.epoch = problem, 0

    def __len__(self) -> int:
        return self.problem.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        order, size = self.problem.order(self.epoch), self.problem.batch_size
        return (order[start : start + size] for start in range(0, len(order), size))


WORKERS = {"cifar2-cnn": 2, "mnist-cnn": 2}
"""Workers of the documents' DataLoaders, here at most one per core; other documents use none."""

OUT_OF_TENSORS = {
    "linear-regression-1d": {
        "module", "nested-linear", "sequential", "train-step", "dataset",
    },
    "linear-regression-2d": {"large"},
    "mnist-logistic": {"module", "linear", "optim", "dataset"},
    "ring-dnn": {"low"},
}  # fmt: skip
"""Variants whose documents have no DataLoader, but take all rows, slices, or rows by index."""


def variant_of(name: str) -> Variant:
    """The variant of this EXAMPLE/VARIANT."""
    example, _, variant = name.partition("/")
    return registry.load(only=[example]).example(example).variant(variant)


def workers_of(example: str, variant: str) -> int | None:
    """How many workers the document's DataLoader has; ``None`` if it has no loader."""
    if variant in OUT_OF_TENSORS.get(example, ()):
        return None
    return WORKERS.get(example, 0)


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Images as torchvision's data sets give them: through Pillow and ``ToTensor``, one at a time.

    Colour images come from files, as in its ``ImageFolder``; grey ones from memory, as in its
    ``MNIST``.
    """

    def __init__(self, rows: TensorRows, folder: Path) -> None:
        pixels = (rows.x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).squeeze(-1).numpy()
        images = map(Image.fromarray, pixels)
        self.pixels, self.paths, self.targets = pixels, [], rows.y
        if pixels.ndim == 4:
            self.paths = [folder / f"{number}.png" for number in range(len(pixels))]
            for image, path in zip(images, self.paths, strict=True):
                image.save(path)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if self.paths:
            image = Image.open(self.paths[number]).convert("RGB")
        else:
            image = Image.fromarray(self.pixels[number])
        return to_tensor(image), self.targets[number]


def _samples(rows: TensorRows, folder: str) -> Dataset[Any]:
    """The rows one by one, read in the way in which their documents read them."""
    eight_bit = rows.x.ndim == 4 and torch.equal((rows.x * 255).round() / 255, rows.x)
    if eight_bit and rows.x.dtype == torch.float32:
        return Pictures(rows, Path(folder))
    return TensorDataset(rows.x, rows.y)


@dataclass(frozen=True)
class Samples:
    """What a document's loaders read."""

    train: Dataset[Any]
    valid: Dataset[Any] | None


@contextmanager
def documented_samples(problem: Problem) -> Iterator[Samples]:
    """The samples of a problem; files that documents read from disk are written beforehand.

    They are on the CPU, from where documents move each batch.
    """
    problem = problem.but(execution=CPU)
    with TemporaryDirectory() as seen_in, TemporaryDirectory() as held_out:
        rows = problem.valid
        valid = None if rows is None else _samples(rows, held_out)
        yield Samples(_samples(problem.train, seen_in), valid)


def as_documented(
    variant: Variant,
    problem: Problem,
    samples: Samples,
    workers: int | None,
    own: Own | None = None,
) -> End:
    """The loop as documents write it: scikit-learn for each batch, ``.item()`` at each step.

    If the document has a loader (``workers`` is a number), samples are read and collated one by
    one.
    """
    model, loss_of, optimizer = _made(variant, problem, own)
    scores = {n: AS_DOCUMENTED.get(m, m) for n, m in (variant.metrics or {}).items()}
    prepare = variant.prepare or (lambda rows: rows)
    on_all_rows = own.on_all_rows if own else {}
    loaders = _out_of_tensors(problem) if workers is None else _loaded(problem, samples, workers)
    figures: dict[str, float] = {}
    for epoch in problem.epochs():
        model.train()
        seen: dict[str, list[float]] = {"loss": [], **{name: [] for name in scores}}
        for xb, yb in loaders.train(epoch):
            optimizer.zero_grad()
            output = model(prepare(xb))
            loss = loss_of(output, yb)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seen["loss"].append(loss.item())
            for name, score in scores.items():
                seen[name].append(_one(score(output.detach(), yb)))
        figures = {name: float(np.mean(values)) for name, values in seen.items()}
        if problem.protocol.report == "last-batch":
            model.eval()
            with torch.no_grad():
                output = model(prepare(xb))
            figures = {"loss": loss_of(output, yb).item()}
            figures |= {name: _one(score(output, yb)) for name, score in scores.items()}
        if problem.valid is not None:
            model.eval()
            seen = {"val_loss": [], **{f"val_{name}": [] for name in scores}}
            for xb, yb in loaders.valid():
                with torch.no_grad():
                    output = model(prepare(xb))
                    seen["val_loss"].append(loss_of(output, yb).item())
                for name, score in scores.items():
                    seen[f"val_{name}"].append(_one(score(output, yb)))
            figures |= {name: float(np.mean(values)) for name, values in seen.items()}
            if on_all_rows:
                with torch.no_grad():
                    output = model(prepare(problem.valid.x))
                for name, metric in on_all_rows.items():
                    figures[name] = _one(AS_DOCUMENTED[metric](output, problem.valid.y))
    return End({n: p.detach() for n, p in model.named_parameters()}, figures, model)


Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Loaders:
    """The batches of an epoch, and those of the validation rows."""

    train: Callable[[int], Batches]
    valid: Callable[[], Batches]


def _loaded(problem: Problem, samples: Samples, workers: int) -> Loaders:
    batches, size = InOrder(problem), problem.valid_batch_size
    train = DataLoader(samples.train, batch_sampler=batches, num_workers=workers)
    valid = samples.valid and DataLoader(samples.valid, batch_size=size, num_workers=workers)

    def moved(loader: Batches) -> Batches:
        return ((x.to(problem.device), y.to(problem.device)) for x, y in loader)

    def of_epoch(epoch: int) -> Batches:
        batches.epoch = epoch
        return moved(train)

    return Loaders(of_epoch, lambda: moved(valid or ()))


def _out_of_tensors(problem: Problem) -> Loaders:
    valid = tuple(problem.valid_batches())
    return Loaders(problem.epoch_batches, lambda: valid)


def in_its_own_loop(variant: Variant, problem: Problem) -> None:
    """Run a variant whose loop is the document's, with the figures that documents take per step."""
    scores = [AS_DOCUMENTED.get(metric, metric) for metric in (variant.metrics or {}).values()]
    for step in drive(variant, problem):
        if isinstance(step, Epoch):
            continue
        float(torch.as_tensor(step.loss).detach())
        if isinstance(step.output, Tensor) and isinstance(step.target, Tensor):
            for score in scores:
                _one(score(step.output.detach(), step.target))


# --- (c) the bare limit --------------------------------------------------------------------------


def bare(variant: Variant, problem: Problem, own: Own | None = None) -> End:
    """Forward, loss, backward and update with torch's fastest kernels, figures once per epoch."""
    return _trained(
        variant, problem.but(swift=problem.device.type == "cpu"), own, lambda step: step
    )


def graphed(variant: Variant, problem: Problem, own: Own | None = None) -> End:
    """The same with each update replayed from one graph; raises where there are no graphs."""
    return _trained(variant, problem, own, partial(_replayed, problem))


StepOf = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Stepping:
    """An update from a batch, which gives output and loss."""

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer

    def __call__(self, xb: Tensor, yb: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(xb)
        loss = self.loss(output, yb)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return output.detach(), loss.detach()


def _replayed(problem: Problem, step: Stepping) -> StepOf:
    graphs = graphs_on(problem.device)
    assert graphs is not None, f"{problem.device} has no graphs"
    for group in step.optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    x, y = next(problem.batches())
    x, y = x.clone(), y.clone()
    made: list[tuple[Tensor, Tensor]] = []

    def work() -> None:
        made[:] = [step(x, y)]

    start = [(p, p.detach().clone()) for p in step.model.state_dict(keep_vars=True).values()]
    work()
    for parameter, state in step.optimizer.state.items():
        if "step" in state and parameter.dtype == torch.float64:  # as exact as Python's numbers
            state["step"] = state["step"].double()
    graphs.warm_up(work)
    replay = graphs.capture(work)
    with torch.no_grad():
        for tensor, value in start:
            tensor.copy_(value)
        for state in step.optimizer.state.values():  # as every optimizer here begins
            for value in state.values():
                value.zero_()

    def replayed(xb: Tensor, yb: Tensor) -> tuple[Tensor, Tensor]:
        if xb.shape != x.shape:
            return step(xb, yb)
        x.copy_(xb)
        y.copy_(yb)
        replay()
        output, loss = made[0]
        return output.clone(), loss.clone()

    return replayed


def _trained(
    variant: Variant, problem: Problem, own: Own | None, by: Callable[[Stepping], StepOf]
) -> End:
    model, loss_of, optimizer = _made(variant, problem, own)
    step = by(Stepping(model, loss_of, optimizer))
    scores = variant.metrics or {}
    x, y, size = problem.train.x, problem.train.y, problem.batch_size
    held_out, on_all_rows = list(problem.valid_batches()), own.on_all_rows if own else {}
    figures: dict[str, float] = {}
    for epoch in problem.epochs():
        order = torch.tensor(problem.order(epoch), device=problem.device)
        batches = torch.split(order, size) if size < len(x) else [slice(None)]
        losses, seen = [], []
        for batch in batches:
            xb, yb = x[batch], y[batch]
            output, loss = step(xb, yb)
            losses.append(loss)
            seen.append((output, yb))
        if problem.protocol.report == "last-batch":
            model.eval()
            with torch.no_grad():
                output = model(xb)
                losses, seen = [loss_of(output, yb)], [(output, yb)]
            model.train()
        figures = {"loss": _mean(losses)}
        for name, score in scores.items():
            figures[name] = _mean([score(output, yb).mean() for output, yb in seen])
        if held_out:
            model.eval()
            with torch.no_grad():
                pairs = [(model(xb), yb) for xb, yb in held_out]
                figures["val_loss"] = _mean([loss_of(output, yb) for output, yb in pairs])
                for name, score in scores.items():
                    figures[f"val_{name}"] = _mean([score(out, yb).mean() for out, yb in pairs])
                if on_all_rows and problem.valid is not None:
                    output = model(problem.valid.x)
                    for name, metric in on_all_rows.items():
                        figures[name] = float(metric(output, problem.valid.y))
            model.train()
    return End({n: p.detach() for n, p in model.named_parameters()}, figures, model)


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).nanmean())


def _made(
    variant: Variant, problem: Problem, own: Own | None
) -> tuple[nn.Module, Loss, torch.optim.Optimizer]:
    assert variant.build is not None
    assert variant.loss is not None
    model = problem.load(variant.build())
    loss = variant.loss if own is None else own.loss(model)
    made_by = variant.optimizer if own is None else own.optimizer
    assert made_by is not None
    return model, loss, problem.resume(made_by(model.parameters(), lr=problem.lr))
