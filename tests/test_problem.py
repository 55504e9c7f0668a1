"""A problem holds everything of a run that is not the computation, and no state."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from fakes.sound import COUNT, POINTS, PROTOCOL, TRAINING, Net, like
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from refimpl import DataSet, Execution, Rows, Splits
from refimpl.contract import Protocol
from refimpl.data import philox
from refimpl.errors import ContractError
from refimpl.training.checkpoint import Checkpoint
from refimpl.training.problem import Problem, pose, start_values

SCRATCH, MODULE = like("scratch"), like("module")


def numbered(count):
    """A data set whose row i is i."""
    rows = np.arange(float(count))[:, None]
    return DataSet(f"numbered {count}", lambda: Splits(Rows(rows, rows), Rows(rows, rows)))


def problem_of(count=10, checkpoint=0, seed=0, **protocol):
    protocol = Protocol(**{"epochs": 3, "learning_rate": 0.1, **protocol})
    at = Checkpoint(checkpoint, {}) if checkpoint else None
    return Problem(numbered(count), "stand-in", protocol, {}, seed=seed, checkpoint=at)


def rows_of(batches):
    """The numbers of the rows of each batch."""
    return [xb.flatten().int().tolist() for xb, _ in batches]


def flat(batches):
    return list(chain.from_iterable(batches))


# --- batches -------------------------------------------------------------------------------------

sizes = st.integers(1, 12)


@given(count=sizes, batch_size=st.none() | st.integers(1, 14), shuffle=st.booleans())
def test_every_epoch_reads_every_row_once_in_full_batches_but_for_the_last(
    count, batch_size, shuffle
):
    problem = problem_of(count, batch_size=batch_size, shuffle=shuffle)
    for epoch in problem.epochs():
        batches = rows_of(problem.epoch_batches(epoch))
        assert sorted(flat(batches)) == list(range(count))
        assert {len(batch) for batch in batches[:-1]} <= {problem.batch_size}
        assert len(batches) == problem.steps_per_epoch
        assert flat(batches) == problem.order(epoch)


@given(count=sizes, batch_size=sizes, shuffle=st.booleans(), data=st.data())
def test_a_problem_with_a_checkpoint_reads_the_batches_still_to_come(
    count, batch_size, shuffle, data
):
    options = {"batch_size": batch_size, "shuffle": shuffle}
    whole = rows_of(problem_of(count, **options).batches())
    done = data.draw(st.integers(0, len(whole)))
    resumed = problem_of(count, checkpoint=done, **options)
    assert rows_of(resumed.batches()) == whole[done:]
    assert flat(resumed.order(e) for e in resumed.epochs()) == flat(whole[done:])


def test_inputs_stay_beside_their_targets():
    for xb, yb in problem_of(batch_size=3).batches():
        assert torch.equal(xb, yb)


def test_a_seed_is_one_order_and_every_epoch_has_another():
    first = rows_of(problem_of(batch_size=4).batches())
    assert first == rows_of(problem_of(batch_size=4).batches())
    assert first != rows_of(problem_of(batch_size=4, seed=1).batches())
    assert first[:3] != first[3:6]


def test_the_order_does_not_depend_on_torchs_generator():
    torch.manual_seed(1)
    first = rows_of(problem_of(batch_size=4).batches())
    torch.manual_seed(2)
    assert rows_of(problem_of(batch_size=4).batches()) == first


@pytest.mark.parametrize("options", [{"shuffle": False, "batch_size": 4}, {"batch_size": None}])
def test_rows_that_are_not_shuffled_keep_their_order(options):
    batches = rows_of(problem_of(**options).batches())
    assert flat(batches) == 3 * list(range(10))


@given(count=sizes, batch_size=sizes, shards=st.integers(1, 3), shuffle=st.booleans())
def test_the_shards_of_every_batch_make_up_the_batch(count, batch_size, shards, shuffle):
    whole = problem_of(count, batch_size=batch_size, shuffle=shuffle)
    smallest = len(rows_of(whole.epoch_batches(0))[-1])
    if shards > min(smallest, whole.batch_size):
        return
    parts = [rows_of(whole.but(shard=(r, shards)).batches()) for r in range(shards)]
    for batch, *pieces in zip(rows_of(whole.batches()), *parts, strict=True):
        assert sorted(batch) == sorted(flat(pieces))


# --- tensors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, torch.float32),
        ({"protocol": replace(PROTOCOL, dtype="float64")}, torch.float64),
        ({"execution": Execution("f64", "", dtype="float64")}, torch.float64),
        (
            {"precision": "float32", "execution": Execution("f64", "", dtype="float64")},
            torch.float32,
        ),
    ],
)
def test_everything_that_floats_is_in_the_dtype_of_the_run(changes, expected):
    problem = pose(SCRATCH).but(**changes)
    xb, yb = next(problem.batches())
    made = [problem.train.x, problem.valid.y, xb, yb, *problem.start.values()]
    made += problem.load(Net()).parameters() if problem.values.keys() == {"lin"} else []
    assert {tensor.dtype for tensor in made} == {expected}


def test_classes_stay_whole_numbers():
    rows = Rows(np.zeros((3, 1)), np.array([0, 1, 2]))
    problem = problem_of().but(data=DataSet("classes", lambda: Splits(rows)))
    assert problem.train.y.dtype == torch.int64
    assert problem.valid is None


def test_validation_rows_are_in_the_order_they_are_read_unless_shuffled():
    plain, shuffled = problem_of(), problem_of(shuffle_valid=True)
    assert plain.valid.x.flatten().tolist() == list(range(10))
    assert shuffled.valid.x.flatten().tolist() != list(range(10))
    assert sorted(shuffled.valid.x.flatten().tolist()) == list(range(10))
    assert torch.equal(shuffled.valid.x, shuffled.valid.y)
    assert torch.equal(shuffled.valid.x, problem_of(shuffle_valid=True).valid.x)


def test_validation_batches_have_the_validation_rows_in_order_beside_their_targets():
    problem = problem_of(valid_batch_size=4, shuffle_valid=True)
    batches = list(problem.valid_batches())
    assert [len(xb) for xb, _ in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([xb for xb, _ in batches]), problem.valid.x)
    assert torch.equal(torch.cat([yb for _, yb in batches]), problem.valid.y)
    assert [len(xb) for xb, _ in problem_of(batch_size=6).valid_batches()] == [6, 4]


def test_without_validation_rows_there_are_no_validation_batches():
    rows = Rows(np.zeros((3, 1)), np.zeros((3, 1)))
    problem = problem_of().but(data=DataSet("training rows", lambda: Splits(rows)))
    assert list(problem.valid_batches()) == []


def test_the_fakes_have_the_rows_that_the_tests_reckon_with():
    problem = pose(SCRATCH)
    assert (len(problem.train), len(problem.valid)) == (TRAINING, COUNT - TRAINING)
    assert problem.data is POINTS


# --- start ---------------------------------------------------------------------------------------


def test_start_values_are_fresh_leaves_each_time_they_are_asked_for():
    problem = pose(SCRATCH, seed=0)
    first, second = problem.start, problem.start
    with torch.no_grad():
        first["weights"].add_(1.0)
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in first.values())
    assert not torch.equal(first["weights"], second["weights"])
    assert torch.equal(second["weights"], problem.start["weights"])


def test_without_a_seed_the_start_is_the_one_that_the_document_prints():
    printed = {"weights": np.array([[1.0], [2.0]]), "bias": np.array([3.0])}
    variant = like("scratch", documented_start=printed)
    assert pose(variant).start["weights"].flatten().tolist() == [1.0, 2.0]
    assert pose(variant, seed=0).start["weights"].flatten().tolist() != [1.0, 2.0]
    assert pose(variant).seed == 0


def test_a_module_without_a_start_of_its_own_starts_as_torch_starts_it():
    values = start_values(MODULE, 3)
    assert {name: value.shape for name, value in values.items()} == {
        "lin.weight": (1, 2),
        "lin.bias": (1,),
    }
    assert np.abs(np.concatenate([v.ravel() for v in values.values()])).max() <= 1 / np.sqrt(2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": None}, "has no start= to begin from"),
        ({"data": None}, "has no data or no protocol"),
        ({"protocol": None}, "has no data or no protocol"),
    ],
)
def test_a_variant_that_cannot_be_posed_is_named(change, said):
    with pytest.raises(ContractError, match=f"variant 'scratch' {said}"):
        pose(replace(SCRATCH, **change))


def test_a_problem_is_not_changed_by_a_variation_of_it():
    problem = pose(SCRATCH, seed=0)
    assert problem.but(seed=5).seed == 5
    assert problem.seed == 0


# --- loading a module ----------------------------------------------------------------------------


def test_a_module_is_loaded_with_the_start_values():
    problem = pose(MODULE, seed=0)
    loaded = problem.load(Net())
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter.detach(), torch.tensor(problem.values[name]).float())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lin.weight": np.zeros((1, 2))}, r"values for \['lin\.weight'\] but Net has parameters"),
        (
            {"lin.weight": np.zeros((2, 1)), "lin.bias": np.zeros(1)},
            r"the start of lin\.weight has shape \(2, 1\) but the parameter of Net has \(1, 2\)",
        ),
    ],
)
def test_values_that_do_not_fit_the_module_are_refused(values, said):
    with pytest.raises(ContractError, match=said):
        pose(MODULE).but(values=values).load(Net())


def test_the_execution_wraps_the_module_with_its_start_loaded():
    seen = []

    def wrap(module):
        seen.append(module.lin.bias.item())
        return nn.Sequential(module)

    problem = pose(MODULE, seed=0).but(execution=Execution("wrapped", "", wrap=wrap))
    assert isinstance(problem.load(Net()), nn.Sequential)
    assert seen == [pytest.approx(float(problem.values["lin.bias"][0]))]


class Dropping(nn.Module):
    """Dropout as a layer, between recurrent layers, and as a function."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.rnn = nn.RNN(2, 3, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.rnn(self.drop(x))[0]


def test_dropout_is_off_where_trajectories_are_compared_in_every_layer_that_has_it():
    variant = like("module", build=Dropping, names={})
    x = torch.ones(4, 5, 2)
    on = pose(variant).load(Dropping())
    off = pose(variant, dropout=False).load(Dropping())
    assert not torch.equal(on(x), on(x))
    assert torch.equal(off(x), off(x))


def test_what_a_constructor_draws_does_not_move_the_draws_of_dropout():
    variant = like("module", build=Dropping, names={})
    problem, x = pose(variant), torch.ones(4, 5, 2)
    with torch.random.fork_rng():
        first = problem.load(Dropping())(x)
        nn.Linear(100, 100)
        assert torch.equal(problem.load(Dropping())(x), first)
        assert not torch.equal(
            problem.but(seed=1, values=problem.values).load(Dropping())(x), first
        )


# --- the generator of everything -----------------------------------------------------------------


def test_a_key_is_one_stream_and_another_key_another():
    draws = {key: tuple(philox(*key).random(4)) for key in KEYS}
    assert len(set(draws.values())) == len(KEYS)
    assert draws == {key: tuple(philox(*key).random(4)) for key in KEYS}


KEYS = [
    ("start", 0),
    ("start", 1),
    ("order", 0, 0),
    ("order", 0, 1),
    ("order", 1, 0),
    ("dropout", 0),
]


def test_the_stream_is_the_same_on_every_platform_and_version():
    assert philox("start", 0).integers(2**32, size=3).tolist() == PINNED


PINNED = [2648421885, 1182088636, 2429363897]
