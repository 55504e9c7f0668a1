"""One network built in every way that torch offers, and what a module knows of its parts.

The CIFAR-2 net, eleven layers in a row, as a custom module; as a ``Sequential`` filled by name, by
position or from an ``OrderedDict``; from containers; from a ``ModuleList``; from a ``ModuleDict``.
The builds differ only in the names of their parts: each has 54,273 parameters, and from the same
weights all of them train identically, step by step.

The example also shows how parameters are registered: alone, in a list, in a dict; how a module's
children differ from all the modules below it; and a ``Linear`` written by hand, equal to torch's.

Source: 20-days, chapters 4-3, 6-1.
"""

import math
import re
from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from refimpl import (
    Erratum,
    Exact,
    Example,
    Facts,
    Layer,
    Protocol,
    Sizes,
    Variant,
    hookimpl,
    pose,
)
from refimpl.fixtures import cifar2

# --- the layers ----------------------------------------------------------------------------------


def layers() -> dict[str, nn.Module]:
    """The eleven layers of the net by name, in the order in which they are applied."""
    return {  # (N, 3, 32, 32)
        "conv1": nn.Conv2d(3, 32, kernel_size=3),  # (N, 32, 30, 30)
        "pool1": nn.MaxPool2d(kernel_size=2, stride=2),  # (N, 32, 15, 15)
        "conv2": nn.Conv2d(32, 64, kernel_size=5),  # (N, 64, 11, 11)
        "pool2": nn.MaxPool2d(kernel_size=2, stride=2),  # (N, 64, 5, 5)
        "dropout": nn.Dropout2d(p=0.1),
        "adaptive_pool": nn.AdaptiveMaxPool2d((1, 1)),  # (N, 64, 1, 1)
        "flatten": nn.Flatten(),  # (N, 64)
        "linear1": nn.Linear(64, 32),  # (N, 32)
        "relu": nn.ReLU(),
        "linear2": nn.Linear(32, 1),  # (N, 1)
        "sigmoid": nn.Sigmoid(),
    }


# --- a module of one's own -----------------------------------------------------------------------


class Net(nn.Module):
    """Each layer is an attribute, and ``forward`` determines their order."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, kernel_size=3)
        self.pool1 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=5)
        self.pool2 = nn.MaxPool2d(kernel_size=2, stride=2)
        self.dropout = nn.Dropout2d(p=0.1)
        self.adaptive_pool = nn.AdaptiveMaxPool2d((1, 1))
        self.flatten = nn.Flatten()
        self.linear1 = nn.Linear(64, 32)
        self.relu = nn.ReLU()
        self.linear2 = nn.Linear(32, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        x = self.pool1(self.conv1(x))
        x = self.pool2(self.conv2(x))
        x = self.adaptive_pool(self.dropout(x))
        x = self.flatten(x)
        x = self.relu(self.linear1(x))
        return self.sigmoid(self.linear2(x))


# --- Sequential: the order of the layers is the order of the computation -------------------------


def add_module() -> nn.Sequential:
    """Layers are added one by one, each under a name."""
    net = nn.Sequential()
    for name, layer in layers().items():
        net.add_module(name, layer)
    return net


def varargs() -> nn.Sequential:
    """Layers are given by position, and their positions are their names: "0" to "10"."""
    return nn.Sequential(*layers().values())


def ordered_dict() -> nn.Sequential:
    """Layers and their names are given together."""
    return nn.Sequential(OrderedDict(layers()))


# --- containers inside a module ------------------------------------------------------------------


class Containers(nn.Module):
    """Two sequences, one after the other: convolutions, then dense layers."""

    def __init__(self):
        super().__init__()
        every = list(layers().values())
        self.conv = nn.Sequential(*every[:6])
        self.dense = nn.Sequential(*every[6:])

    def forward(self, x):
        return self.dense(self.conv(x))


class InList(nn.Module):
    """A ``ModuleList`` only holds its layers; ``forward`` iterates over it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(layers().values())

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


BY_NAME = (
    "conv1", "pool1", "conv2", "pool2", "dropout", "adaptive_pool", "flatten", "linear1", "relu",
    "linear2", "sigmoid",
)  # fmt: skip


IN_DICT_ORDER = (
    "conv1", "pool", "conv2", "pool", "dropout", "adaptive", "flatten", "linear1", "relu",
    "linear2", "sigmoid",
)  # fmt: skip


ENTRIES = tuple(dict.fromkeys(IN_DICT_ORDER))


class InDict(nn.Module):
    """``forward`` selects entries of a ``ModuleDict`` by name: ten entries, one pool used twice."""

    def __init__(self):
        super().__init__()
        self.layers_dict = nn.ModuleDict(dict(zip(IN_DICT_ORDER, layers().values(), strict=True)))

    def forward(self, x):
        for name in IN_DICT_ORDER:
            x = self.layers_dict[name](x)
        return x


def outputs_agree() -> bool:
    """Whether every build gives the same outputs from the same weights, bit for bit."""
    problem = pose(EXAMPLE.variant(), seed=0, dropout=False)
    images = problem.train.x[:50]
    first = problem.load(Net()).eval()
    agree = []
    with torch.no_grad():
        for variant in EXAMPLE.variants:
            net = variant.build().eval()
            for parameter, value in zip(net.parameters(), first.parameters(), strict=True):
                parameter.copy_(value)
            agree.append(torch.equal(net(images), first(images)))
    return all(agree)


# --- how parameters are registered ---------------------------------------------------------------


class Holder(nn.Module):
    """One parameter by itself, two in a list, two in a dict."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2, 2))
        self.params_list = nn.ParameterList([nn.Parameter(torch.ones(8, i)) for i in (1, 2)])
        self.params_dict = nn.ParameterDict(
            {"a": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.zeros(2))}
        )


class InPlainList(nn.Module):
    """Layers in a plain Python list, where the module does not see them."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(2, 2), nn.Linear(2, 1)]


def parameters_of(kind: type[nn.Module]) -> list[str]:
    """Name and shape of each parameter registered by a module of this class."""
    return [f"{name} {tuple(p.shape)}" for name, p in kind().named_parameters()]


# --- a module and the modules below it -----------------------------------------------------------


class ReviewNet(nn.Module):
    """The IMDb net, an example of nested parts. It is not run here."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10000, 3, padding_idx=1)
        self.conv = nn.Sequential()
        self.conv.add_module("conv_1", nn.Conv1d(3, 16, kernel_size=5))
        self.conv.add_module("pool_1", nn.MaxPool1d(kernel_size=2))
        self.conv.add_module("relu_1", nn.ReLU())
        self.conv.add_module("conv_2", nn.Conv1d(16, 128, kernel_size=2))
        self.conv.add_module("pool_2", nn.MaxPool1d(kernel_size=2))
        self.conv.add_module("relu_2", nn.ReLU())
        self.dense = nn.Sequential()
        self.dense.add_module("flatten", nn.Flatten())
        self.dense.add_module("linear", nn.Linear(6144, 1))
        self.dense.add_module("sigmoid", nn.Sigmoid())


def counts() -> tuple[int, ...]:
    """Children are the direct parts; modules are the net itself and all parts at any depth."""
    net = ReviewNet()
    found = (net.children(), net.named_children(), net.modules(), net.named_modules())
    return tuple(len(list(parts)) for parts in found)


def names_of_children() -> list[str]:
    """The names of the direct parts."""
    return [name for name, _ in ReviewNet().named_children()]


def numbers_with_frozen_embedding() -> tuple[int, int]:
    """Trained and total parameter counts, with the embedding frozen by name."""
    net = ReviewNet()
    children = dict(net.named_children())
    children["embedding"].weight.requires_grad_(False)
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in net.parameters())


# --- a layer by hand -----------------------------------------------------------------------------


class Linear(nn.Module):
    """y = x Wᵀ + b, with the weight stored as (out, in)."""

    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        if bias:
            self.bias = nn.Parameter(torch.empty(out_features))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        """Weight and bias from U(−1/√in, 1/√in), the weight by the initialiser that torch uses."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight.shape[1])
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x):  # (N, in)
        return F.linear(x, self.weight, self.bias)  # (N, out)


def seeded(kind: type[nn.Module], bias: bool) -> nn.Module:
    """A layer 20 → 30 initialised with seed 0; the generator's state is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(20, 30, bias=bias)


def linear_by_hand_equals(bias: bool) -> tuple[tuple[int, ...], bool, bool]:
    """The output shape; whether start and output equal those of ``nn.Linear``, bit for bit."""
    by_hand, of_torch = seeded(Linear, bias), seeded(nn.Linear, bias)
    start, torch_start = by_hand.state_dict(), of_torch.state_dict()
    same_start = all(torch.equal(start[name], torch_start[name]) for name in torch_start)
    x = torch.linspace(-1, 1, 128 * 20).reshape(128, 20)
    y = by_hand(x)  # (128, 30)
    return tuple(y.shape), len(start) == len(torch_start) and same_start, y.equal(of_torch(x))


# --- functions and the classes around them -------------------------------------------------------

PAIRS = (
    "relu", "sigmoid", "tanh", "softmax", "linear", "conv2d", "max_pool2d", "dropout2d",
    "embedding", "binary_cross_entropy", "mse_loss", "cross_entropy",
)  # fmt: skip
"""The functions of ``nn.functional`` that the document lists beside their classes."""


def pairs_that_agree() -> list[str]:
    """The functions that give what their classes give, bit for bit."""
    x = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    rows, p, y = x.reshape(2, 48), torch.full((2, 1), 0.25), torch.tensor([[1.0], [0.0]])
    ids, classes = torch.tensor([[0, 2], [1, 1]]), torch.tensor([3, 40])
    linear, conv, embedding = nn.Linear(48, 5), nn.Conv2d(3, 2, 3), nn.Embedding(3, 4)
    both = (
        ("relu", F.relu(x), nn.ReLU()(x)),
        ("sigmoid", torch.sigmoid(x), nn.Sigmoid()(x)),
        ("tanh", torch.tanh(x), nn.Tanh()(x)),
        ("softmax", F.softmax(rows, dim=1), nn.Softmax(dim=1)(rows)),
        ("linear", F.linear(rows, linear.weight, linear.bias), linear(rows)),
        ("conv2d", F.conv2d(x, conv.weight, conv.bias), conv(x)),
        ("max_pool2d", F.max_pool2d(x, 2), nn.MaxPool2d(2)(x)),
        ("dropout2d", F.dropout2d(x, 0.5, training=False), nn.Dropout2d(0.5).eval()(x)),
        ("embedding", F.embedding(ids, embedding.weight), embedding(ids)),
        ("binary_cross_entropy", F.binary_cross_entropy(p, y), nn.BCELoss()(p, y)),
        ("mse_loss", F.mse_loss(p, y), nn.MSELoss()(p, y)),
        ("cross_entropy", F.cross_entropy(rows, classes), nn.CrossEntropyLoss()(rows, classes)),
    )
    return [name for name, function, module in both if torch.equal(function, module)]


def in_print(module: nn.Module) -> list[str]:
    """The names of the direct parts in the order in which they are printed."""
    return re.findall(r"^  \((\w+)\)", repr(module), re.MULTILINE)


# --- what the document states --------------------------------------------------------------------

ROWS = (
    ("Conv2d", (-1, 32, 30, 30), 896),
    ("MaxPool2d", (-1, 32, 15, 15), 0),
    ("Conv2d", (-1, 64, 11, 11), 51264),
    ("MaxPool2d", (-1, 64, 5, 5), 0),
    ("Dropout2d", (-1, 64, 5, 5), 0),
    ("AdaptiveMaxPool2d", (-1, 64, 1, 1), 0),
    ("Flatten", (-1, 64), 0),
    ("Linear", (-1, 32), 2080),
    ("ReLU", (-1, 32), 0),
    ("Linear", (-1, 1), 33),
    ("Sigmoid", (-1, 1), 0),
)
BY_INDEX = tuple(str(index) for index in range(11))
IN_CONTAINERS = (
    *(f"conv.{index}" for index in range(6)),
    *(f"dense.{index}" for index in range(5)),
)
IN_LIST = tuple(f"layers.{index}" for index in range(11))
IN_DICT = tuple(f"layers_dict.{name}" for name in IN_DICT_ORDER)


def keys(names: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of the state dict: weight and bias of the layers that have them."""
    trained = [name for name, (*_, count) in zip(names, ROWS, strict=True) if count]
    return tuple(f"{name}.{kind}" for name in trained for kind in ("weight", "bias"))


def facts(names: tuple[str, ...]) -> Facts:
    """The same layer table for every build, with that build's layer names."""
    return Facts(
        parameters=54273,
        layers=tuple(Layer(name, *row) for name, row in zip(names, ROWS, strict=True)),
        sizes=Sizes(input=0.011719, forward_backward=0.359634, parameters=0.207035, total=0.578388),
        state_dict=keys(names),
        output=(50, 1),
    )


def built(name, build, names) -> Variant:
    """A build with these layer names, trained by plain SGD."""
    return Variant(
        name,
        build=build,
        optimizer=torch.optim.SGD,
        ladder="build",
        names=dict(zip(keys(names), keys(BY_NAME), strict=True)),
        facts=facts(names),
    )


EXAMPLE = Example(
    name="model-building",
    title="One network built in seven ways",
    document="20-days",
    section="4-3, 6-1",
    data=cifar2.AIRPLANE_OR_AUTOMOBILE,
    protocol=Protocol(epochs=1, learning_rate=0.01, batch_size=50),
    loss=nn.BCELoss(),
    variants=(
        built("module", Net, BY_NAME),
        built("add-module", add_module, BY_NAME),
        built("varargs", varargs, BY_INDEX),
        built("ordered-dict", ordered_dict, BY_NAME),
        built("containers", Containers, IN_CONTAINERS),
        built("module-list", InList, IN_LIST),
        built("module-dict", InDict, IN_DICT),
    ),
    values=(
        Exact("same outputs from the same weights", outputs_agree, True),
        Exact(
            "parameters in a module, a list and a dict",
            partial(parameters_of, Holder),
            [
                "w (2, 2)",
                "params_list.0 (8, 1)",
                "params_list.1 (8, 2)",
                "params_dict.a (2, 2)",
                "params_dict.b (2,)",
            ],
        ),
        Exact("parameters in a plain list", partial(parameters_of, InPlainList), []),
        Exact("children and modules of the IMDb net, named and not", counts, (3, 3, 13, 13)),
        Exact("children of the IMDb net", names_of_children, ["embedding", "conv", "dense"]),
        Exact(
            "trained and all numbers with a frozen embedding",
            numbers_with_frozen_embedding,
            (10625, 40625),
        ),
        Exact(
            "output shape, start and outputs of a Linear by hand",
            partial(linear_by_hand_equals, bias=True),
            ((128, 30), True, True),
        ),
        Exact(
            "the same without a bias",
            partial(linear_by_hand_equals, bias=False),
            ((128, 30), True, True),
        ),
        Exact("entries of the ModuleDict", lambda: [*InDict().layers_dict], [*ENTRIES]),
        Exact(
            "parameters require their gradient",
            lambda: [p.requires_grad for p in Holder().parameters()],
            [True] * 5,
        ),
        Exact("functions that equal their classes", pairs_that_agree, PAIRS),
    ),
    errata=(
        Erratum(
            "a ModuleDict in print",
            says="a ModuleDict prints its entries in alphabetical order",
            today="prints them in the order in which they were inserted",
            since="torch>=1.7",
            holds=lambda: in_print(nn.ModuleDict({"b": nn.ReLU(), "a": nn.Tanh()})) == ["a", "b"],
        ),
        Erratum(
            "a ParameterList in print",
            says="a ParameterList prints its parameters as torch.FloatTensor",
            today="prints them as torch.float32",
            since="torch>=1.13",
            holds=lambda: "torch.FloatTensor" in repr(Holder().params_list),
        ),
        Erratum(
            "Flatten in print",
            says="Flatten() is printed as Flatten()",
            today="is printed as Flatten(start_dim=1, end_dim=-1)",
            since="torch>=1.7",
            holds=lambda: repr(nn.Flatten()) == "Flatten()",
        ),
    ),
)


@hookimpl
def refimpl_examples():
    """This module's example."""
    return [EXAMPLE]
