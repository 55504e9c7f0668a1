"""A replayed run has the numbers of the eager one, or is eager and says why.

The graphs are those of :mod:`fakes.graphs`, on the CPU; no test here says what a GPU computes.
"""

from dataclasses import replace
from functools import partial
from importlib import import_module

import pytest
import torch
from click.testing import CliRunner
from fakes.graphs import Moved, Recording, Refused, StandIn
from fakes.sound import EXAMPLE, PROTOCOL, Net, Wide
from torch import nn

from refimpl import Execution, ModuleVariant, Stop, Variant
from refimpl.authoring.linting import lint
from refimpl.cli.main import cli
from refimpl.cli.rendering import linted_text
from refimpl.composition import on_device
from refimpl.loading import registry
from refimpl.training import checkpoint, replaying
from refimpl.training.graphs import graphs_on
from refimpl.training.loop import steps_of, train
from refimpl.training.problem import pose
from refimpl.training.replaying import NOT_PLAIN, OWN_LOOP, Replays, unexplained, updating
from refimpl.training.updates import CHANGE, Seen

EPOCHS = 14
"""Of three updates: two of three rows, which are replayed, and one of two rows."""

REPLAYED = 2 * EPOCHS - 3
"""The first update is eager, and two are made both ways."""

SGD = torch.optim.SGD
ADAM = partial(torch.optim.Adam, foreach=False)


def made(build=Net, optimizer=SGD, steps=None, **changes):
    """A variant of the sound example's points."""
    protocol = replace(PROTOCOL, **{"epochs": EPOCHS, **changes})
    own = ModuleVariant("made", build=build, optimizer=optimizer, protocol=protocol)
    if steps is not None:
        own = Variant("made", steps, build=build, protocol=protocol)
    return replace(EXAMPLE, variants=(own,)).variants[0]


@pytest.fixture
def on(monkeypatch):
    """Lets the CPU have graphs for the next runs."""

    def use(graphs):
        monkeypatch.setattr(replaying, "graphs_on", lambda device: graphs)
        return graphs

    return use


def state_of(history):
    """The parameters, buffers and optimizer's state at the end of a run, and its figures."""
    last = checkpoint.take(history.last, history.steps)
    figures = [record.metrics for record in history.epochs]
    return last.parameters, last.buffers, last.optimizer, figures


def assert_same(one, other, tolerance=0.0):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key], tolerance)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs, tolerance)
    elif hasattr(one, "dtype") or isinstance(one, float):
        mine, theirs = torch.as_tensor(one), torch.as_tensor(other)
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)
    else:
        assert one == other


def both(variant, on, graphs=None, tolerance=0.0, **changes):
    """The run with these graphs, after it was seen to be the eager run."""
    problem = pose(variant, seed=0, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replaying, "graphs_on", graphs_on)
        eager = train(variant, problem)
    assert eager.replays is None
    on(graphs or StandIn())
    history = train(variant, problem)
    assert_same(state_of(history), state_of(eager), tolerance)
    return history


# --- the same numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("linear-regression-1d/module", 60),
        ("mnist-logistic/cnn", 10),
    ],
)
def test_a_replayed_run_of_an_example_is_the_eager_one(name, epochs, on):
    example, _, variant = name.partition("/")
    chosen = registry.load(only=[example]).example(example).variant(variant)
    protocol = replace(chosen.protocol, epochs=epochs, stand_in_epochs=None)
    graphs = StandIn()
    history = both(replace(chosen, protocol=protocol), on, graphs)
    assert history.replays.why_not == ""
    assert history.replays.replayed > history.steps / 2
    assert graphs.captures == 1 + (epochs >= 10)  # the step, and the evaluation


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("titanic-dnn/script", OWN_LOOP),
        ("ring-dnn/high", OWN_LOOP),
    ],
)
def test_a_run_that_cannot_be_replayed_says_why(name, reason, on):
    example, _, variant = name.partition("/")
    chosen = registry.load(only=[example]).example(example).variant(variant)
    protocol = replace(chosen.protocol, epochs=2, stand_in_epochs=None)
    history = both(replace(chosen, protocol=protocol), on)
    assert (history.replays.replayed, history.replays.why_not) == (0, reason)


def test_short_last_batches_are_eager(on):
    history = both(made(), on)
    assert (history.replays.replayed, history.replays.why_not) == (REPLAYED, "")


@pytest.mark.parametrize(
    "optimizer", [partial(SGD, momentum=0.9, nesterov=True), torch.optim.Adam, torch.optim.AdamW]
)
def test_an_optimizer_with_a_state_goes_on_from_it(optimizer, on):
    assert both(made(optimizer=optimizer), on).replays.replayed == REPLAYED


class Normalised(nn.Sequential):
    """With buffers that each update changes."""

    def __init__(self):
        super().__init__(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))


def test_buffers_are_updated_too(on):
    assert both(made(Normalised), on).replays.replayed == REPLAYED


def test_dropout_draws_what_the_eager_run_draws(on):
    history = both(made(Wide, learning_rate=0.01), on)
    assert history.replays.replayed == REPLAYED
    without = both(made(Wide, learning_rate=0.01), on, dropout=False)
    assert without.final != history.final


def test_a_run_that_ends_early_leaves_the_optimizer_as_it_was_made(on, on_cpu_too):
    stop = Stop("loss", patience=1)
    history = both(made(optimizer=ADAM, stop=stop, learning_rate=0.5), on, tolerance=1e-4)
    assert 0 < history.replays.replayed < REPLAYED


# --- optimizers that count -----------------------------------------------------------------------


@pytest.fixture
def on_cpu_too(monkeypatch):
    """Torch lets an optimizer be capturable on a GPU alone; and no fused kernels, as on a GPU."""
    for name in ("adam", "rmsprop", "nadam"):
        module = import_module(f"torch.optim.{name}")
        monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda: ["cpu"])
    monkeypatch.setattr("refimpl.training.fast_kernels.fuse", lambda optimizer: None)


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [
        (ADAM, "float32"),
        (ADAM, "float64"),
        (partial(torch.optim.RMSprop, foreach=False), "float64"),
        (partial(torch.optim.NAdam, foreach=False), "float32"),
    ],
)
def test_a_capturable_optimizer_rounds_a_little_differently(optimizer, precision, on, on_cpu_too):
    tolerance = 1e-4 if precision == "float32" else 1e-12
    history = both(made(optimizer=optimizer), on, tolerance=tolerance, precision=precision)
    assert (history.replays.replayed, history.replays.why_not) == (REPLAYED, "")
    (group,) = history.last.optimizer.param_groups
    assert group["capturable"] is False
    assert {float(own["step"]) for own in history.last.optimizer.state.values()} == {history.steps}


def test_a_count_that_stands_still_is_found(on, on_cpu_too):
    def without_counting(recording):
        counts = {"aten::_foreach_add_", "aten::add_"}
        return without(lambda name, args: name in counts and args[0].ndim == 0)(recording)

    history = both(made(optimizer=ADAM), on, StandIn(without_counting))
    assert "state of the optimizer" in history.replays.why_not or CHANGE in history.replays.why_not


@pytest.mark.parametrize("optimizer", [torch.optim.Adagrad, torch.optim.LBFGS])
def test_an_optimizer_that_cannot_be_captured_is_named(optimizer):
    parameter = nn.Parameter(torch.zeros(2))
    why = replaying.uncapturable(optimizer([parameter], lr=0.1))
    assert why == f"{optimizer.__name__} has no capturable="


# --- what is eager -------------------------------------------------------------------------------


class Waits(Net):
    """Asks for a number in each step."""

    def forward(self, x):
        return super().forward(x) * (1.0 if x.sum().item() < 1e9 else 2.0)


class Chooses(Net):
    """Has as many rows as there are positive numbers."""

    def forward(self, x):
        return super().forward(x) + 0.0 * len(torch.nonzero(x > 0))


class Counts(Net):
    """Has a factor in Python that changes a little with each step."""

    def __init__(self):
        super().__init__()
        self.factor = 1.0

    def forward(self, x):
        if self.training:
            self.factor += 1e-9
        return super().forward(x) * self.factor


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Waits, "its step cannot be captured: operation not permitted"),
        (Chooses, "its step cannot be captured: operation not permitted"),
        (Counts, "a step changes what its modules keep in Python"),
    ],
)
def test_a_step_that_no_graph_can_hold_leaves_the_run_eager(build, reason, on):
    history = both(made(build), on)
    assert history.replays.why_not.startswith(reason)
    assert history.replays.replayed == 0


@pytest.mark.parametrize("at", ["warm_up", "capture"])
def test_a_failure_after_updates_leaves_the_state_as_it_was(at, on):
    class Fails(StandIn):
        """Out of memory, after the work was done."""

    def fail(self, work):
        work()
        raise RuntimeError("out of memory")

    setattr(Fails, at, fail)
    history = both(made(Wide, torch.optim.Adam, learning_rate=0.01), on, Fails())
    assert history.replays.why_not == "its step cannot be captured: out of memory"


def test_a_capture_that_fails_ends_all_replays(on):
    """Other graphs of the run would draw from a state that the generator no longer has."""

    class Fails(StandIn):
        def capture(self, work):
            if self.captures:
                work()
                raise RuntimeError("out of memory")
            return super().capture(work)

    history = both(made(Wide, learning_rate=0.01), on, Fails())
    assert history.replays.why_not == "evaluation: it cannot be captured: out of memory"
    assert 0 < history.replays.replayed < REPLAYED / 2


@pytest.mark.parametrize("changes", [{"clip": 1.0}, {"accumulate": 2}])
def test_protocols_that_do_more_than_update_are_eager(changes, on):
    history = both(made(epochs=2 * EPOCHS, **changes), on)
    assert (history.replays.replayed, history.replays.why_not) == (0, NOT_PLAIN)


def by_updates(problem, build=Net, half_way=lambda optimizer, net: None):
    """A loop that leaves its updates to the framework, and half way may change something."""
    net = problem.load(build())
    optimizer = problem.resume(SGD(net.parameters(), lr=problem.lr))
    loss = nn.MSELoss()
    for epoch in problem.epochs():
        with updating(net, net, loss, optimizer) as update:
            for x, y in problem.epoch_batches(epoch):
                yield update(x, y)
        if epoch == EPOCHS // 2:
            half_way(optimizer, net)


def test_the_updates_of_a_loop_are_replayed_from_epoch_to_epoch(on):
    graphs = StandIn()
    assert both(made(steps=by_updates), on, graphs).replays.replayed == REPLAYED
    assert graphs.captures == 2


def slower(optimizer, net):
    optimizer.param_groups[0]["lr"] *= 0.99


def sparser(optimizer, net):
    net.dropout.p = 0.9


def frozen(optimizer, net):
    net.lin1.requires_grad_(False)


@pytest.mark.parametrize("half_way", [slower, sparser, frozen])
def test_what_changes_within_the_run_ends_the_replays(half_way, on):
    steps = partial(by_updates, build=Wide, half_way=half_way)
    history = both(made(Wide, steps=steps, learning_rate=0.01), on)
    assert history.replays.why_not == "rates, modes or what is trained change during it"
    assert 0 < history.replays.replayed < REPLAYED


def test_a_run_is_only_replayed_where_only_its_figures_are_needed(on):
    variant, graphs = made(), on(StandIn())
    wrapped = Execution("wrapped", "wrapped", wrap=lambda module: module)
    for history in (
        train(variant, pose(variant, seed=0), watched=True),
        train(variant, pose(variant, seed=0, execution=wrapped)),
    ):
        assert history.replays is None
    assert len(list(steps_of(variant, pose(variant, seed=0)))) == 3 * EPOCHS
    assert (graphs.captures, graphs.replays) == (0, 0)


def test_a_short_run_is_eager(on):
    short = replace(made(), protocol=PROTOCOL)
    assert both(short, on).replays.why_not == "it has only 12 updates"


def test_the_cpu_has_no_graphs():
    assert graphs_on(torch.device("cpu")) is None
    assert graphs_on(torch.device("meta")) is None


# --- graphs that are wrong -----------------------------------------------------------------------


def without(left_out):
    """A graph that lacks operations."""

    def faulty(recording):
        kept = [
            own for own in recording.operations
            if not left_out(own[0]._schema.name, own[1])
        ]  # fmt: skip
        recording.operations[:] = kept
        return recording.replay

    return faulty


def seeded(recording):
    """A generator that was not registered: each replay draws the same."""

    def replay():
        torch.default_generator.manual_seed(7)
        recording.replay()

    return replay


def scaled(recording):
    """A rate that is a thousandth too large."""

    def replay():
        before = [(tensor, tensor.detach().clone()) for tensor, *_ in recording.before.values()]
        recording.replay()
        with torch.no_grad():
            for tensor, was in before:
                if tensor.requires_grad:
                    tensor.copy_(was + 1.001 * (tensor - was))

    return replay


NO_UPDATE = without(lambda name, args: "_fused" in name)
NO_BACKWARD = without(lambda name, args: "mse_loss_backward" in name)


@pytest.mark.parametrize("faulty", [NO_UPDATE, NO_BACKWARD, seeded, scaled])
def test_a_graph_that_computes_something_else_is_not_used(faulty, on):
    graphs = StandIn(faulty)
    history = both(made(Wide, learning_rate=0.01), on, graphs)
    assert history.replays.why_not.startswith("its graph computes another ")
    assert history.replays.replayed == 0
    assert graphs.replays <= 2


def test_inputs_that_are_not_copied_are_found(on, monkeypatch):
    monkeypatch.setattr(replaying, "_fill", lambda place, value: place)
    history = both(made(), on)
    assert history.replays.why_not.startswith("its graph computes another loss")


def test_a_loss_that_is_read_before_the_replay_is_found(on, monkeypatch):
    step_of = replaying.Recorded.step

    def too_early(self, x, y):
        loss = self._loss.clone()
        step = step_of(self, x, y)
        step.loss = loss
        return step

    monkeypatch.setattr(replaying.Recorded, "step", too_early)
    history = both(made(), on)
    assert history.replays.why_not.startswith("its graph computes another loss")


def test_steps_have_tensors_of_their_own(on):
    """Those of the graph are overwritten by the next replay."""
    variant = made()
    graphs = StandIn()
    problem = pose(variant, seed=0).but(replays=Replays(graphs))
    steps = list(steps_of(variant, problem))
    eager = list(steps_of(variant, pose(variant, seed=0)))
    assert problem.replays.replayed == REPLAYED
    assert not any(step.loss.requires_grad or step.output.requires_grad for step in steps)
    for mine, theirs in zip(steps, eager, strict=True):
        assert_same([mine.loss.detach(), mine.output.detach()], [theirs.loss, theirs.output])


def test_gradients_are_those_of_the_step_that_is_shown(on):
    variant = made()
    problem = pose(variant, seed=0).but(replays=Replays(StandIn()))
    pairs = zip(steps_of(variant, problem), steps_of(variant, pose(variant, seed=0)), strict=True)
    for mine, theirs in pairs:
        assert_same(mine.used_gradients(), theirs.used_gradients())


def test_an_evaluation_that_computes_something_else_is_not_used(on):
    def only_once(recording):
        done = []

        def replay():
            if not done:
                recording.replay()
            done.append(None)

        return replay

    class Stale(StandIn):
        """Its first graph is the step's, its second the evaluation's."""

        def capture(self, work):
            self.faulty = only_once if self.captures else None
            return super().capture(work)

    history = both(made(), on, Stale())
    assert history.replays.why_not == "evaluation: its graph computes other numbers"
    assert history.replays.replayed == REPLAYED


# --- the rule ------------------------------------------------------------------------------------


def seen(value):
    return Seen({"gradient": [torch.tensor([1.0, value])]})


@pytest.mark.parametrize(("graph", "same"), [(0.5, True), (0.5 + 3e-6, True), (0.5 + 9e-6, False)])
def test_where_two_eager_steps_differ_a_graph_may_differ_a_little_more(graph, same):
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    why = unexplained(seen(0.5), seen(graph), seen(0.5 + 1e-6), optimizer)
    assert (why == "") is same


def test_where_eager_steps_have_the_same_bits_so_must_the_graph():
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    why = unexplained(seen(0.5), seen(0.5 + 1e-7), seen(0.5), optimizer)
    assert why.startswith("its graph computes another gradient")
    assert unexplained(seen(0.5), seen(float("nan")), seen(0.5), optimizer)


# --- what is said ---------------------------------------------------------------------------------


def test_lint_says_which_steps_are_not_replayed():
    assert lint(EXAMPLE).eager == {"scratch": OWN_LOOP}
    variant = replace(EXAMPLE.variant("module"), optimizer=torch.optim.Adagrad)
    linted = lint(replace(EXAMPLE, variants=(variant,)))
    assert linted.eager == {"module": "Adagrad has no capturable="}
    assert linted_text(EXAMPLE, linted, False).endswith(
        "not replayed as one graph a step on a GPU: module (Adagrad has no capturable=)"
    )


def test_a_run_says_what_was_not_replayed(on):
    on(StandIn())
    asked = ["run", "titanic-dnn", "--epochs", "2"]
    told = "not replayed as one graph a step: its plugin runs its own loop"
    assert told in CliRunner().invoke(cli, asked).output.splitlines()
    on(None)
    assert "not replayed" not in CliRunner().invoke(cli, asked).output


# --- a GPU, where there is one -------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("optimizer", [partial(SGD, momentum=0.9), torch.optim.Adam])
@pytest.mark.parametrize("build", [Net, Normalised, Wide])
def test_a_gpu_replays_the_run_that_it_makes_eagerly(build, optimizer):
    variant = made(build, optimizer, learning_rate=0.01)
    problem = pose(variant, seed=0, execution=on_device("cuda"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replaying, "graphs_on", lambda device: None)
        eager = train(variant, problem)
    history = train(variant, problem)
    assert (history.replays.replayed, history.replays.why_not) == (REPLAYED, "")
    assert_same(state_of(history), state_of(eager), tolerance=1e-4)


# --- the stand-in --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0]),
        lambda x: torch.nonzero(x),
        lambda x: x[x > 0],
        lambda x: x.to("meta"),
        lambda x: bool((x > 0).all()),
    ],
)
def test_the_stand_in_refuses_what_a_capture_refuses(work):
    x = torch.ones(3)
    with pytest.raises(Refused):
        StandIn().capture(lambda: work(x))


def test_the_stand_in_computes_nothing_while_it_captures():
    x, out = torch.ones(3), []
    replay = StandIn().capture(lambda: out.append(x.add_(1) * 2))
    assert x.tolist() == [1, 1, 1]
    assert out[0].isnan().all()
    replay()
    replay()
    assert x.tolist() == [3, 3, 3]
    assert out[0].tolist() == [6, 6, 6]


def test_the_stand_in_raises_where_a_tensor_has_moved():
    x = torch.ones(3)
    replay = StandIn().capture(lambda: x.add_(1))
    x.data = torch.ones(3)
    with pytest.raises(Moved):
        replay()
    assert Recording.__doc__
