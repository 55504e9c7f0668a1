"""A step that is not as the contract says is refused once, by the name of the field."""

import pytest
import torch
from torch import nn

from refimpl import Step
from refimpl.errors import ContractError
from refimpl.training.steps import require_in_order

NET = nn.Linear(2, 1)
SGD = torch.optim.SGD(NET.parameters(), lr=0.1)
LOSS = torch.tensor(1.0)
OUTPUT = torch.ones(3, 1)

WRONG = {
    "loss must be a scalar tensor": Step(torch.ones(3), NET),
    "loss 'd' must be a scalar tensor": Step({"d": "small"}, NET),
    "net must be the module or a mapping": Step(LOSS, [NET.weight]),
    "parameter 'w' must be a tensor, found str": Step(LOSS, {"w": "weight"}),
    "output must be a tensor, or a tuple or dict": Step(LOSS, NET, (OUTPUT, "logits")),
    "optimizer must be an optimizer": Step(LOSS, NET, OUTPUT, OUTPUT, "sgd"),
    "loss must be one, or one for each optimizer (d, g)": Step(
        {"d": LOSS, "h": LOSS}, NET, optimizer={"d": SGD, "g": SGD}
    ),
    "gradients must be of the parameters weight, bias": Step(LOSS, NET, gradients={"w": OUTPUT}),
    "state 'schedule' must be what has a state_dict": Step(LOSS, NET, state={"schedule": 3}),
    "model must be a function": Step(LOSS, NET, OUTPUT, OUTPUT, SGD, model=1),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_with_a_step_is_said_by_field(said):
    with pytest.raises(ContractError) as refused:
        require_in_order(WRONG[said], "only")
    assert f"variant 'only' yields a Step whose {said}" in str(refused.value)


def test_the_parameters_of_a_module_follow_from_it():
    step = Step(LOSS, NET, OUTPUT, OUTPUT, SGD)
    require_in_order(step, "only")
    assert dict(step.parameters) == dict(NET.named_parameters())
    assert step.model is NET
    assert step.optimizers == {"": SGD}


def test_several_losses_add_up_and_several_optimizers_note_what_they_used():
    from refimpl.training.problem import note_gradients

    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    optimizers = {name: torch.optim.SGD(net.parameters(), lr=0.1) for name, net in
                  (("a", one), ("b", other))}  # fmt: skip
    for optimizer in optimizers.values():
        note_gradients(optimizer)
    x = torch.ones(2, 1)
    first = one(x).sum()
    first.backward()
    optimizers["a"].step()
    used = one.weight.grad.clone()
    second = (one(x) * other(x)).sum()
    second.backward()
    optimizers["b"].step()
    net = nn.ModuleDict({"one": one, "other": other})
    step = Step({"a": first, "b": second}, net, optimizer=optimizers)
    assert float(step.total.detach()) == pytest.approx(float((first + second).detach()))
    assert torch.equal(step.used_gradients()["one.weight"], used)
    assert not torch.equal(one.weight.grad, used)


def test_an_optimizer_that_calls_a_closure_notes_the_first_call():
    from refimpl.training.problem import note_gradients

    net = nn.Linear(1, 1)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5)
    note_gradients(optimizer)
    x, y = torch.ones(2, 1), torch.zeros(2, 1)

    def closure():
        optimizer.zero_grad()
        loss = (net(x) - y).pow(2).sum()
        loss.backward()
        return loss

    closure()
    expected = net.weight.grad.clone()
    loss = optimizer.step(closure)
    step = Step(loss, net, optimizer=optimizer)
    assert torch.equal(step.used_gradients()["weight"], expected)
