"""The Keras-like model, as chapters 1-4, 3-3, 6-2 and 6-3 of *20-days* use it."""

import pandas
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from refimpl import Model
from refimpl.errors import ContractError
from refimpl.metrics import absolute_error

ROWS = 40


class Line(nn.Module):
    """One layer, with dropout that shows the mode."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.dropout(x))


class OwnLine(Model):
    """The same as a subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


def loader(batch_size: int = 10) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 2, generator=generator)
    return DataLoader(TensorDataset(x, x @ torch.tensor([[2.0], [-3.0]]) + 1), batch_size)


def compiled(model: Model, lr: float = 0.1, **more) -> Model:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.compile(nn.MSELoss(), optimizer, {"mae": absolute_error}, **more)
    return model


@pytest.mark.parametrize("make", [lambda: Model(Line()), OwnLine], ids=["wrapped", "subclass"])
def test_fit_trains_and_returns_the_figures_epoch_by_epoch(make):
    model = compiled(make())
    history = model.fit(30, dl_train=loader(), dl_val=loader())
    assert list(history) == ["epoch", "loss", "mae", "val_loss", "val_mae"]
    assert history["epoch"] == list(range(1, 31))
    assert history["loss"][0] > 1
    assert history["val_loss"][-1] < 1e-4
    assert pandas.DataFrame(history).shape == (30, 5)
    assert model.evaluate(loader())["val_loss"] == history["val_loss"][-1]


def test_the_loss_of_an_epoch_is_the_mean_over_its_batches_before_each_update():
    model = compiled(Model(Line()), lr=0.0)
    history = model.fit(1, loader(batch_size=16))  # the last batch has eight rows
    with torch.no_grad():
        by_hand = [nn.MSELoss()(model(x), y).item() for x, y in loader(batch_size=16)]
    assert history["loss"] == pytest.approx([sum(by_hand) / len(by_hand)])


def test_figures_so_far_are_printed_every_few_steps(capsys):
    compiled(Model(Line())).fit(2, loader(), log_step_freq=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("{'step': 2, 'loss': ")
    assert "'mae'" in lines[0]


def test_without_a_frequency_nothing_is_printed(capsys):
    compiled(Model(Line())).fit(1, loader())
    assert capsys.readouterr().out == ""


def test_evaluation_needs_no_optimizer():
    model = Model(Line())
    model.compile(loss_func=nn.MSELoss())
    assert list(model.evaluate(loader())) == ["val_loss"]


def test_fitting_without_an_optimizer_says_what_to_do():
    model = Model(Line())
    model.compile(loss_func=nn.MSELoss())
    with pytest.raises(ContractError, match=r"compile\(loss_func, optimizer\)"):
        model.fit(1, loader())


def test_an_uncompiled_model_says_what_to_do():
    with pytest.raises(ContractError, match=r"compile\(loss_func\)"):
        Model(Line()).evaluate(loader())


def test_evaluation_and_prediction_use_evaluation_mode_and_fitting_goes_back():
    model = compiled(Model(Line(dropout=0.9)))
    assert model.evaluate(loader()) == model.evaluate(loader())
    assert torch.equal(model.predict(loader()), model.predict(loader()))
    next(model.steps(loader()))
    assert model.net.training
    assert model.net.dropout.training


def test_predictions_of_a_loader_are_joined_and_have_no_graph():
    model = Model(Line())
    x = torch.cat([features for features, _ in loader()])
    predictions = model.predict(loader())
    assert predictions.shape == (ROWS, 1)
    assert not predictions.requires_grad
    assert torch.allclose(predictions, model(x))
    assert torch.equal(model.predict(DataLoader(TensorDataset(x), 10)), predictions)


def test_the_state_dict_has_no_prefix_and_loads_into_the_bare_net_and_back():
    net, model = Line(), Model(Line())
    assert list(model.state_dict()) == ["fc.weight", "fc.bias"] == list(OwnLine().state_dict())
    net.load_state_dict(model.state_dict())
    assert torch.equal(net.fc.weight, model.net.fc.weight)
    other = OwnLine()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.fc.weight, model.net.fc.weight)


def test_a_loss_that_is_a_module_is_no_part_of_the_net():
    model = Model(Line())
    model.compile(nn.CrossEntropyLoss(weight=torch.ones(2)))
    assert list(model.state_dict()) == ["fc.weight", "fc.bias"]


def test_the_summary_is_of_the_bare_net():
    summary = Model(nn.DataParallel(Line())).summary(input_shape=(2,))
    assert [layer.name for layer in summary.layers] == ["dropout", "fc"]
    assert summary.sizes.parameters == pytest.approx(3 * 4 / 2**20)


def test_ids_of_an_embedding_are_summarised_with_their_dtype():
    summary = Model(nn.Embedding(5, 4)).summary((3,), input_dtype=torch.int64)
    assert summary.layers[0].output == (-1, 3, 4)


def test_device_ids_put_the_net_under_data_parallel_and_without_them_it_comes_back():
    model = Model(Line())
    weight = model.net.fc.weight
    compiled(model, device_ids=[0])
    assert isinstance(model.net, nn.DataParallel)
    assert list(model.state_dict()) == ["fc.weight", "fc.bias"]
    assert model.fit(1, loader())["loss"][0] > 0
    model.compile(nn.MSELoss())
    assert isinstance(model.net, Line)
    assert model.net.fc.weight is weight


def test_a_net_that_came_under_data_parallel_stays_there():
    model = Model(nn.DataParallel(Line()))
    model.compile(nn.MSELoss())
    assert isinstance(model.net, nn.DataParallel)
    assert list(model.net.module.state_dict()) == list(model.state_dict())


def test_a_subclass_cannot_be_put_under_data_parallel():
    with pytest.raises(ContractError, match="Model\\(net\\)"):
        OwnLine().compile(nn.MSELoss(), device_ids=[0])


def test_batches_follow_the_model_to_its_device():
    class Noting:
        """A batch that notes where it is sent."""

        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor, self.sent = tensor, []

        def to(self, device: str) -> torch.Tensor:
            self.sent.append(device)
            return self.tensor

    model = Model(Line())
    model.compile(nn.MSELoss(), device="cpu")
    x, y = (Noting(part) for part in next(iter(loader())))
    model.evaluate([(x, y)])
    model.predict([(x, y)])
    assert (x.sent, y.sent) == (["cpu", "cpu"], ["cpu"])


def test_batches_given_to_fit_make_steps_as_they_did_before():
    model = Model(Line())
    model.compile(nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.warns(DeprecationWarning, match=r"Model.fit\(batches\) is Model.steps"):
        steps = list(model.fit(loader()))
    assert len(steps) == 4
