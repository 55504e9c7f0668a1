"""A TensorBoard log that is wrong is seen by the values of the example that reads it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("tensorboard")

from torch.utils.tensorboard import _pytorch_graph, _utils, summary, writer

from refimpl.plugins.data_pipelines import EXAMPLE


def around(place: Any, name: str, instead: Callable[..., Any]) -> Callable[[Any], None]:
    """Replaces a function of torch by ``instead(function, ...)``."""
    function = getattr(place, name)
    return lambda patch: patch.setattr(place, name, lambda *a, **k: instead(function, *a, **k))


def black(draw: Any, *given: Any, **named: Any) -> Any:
    return draw(*given, **named) * 0


def all_the_first(grid: Any, images: Any, **named: Any) -> Any:
    return grid(images[:1].repeat(len(images), axis=0), **named)


def lossy(make: Any, *given: Any, **named: Any) -> Any:
    made = make(*given, **named)
    made.sum_squares *= 1.001
    return made


def without_greatest(make: Any, *given: Any, **named: Any) -> Any:
    made = make(*given, **named)
    made.max = made.max / 2
    return made


def without_edges(parse: Any, *given: Any, **named: Any) -> Any:
    nodes = parse(*given, **named)
    for node in nodes[25:]:
        del node.input[:]
    return nodes


def an_hour_ago(add: Any, self: Any, event: Any, step: Any = None, walltime: Any = None) -> Any:
    return add(self, event, step, 3600.0)


WRONG = {
    "pixels of a logged figure": around(writer, "figure_to_image", black),
    "pixels of logged images": around(_utils, "make_grid", all_the_first),
    "logged histograms: minimum, maximum, sum and squares": around(
        summary, "make_histogram", lossy
    ),
    "layers in the logged graph of the image net": around(_pytorch_graph, "parse", without_edges),
    "times of logged histograms": around(writer.FileWriter, "add_event", an_hour_ago),
}


def holds(name: str) -> bool:
    (value,) = (value for value in EXAMPLE.values if value.name == name)
    found, expected, digits = value.compute(), value.expected, value.digits
    return found == expected if digits is None else abs(found - expected) < 0.5 * 10**-digits


@pytest.mark.parametrize("name", WRONG)
def test_a_log_that_is_wrong_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert holds(name)
    WRONG[name](monkeypatch)
    assert not holds(name)


def test_a_histogram_without_its_greatest_number_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    around(summary, "make_histogram", without_greatest)(monkeypatch)
    assert not holds("logged histograms: minimum, maximum, sum and squares")
