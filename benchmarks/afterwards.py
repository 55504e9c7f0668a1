"""What documents do with a net once it is trained, for loops that only train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from refimpl.plugins import covid_lstm
from refimpl.training.problem import Problem


def forecast(model: Any, problem: Problem) -> dict[str, float]:
    """The loss on all rows, and the first days without growth in a forecast."""
    x, y = problem.train.x, problem.train.y
    growth = torch.cat([x[0], y])
    days = covid_lstm.first_zero_days(covid_lstm.roll_out(model, growth))
    with torch.no_grad():
        loss = covid_lstm.mspe(model(x), y)  # type: ignore[no-untyped-call]
    return {"val_loss": float(loss), **days}


AFTERWARDS: dict[str, Callable[[Any, Problem], dict[str, float]]] = {
    "covid-lstm/single-start": forecast
}
"""By example and variant."""
