"""A recipe, written from the document, notices what a plugin builds, starts or trains otherwise."""

import pytest

from refimpl.checking import claims
from refimpl.checking.checks import Subject
from refimpl.checking.claims import ClaimsError
from refimpl.composition import CPU
from refimpl.conformance.checks.recipe import built_as_its_document_says
from refimpl.loading.registry import load

PLUGIN = """
import numpy as np
import torch
from torch import nn
from refimpl import DataSet, Example, Facts, Protocol, Rows, Splits, Step, Variant, hookimpl, philox

OPTIMIZER = lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def rows():
    x = philox("rows").normal(size=(40, 3)).astype(np.float32)
    y = (x[:, :1] > 0).astype(np.float32)
    return Splits(Rows(x[:30], y[:30]), Rows(x[30:], y[30:]))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)
        self.drop = nn.Dropout(0.25)

    def forward(self, x):
        return torch.sigmoid(self.last(self.drop(torch.relu(self.first(x)))))


def script(problem):
    model = problem.load(Net())
    optimizer = problem.resume(OPTIMIZER(model.parameters(), lr=problem.lr))
    loss_of = nn.BCELoss()
    for x, y in problem.batches():
        output = model(x)
        loss = loss_of(output, y)
        loss.backward()
        optimizer.step()
        yield Step(loss, model, output, y, optimizer)
        optimizer.zero_grad()


def start(rng):
    return {
        "first.weight": rng.normal(0, 0.5, (4, 3)), "first.bias": np.zeros(4),
        "last.weight": rng.normal(0, 0.5, (1, 4)), "last.bias": np.zeros(1),
    }


@hookimpl
def refimpl_examples():
    protocol = Protocol(epochs=2, learning_rate=0.1, batch_size=10)
    variant = Variant("script", script, start=start, build=Net)
    data = DataSet(name="rows", stand_in=rows)
    return [Example(name="own", title="t", document="d", section="1", variants=(variant,),
                    data=data, protocol=protocol, loss=nn.BCELoss(), facts=Facts(parameters=21))]
"""

RECIPE = """
[[recipe]]
section = "1"
layers = ["Linear(3, 4)", "Linear(4, 1)", "Dropout(0.25)"]
calls = { linear = 2, relu = 1, dropout = 1, sigmoid = 1 }
start = { "*.weight" = "N(0, 1/4)", "*.bias" = "0" }
loss = "BCELoss()"
optimizer = { kind = "SGD", momentum = 0.9 }
protocol = { epochs = 2, learning_rate = 0.1, batch_size = 10, shuffle = true }
"""


def judged(tmp_path, old="", new="", recipe=RECIPE):
    """What the check says of the plugin, with one thing of it changed."""
    assert not old or old in PLUGIN
    file = tmp_path / f"own_{abs(hash((old, new)))}.py"
    file.write_text(PLUGIN.replace(old, new) if old else PLUGIN)
    file.with_name(f"{file.stem}.claims.toml").write_text(recipe)
    own = load([str(file)], only=["own"]).example("own")
    subject = Subject(own, own.variants[0], CPU, "stand-in")
    assert built_as_its_document_says.applies(subject)
    found = list(built_as_its_document_says.measure(subject))
    return [m.message for m in found if not m.holds]


def test_a_plugin_that_follows_its_recipe_passes(tmp_path):
    assert judged(tmp_path) == []


CHANGES = {
    "the rate of dropout": ("Dropout(0.25)", "Dropout(0.3)", "layer 3 is Dropout(p=0.3)"),
    "another activation": (
        "torch.relu(", "nn.functional.gelu(", "a forward pass lacks relu and has gelu besides",
    ),
    "a scale": ("self.first(x)", "self.first(2 * x)", "a forward pass has mul besides; the doc"),
    "another sigmoid": (
        "torch.sigmoid(", "nn.functional.hardsigmoid(",
        "a forward pass lacks sigmoid; the document",
    ),
    "Nesterov": ("momentum=0.9", "momentum=0.9, nesterov=True", "nesterov"),
    "another optimizer": (
        "torch.optim.SGD(parameters, lr=lr, momentum=0.9)",
        "torch.optim.Adam(parameters, lr=lr)", "optimizer is ['Adam']",
    ),
    "a penalty by the optimizer": ("momentum=0.9", "momentum=0.9, weight_decay=0.01", "weight_dec"),
    "a wider start": ("rng.normal(0, 0.5, (4, 3))", "rng.normal(0, 0.7, (4, 3))", "first.weight"),
    "a start of uniform numbers": (
        "rng.normal(0, 0.5, (4, 3))", "rng.uniform(-0.866, 0.866, (4, 3))", "first.weight",
    ),
    "a bias that is not zero": ("np.zeros(1)", "np.full(1, 0.1)", "last.bias"),
    "a start that is not used": (
        "problem.load(Net())", "problem.load(Net()); nn.init.ones_(model.last.weight)",
        "begin with other values than the start is ['last.weight']",
    ),
    "a sum for a mean": ("loss_of = nn.BCELoss()", "loss_of = nn.BCELoss(reduction='sum')", "loss"),
    "an optimizer for each update": (
        "        output = model(x)",
        "        optimizer = OPTIMIZER(model.parameters(), problem.lr)\n        output = model(x)",
        "a new optimizer for each update is True",
    ),
    "another epoch": ("epochs=2", "epochs=3", "epochs of the protocol is 3, expected 2"),
    "no order of its own": ("batch_size=10", "batch_size=10, shuffle=False", "shuffle of the"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_from_the_recipe_is_named(tmp_path, change):
    old, new, says = CHANGES[change]
    assert any(says in message for message in judged(tmp_path, old, new))


REWRITES = {
    "linear by a product": ("self.first(x)", "x @ self.first.weight.T + self.first.bias"),
    "linear as a function": (
        "self.first(x)", "nn.functional.linear(x, self.first.weight, self.first.bias)",
    ),
    "linear by einsum": (
        "self.first(x)", "torch.einsum('ij,kj->ik', x, self.first.weight) + self.first.bias",
    ),
    "relu as a method": ("torch.relu(self.first(x))", "self.first(x).relu_()"),
    "a reshape": ("self.first(x)", "self.first(x.view(-1, 3))"),
}  # fmt: skip


@pytest.mark.parametrize("rewrite", REWRITES)
def test_another_way_to_write_the_same_is_no_difference(tmp_path, rewrite):
    old, new = REWRITES[rewrite]
    assert judged(tmp_path, old, new) == []


WRONG = {
    "no section": ('section = "1"\n', "", "it has no section"),
    "a misspelt key": ("loss =", "lost =", "unknown key 'lost'; did you mean 'loss'?"),
    "no layer of torch": ("Linear(3, 4)", "Lineal(3, 4)", "'Lineal(3, 4)' makes nothing of"),
    "no call": ("BCELoss()", "BCELoss", "'BCELoss' makes nothing of torch.nn"),
    "no distribution": ("N(0, 1/4)", "normal", "'normal' is no start; write 'N(0, VARIANCE)'"),
    "no variance": ("1/4", "wide", "'N(0, wide)' has no variance that is a number or a fraction"),
    "an optimizer without a kind": ('kind = "SGD", ', "", "optimizer has no kind"),
    "nothing of a protocol": ("batch_size", "batchsize", "protocol has batchsize; there are:"),
    "layers that are no list": ('["Linear(3, 4)", "Linear(4, 1)", "Dropout(0.25)"]', '"Linear"',
                                "layers must not be empty, nor another kind of value"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_recipe_that_says_nothing_sensible_is_refused_with_its_place(tmp_path, case):
    old, new, says = WRONG[case]
    file = tmp_path / "wrong.claims.toml"
    file.write_text(RECIPE.replace(old, new))
    with pytest.raises(ClaimsError) as refused:
        claims.read(file)
    assert says in str(refused.value)
    assert f"{file}, recipe 1: " in str(refused.value)


def test_a_recipe_may_be_of_some_variants_only(tmp_path):
    named = RECIPE.replace("section", 'variants = ["another"]\nsection')
    with pytest.raises(AssertionError):
        judged(tmp_path, recipe=named)


LAW = """
[[recipe]]
section = "1"
rows = [30, 10]
law = { "x0" = "N(0, 1)", "abs(x1 - x2) | y == 1" = "U(0, 9)" }
"""


def test_rows_that_a_document_draws_follow_its_law(tmp_path):
    [uniform] = judged(tmp_path, recipe=LAW)
    assert uniform.startswith("abs(x1 - x2) | y == 1 of the ")
    assert "does not follow U(0, 9): between 0.2156 and 2.933, mean 1.259" in uniform


def test_rows_that_are_drawn_are_not_drawn_twice(tmp_path):
    law = LAW.replace(', "abs(x1 - x2) | y == 1" = "U(0, 9)"', "")
    split = "Rows(x[30:], y[30:])"
    [repeated] = judged(tmp_path, split, split.replace("30:", "20:30"), recipe=law)
    assert repeated == "10 of the 40 rows occur before, which rows drawn anew never do"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("N(0, 1)", "N(0 1)", "'N(0 1)' is no law; write 'N(MEAN, VARIANCE)' or 'U(LOW, HIGH)'"),
        ('"x0"', '"z0"', "'z0' has z0; there are x0, x1, …, y, hypot"),
        ('"x0"', '"__import__(x0)"', "has __import__; there are"),
        ('"x0"', '"x0.real"', "has Attribute; there are"),
        ('"x0"', '"x0 +"', "'x0 +' is no expression of x0, x1, … and y"),
    ],
)
def test_a_law_that_cannot_be_read_is_refused(tmp_path, old, new, says):
    file = tmp_path / "wrong.claims.toml"
    file.write_text(LAW.replace(old, new))
    with pytest.raises(ClaimsError) as refused:
        claims.read(file)
    assert says in str(refused.value)
