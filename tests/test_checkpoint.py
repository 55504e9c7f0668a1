"""Checkpoints: written whole or not at all, and read without unpickling anything but weights."""

import hashlib
import io
import pickle
import re

import numpy as np
import pytest
import torch
from fakes.sound import PROTOCOL, TRAINING, like
from torch import nn

from refimpl import threads
from refimpl.errors import CheckpointError, ContractError
from refimpl.training import checkpoint
from refimpl.training.checkpoint import Checkpoint, load, save, take
from refimpl.training.loop import steps_of, train
from refimpl.training.problem import pose
from refimpl.writing import WriteError

STEPS_PER_EPOCH = -(-TRAINING // PROTOCOL.batch_size)


def signed(content, path):
    """Write a content as a checkpoint is written, with its digest."""
    archive = io.BytesIO()
    torch.save(content, archive)
    stored = archive.getvalue()
    path.write_bytes(stored + checkpoint.TRAILER + hashlib.sha256(stored).hexdigest().encode())


def adam(parameters, lr):
    return torch.optim.Adam(parameters, lr=lr)


class Normalised(nn.Module):
    """A net with buffers."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.lin = nn.Linear(2, 1)

    def forward(self, x):
        return self.lin(self.norm(x))


VARIANT = like("module", build=Normalised, optimizer=adam, names={})


def after(number, variant=VARIANT):
    """The checkpoint after update ``number`` of the variant's run."""
    *_, last = steps_of(variant, pose(variant, seed=0), number)
    return take(last, number)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.pt"


# --- what goes in comes out ----------------------------------------------------------------------


def test_everything_comes_back_from_the_file(path):
    taken = after(2)
    save(taken, path)
    loaded = load(path)
    assert loaded.step == 2
    assert loaded.parameters.keys() == {"norm.weight", "norm.bias", "lin.weight", "lin.bias"}
    for name, value in taken.parameters.items():
        assert np.array_equal(loaded.parameters[name], value)
        assert loaded.parameters[name].dtype == value.dtype
    assert {"norm.running_mean", "norm.running_var"} <= loaded.buffers.keys()
    for name, buffer in taken.buffers.items():
        assert torch.equal(loaded.buffers[name], buffer)
    assert loaded.optimizer["param_groups"] == taken.optimizer["param_groups"]
    for number, state in taken.optimizer["state"].items():
        for name, value in state.items():
            assert torch.equal(loaded.optimizer["state"][number][name], value)


def test_a_checkpoint_does_not_change_with_the_steps_that_follow():
    steps = steps_of(VARIANT, pose(VARIANT, seed=0))
    taken = take(next(steps), 1)
    weights = taken.parameters["lin.weight"].copy()
    mean = taken.buffers["norm.running_mean"].clone()
    moment = taken.optimizer["state"][2]["exp_avg"].clone()
    next(steps)
    assert np.array_equal(taken.parameters["lin.weight"], weights)
    assert torch.equal(taken.buffers["norm.running_mean"], mean)
    assert torch.equal(taken.optimizer["state"][2]["exp_avg"], moment)


@pytest.mark.parametrize("stop", [1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 2])
def test_a_run_that_is_resumed_from_a_file_goes_on_as_if_uninterrupted(path, stop):
    problem = pose(VARIANT, seed=0)
    with threads.suited_to(lambda: problem.numbers_in_a_batch):  # as a whole run is made
        *_, last = steps_of(VARIANT, problem.but(swift=True), stop)
    save(take(last, stop), path)
    whole = train(VARIANT, problem)
    rest = train(VARIANT, problem.but(checkpoint=load(path)))
    assert rest.steps == whole.steps - stop
    for name, value in whole.last.parameters.items():
        assert torch.equal(rest.last.parameters[name], value)
    assert rest.final == whole.final
    assert [record.epoch for record in rest.epochs] == [
        record.epoch for record in whole.epochs if record.epoch > stop // STEPS_PER_EPOCH
    ]


def test_without_a_module_and_an_optimizer_there_are_parameters_alone():
    taken = after(1, like("scratch"))
    assert taken.parameters.keys() == {"weights", "bias"}
    assert (taken.buffers, taken.optimizer) == ({}, None)


def test_a_parameter_without_axes_is_kept(path):
    save(Checkpoint(1, {"slope": np.array(2.5)}), path)
    assert load(path).parameters["slope"].shape == ()
    assert float(load(path).parameters["slope"]) == 2.5


def test_folders_on_the_way_are_made(tmp_path):
    save(after(1), tmp_path / "a" / "b" / "run.pt")
    assert load(tmp_path / "a" / "b" / "run.pt").step == 1


# --- files that are refused ----------------------------------------------------------------------


class Mine:
    """Nothing that may be unpickled."""


def test_no_flipped_bit_of_a_file_goes_unnoticed(path):
    save(after(1), path)
    sound = path.read_bytes()
    for place in range(0, len(sound), max(1, len(sound) // 200)):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load(path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(path, kept):
    save(after(1), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match="or is damaged"):
        load(path)


def test_a_file_that_holds_objects_is_refused_without_unpickling_them(path):
    signed({"format": 3, "step": 1, "parameters": {}, "buffers": Mine()}, path)
    with pytest.raises(CheckpointError, match="holds objects that are not weights") as raised:
        load(path)
    assert "weights_only" not in str(raised.value)  # torch's own text advises to unpickle them


class Exploding:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_a_plain_pickle_is_refused_without_running_it(path):
    path.write_bytes(pickle.dumps(Exploding(), protocol=2))
    with pytest.raises(CheckpointError):
        load(path)


FOREIGN = {
    b"": "an empty file",
    b"epoch,loss\n1,0.5\n": "a file that begins with b'epoch,lo'",
    b'{"step": 1}': "a file that begins with b'{\"step\":'",
    b"\x80\x02": r"a file that begins with b'\x80\x02'",
    bytes(range(200, 250)): r"a file that begins with b'\xc8\xc9\xca\xcb\xcc\xcd\xce\xcf'",
    b"PK\x03\x04 of another program": "an archive without a digest, which formats 1 and 2 lacked",
}


@pytest.mark.parametrize("content", FOREIGN)
def test_a_foreign_file_is_said_to_be_no_checkpoint_with_what_was_found(path, content):
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as raised:
        load(path)
    assert str(raised.value) == (
        f"{path} is not a checkpoint, or is damaged: found {FOREIGN[content]}, "
        "expected a checkpoint written by refimpl run --save"
    )


@pytest.mark.parametrize(
    "content",
    [{"lin.weight": torch.zeros(1, 2)}, torch.zeros(3), [1, 2], {"format": torch.ones(2)}],
)
def test_another_file_of_torchs_is_refused(path, content):
    signed(content, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of refimpl"):
        load(path)


GOOD = {
    "format": checkpoint.FORMAT, "step": 1, "parameters": {}, "buffers": {}, "optimizer": None,
    "state": {}, "about": {},
}  # fmt: skip


@pytest.mark.parametrize("lacking", ["step", "parameters", "buffers", "optimizer", "about"])
def test_a_checkpoint_that_lacks_a_part_is_refused_and_the_part_named(path, lacking):
    signed({k: v for k, v in GOOD.items() if k != lacking}, path)
    with pytest.raises(CheckpointError, match=f"damaged checkpoint: .*{lacking}"):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "x"},
        {"parameters": {"w": 1.0}},
        {"buffers": 3},
        {"step": True},
        {"optimizer": {"state": {}}},
        {"about": {"seed": []}},
    ],
)
def test_a_checkpoint_with_a_part_of_another_kind_is_refused(path, change):
    signed({**GOOD, **change}, path)
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        load(path)


def test_a_newer_format_is_refused_with_both_numbers(path):
    signed({**GOOD, "format": 4}, path)
    with pytest.raises(CheckpointError, match="has checkpoint format 4, this refimpl reads 3"):
        load(path)


def test_every_refusal_is_one_line_that_names_the_file(path):
    path.write_bytes(b"nothing of ours")
    with pytest.raises(CheckpointError) as raised:
        load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_not_called_damaged(path):
    with pytest.raises(CheckpointError) as raised:
        load(path)
    assert str(raised.value) == (
        f"{path} cannot be read: No such file or directory; "
        "expected a checkpoint written by refimpl run --save"
    )


def test_a_folder_is_refused_as_what_cannot_be_read(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be read: .*; expected a checkpoint"):
        load(tmp_path)


def test_a_checkpoint_of_another_model_is_refused_when_it_is_loaded():
    problem = pose(VARIANT, seed=0)
    plain = problem.but(checkpoint=after(1, like("module")))
    with pytest.raises(ContractError, match=r"the start has values for .*lin\.bias"):
        plain.load(Normalised())
    lacking = problem.but(checkpoint=Checkpoint(1, after(1).parameters))
    with pytest.raises(CheckpointError, match=r"lacks buffer norm\.running_mean of Normalised"):
        lacking.load(Normalised())


# --- writes that fail ----------------------------------------------------------------------------


def failing(content, stream):
    stream.write(b"half of it")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("there_before", [True, False])
def test_a_write_that_fails_leaves_what_was_there_before(path, monkeypatch, there_before):
    if there_before:
        save(after(1), path)
    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(OSError, match="No space left"):
        save(after(2), path)
    assert [file.name for file in path.parent.iterdir()] == (["run.pt"] if there_before else [])
    if there_before:
        assert load(path).step == 1


def test_a_folder_in_the_place_of_the_file_is_left_alone(path):
    path.mkdir()
    with pytest.raises(WriteError, match=r"cannot write .*run\.pt: Is a directory"):
        save(after(1), path)
    assert [file.name for file in path.parent.iterdir()] == ["run.pt"]
