"""Forecasting a wave by LBFGS, with a moving average of the weights that predicts."""

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from refimpl import (
    DataSet,
    Example,
    Facts,
    Figure,
    Protocol,
    Rows,
    Splits,
    Step,
    Variant,
    hookimpl,
    philox,
)

WINDOW = 6


def windows():
    """Six values in a row (N, 6), and the one after them (N, 1), of a wave with noise."""
    rng = philox("everyday-forecast")
    wave = np.sin(np.arange(120) / 4) + 0.05 * rng.standard_normal(120)
    x = np.lib.stride_tricks.sliding_window_view(wave[:-1], WINDOW).astype(np.float32)
    y = wave[WINDOW:, None].astype(np.float32)
    return Splits(Rows(x[:90].copy(), y[:90]), Rows(x[90:].copy(), y[90:]))


def build():
    """Six values → the next one."""
    return nn.Sequential(nn.Linear(WINDOW, 8), nn.Tanh(), nn.Linear(8, 1))


def by_closure(problem):
    """LBFGS measures the loss as often as it needs within one update."""
    net, mse = problem.load(build()), nn.MSELoss()
    optimizer = problem.resume(torch.optim.LBFGS(net.parameters(), lr=problem.lr, max_iter=5))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average = problem.resume(average, "average")
    for x, y in problem.batches():
        output = net(x)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = mse(net(x), y)
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        average.update_parameters(net)
        yield Step(loss, net, output, y, optimizer, model=average, state={"average": average})


EXAMPLE = Example(
    name="everyday-forecast",
    title="A wave, forecast by LBFGS",
    document="everyday",
    section="forecast",
    data=DataSet("everyday-forecast", stand_in=windows),
    protocol=Protocol(epochs=10, learning_rate=0.5),
    loss=nn.MSELoss(),
    variants=(Variant("lbfgs", by_closure, build=build),),
    facts=Facts(parameters=65, output=(90, 1), figures=(Figure("val_loss", None, real=(0, 1)),)),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
