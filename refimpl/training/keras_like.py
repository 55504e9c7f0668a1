"""A small Keras-like model around a net: the class style of *20-days*, written once.

Several examples train in this style, so it is here and not in one of them. The document uses it
whole: ``compile``, ``fit``, ``evaluate``, ``predict``, ``summary``. A variant of the suite yields
each step of its training, and takes :meth:`Model.steps` for that, from which ``fit`` is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from refimpl.contract import Step
from refimpl.errors import ContractError

if TYPE_CHECKING:
    from refimpl.training.layer_table import Summary

Batch = tuple[Tensor, Tensor]
Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Compiled:
    """What a model is compiled with. It is no module, so the loss is no part of the net."""

    loss_func: Score
    optimizer: torch.optim.Optimizer | None
    metrics_dict: Mapping[str, Score]
    device: torch.device | str | None

    def place(self, part: Any) -> Any:
        """A tensor or a module on the model's device."""
        return part if self.device is None else part.to(self.device)

    def scores(self, predictions: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Each metric of a batch."""
        return {name: score(predictions, labels) for name, score in self.metrics_dict.items()}


class Model(nn.Module):
    """``compile`` it, then ``fit``, ``evaluate``, ``predict`` and ``summary``.

    ``Model(net)`` trains a net; a subclass that has layers of its own writes ``forward`` instead.
    Its state dict is that of the bare net, so that either loads the other's.
    """

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = net
        self._parallel = False
        self._compiled: Compiled | None = None

    def compile(
        self,
        loss_func: Score,
        optimizer: torch.optim.Optimizer | None = None,
        metrics_dict: Mapping[str, Score] = {},
        device: torch.device | str | None = None,
        device_ids: Sequence[int] | None = None,
    ) -> None:
        """Set the loss, and what else is needed: an optimizer to fit, metrics, a device.

        ``metrics_dict`` has functions of (output, target), such as :mod:`refimpl.metrics` has. The
        net is moved to ``device``, and batches follow it. With ``device_ids`` it is put under
        ``DataParallel`` on these GPUs; without, it is taken out of it if it was put there so.
        Raises :class:`ContractError` for ``device_ids`` without a net.
        """
        if device_ids is not None and self.net is None:
            raise ContractError("device_ids need a net to wrap: compile Model(net)")
        self._compiled = Compiled(loss_func, optimizer, metrics_dict, device)
        self._compiled.place(self)
        if device_ids is not None:
            self.net = nn.DataParallel(self._bare(), device_ids=list(device_ids))
        elif self._parallel:
            self.net = self._bare()
        self._parallel = device_ids is not None

    def forward(self, *features: Any) -> Any:
        """The net's output."""
        if self.net is None:
            raise NotImplementedError("give Model a net, or write forward in the subclass")
        return self.net(*features)

    def steps(self, batches: Iterable[Batch]) -> Iterator[Step]:
        """Train on each batch once, yielding a step after each update."""
        compiled, net = self._ready(), self if self.net is None else self.net
        optimizer = compiled.optimizer
        if optimizer is None:
            raise ContractError("compile(loss_func, optimizer) the model before fitting it")
        for features, labels in batches:
            if not net.training:  # at first perhaps, and after each evaluation
                net.train()
            features, labels = compiled.place(features), compiled.place(labels)
            predictions = net(features)
            loss = compiled.loss_func(predictions, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield Step(loss, net, predictions, labels, optimizer)

    @overload
    def fit(
        self,
        epochs: int,
        dl_train: Iterable[Batch],
        dl_val: Iterable[Batch] | None = None,
        log_step_freq: int = 0,
    ) -> dict[str, list[float]]: ...

    @overload
    def fit(self, epochs: Iterable[Batch]) -> Iterator[Step]: ...

    def fit(
        self,
        epochs: int | Iterable[Batch],
        dl_train: Iterable[Batch] = (),
        dl_val: Iterable[Batch] | None = None,
        log_step_freq: int = 0,
    ) -> dict[str, list[float]] | Iterator[Step]:
        """Train for some epochs; each figure, epoch by epoch, as ``pandas.DataFrame`` takes it.

        The figures are means over the batches: ``loss`` and each metric, and the same of
        ``dl_val`` as ``val_…``. Every ``log_step_freq`` steps those so far are printed.
        """
        if not isinstance(epochs, int):  # as it was called before
            says = "Model.fit(batches) is Model.steps(batches) now; this works until 0.4"
            warnings.warn(says, DeprecationWarning, stacklevel=2)
            return self.steps(epochs)
        history: dict[str, list[float]] = {}
        for epoch in range(1, epochs + 1):
            means = Means()
            for number, step in enumerate(self.steps(dl_train), start=1):
                with torch.no_grad():
                    scores = self._ready().scores(step.output, step.target)
                means.add({"loss": step.loss, **scores})
                if log_step_freq and number % log_step_freq == 0:
                    so_far = {name: round(value, 3) for name, value in means.of_all().items()}
                    print({"step": number, **so_far})
            validation = {} if dl_val is None else self.evaluate(dl_val)
            for name, value in {"epoch": epoch, **means.of_all(), **validation}.items():
                history.setdefault(name, []).append(value)
        return history

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """``val_loss`` and each metric as ``val_…``: means over the batches, in evaluation mode."""
        compiled, means = self._ready(), Means()
        self.eval()
        for features, labels in batches:
            features, labels = compiled.place(features), compiled.place(labels)
            predictions = self(features)
            loss = compiled.loss_func(predictions, labels)
            means.add({"loss": loss, **compiled.scores(predictions, labels)})
        return {f"val_{name}": value for name, value in means.of_all().items()}

    @torch.no_grad()
    def predict(self, batches: Iterable[Any]) -> Tensor:
        """The outputs for all batches of a loader, joined, in evaluation mode.

        A batch is a tensor of features, or a tuple or list that begins with one.
        """
        self.eval()
        outputs = []
        for batch in batches:
            features = batch[0] if isinstance(batch, (tuple, list)) else batch
            outputs.append(self(self._compiled.place(features) if self._compiled else features))
        return torch.cat(outputs)

    def summary(
        self, input_shape: Sequence[int], input_dtype: torch.dtype = torch.float32
    ) -> Summary:
        """Layer table and size rows for inputs of this shape (without the batch axis)."""
        from refimpl.training.layer_table import summarise

        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        return summarise(self._bare(), torch.zeros(1, *input_shape, device=device).to(input_dtype))

    def __repr__(self) -> str:
        """The bare net in print, as the document prints a model."""
        bare = self._bare()
        return super().__repr__() if bare is self else repr(bare)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the bare net: no prefix for this model or for ``DataParallel``."""
        bare = self._bare()
        if bare is self:
            return super().state_dict(*args, **kwargs)
        return bare.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load the state dict of a bare net, or of another model around one."""
        bare = self._bare()
        if bare is self:
            return super().load_state_dict(state_dict, *args, **kwargs)
        return bare.load_state_dict(state_dict, *args, **kwargs)

    def _bare(self) -> nn.Module:
        """The net without wrappers; the model itself if its layers are its own."""
        net = self if self.net is None else self.net
        return net.module if isinstance(net, nn.DataParallel) else net

    def _ready(self) -> Compiled:
        if self._compiled is None:
            raise ContractError("compile(loss_func) the model before fitting or evaluating")
        return self._compiled


class Means:
    """Means of scores over the batches seen so far."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, scores: Mapping[str, Any]) -> None:
        """Count the scores of one more batch: tensors, which are averaged, or numbers."""
        for name, score in scores.items():
            value = float(torch.as_tensor(score).detach().cpu().double().mean())
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def of_all(self) -> dict[str, float]:
        """The mean of each score."""
        return {name: total / self.count for name, total in self.sums.items()}
