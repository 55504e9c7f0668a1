"""Whole runs take kernels that are quicker; they end where the document's do, but for rounding."""

import pytest
import torch
from fakes.sound import like
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from refimpl import Execution
from refimpl.loading import registry
from refimpl.training import fast_kernels
from refimpl.training.loop import steps_of, train, written_steps
from refimpl.training.problem import pose

FUSED = [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad]


def needs_fused(kind):
    if not fast_kernels.has_fused(kind):
        pytest.skip(f"torch {torch.__version__} has no fused {kind.__name__} on the CPU")


def made(kind, shapes, swift):
    """An optimizer over tensors that are the same each time, and they."""
    torch.manual_seed(0)
    tensors = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = kind(tensors, lr=0.1)
    if swift:
        fast_kernels.fuse(optimizer)
    return optimizer, tensors


@pytest.mark.parametrize("kind", FUSED)
@given(shapes=st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=4))
def test_a_fused_update_is_the_plain_one_but_for_rounding(kind, shapes):
    needs_fused(kind)
    ends = []
    for swift in (False, True):
        optimizer, tensors = made(kind, shapes, swift)
        for _ in range(3):
            for tensor in tensors:
                tensor.grad = torch.randn(tensor.shape)
            optimizer.step()
        assert optimizer.param_groups[0]["fused"] is (True if swift else None)
        ends.append(tensors)
    for plain, fused in zip(*ends, strict=True):
        assert torch.allclose(plain, fused, rtol=1e-5, atol=1e-6)


def test_an_optimizer_that_torch_cannot_fuse_is_left_as_it_is():
    optimizer, _ = made(torch.optim.Rprop, [(2,)], swift=True)
    assert "fused" not in optimizer.param_groups[0]


def test_tensors_that_a_fused_update_would_spoil_are_not_fused():
    turned = nn.Parameter(torch.ones(2, 3).T)
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2)), turned])
    fast_kernels.fuse(optimizer)
    assert optimizer.param_groups[0]["fused"] is None


def test_a_checkpoint_of_a_fused_run_is_resumed_as_the_optimizer_was_made():
    needs_fused(torch.optim.Adam)
    fused, (tensor,) = made(torch.optim.Adam, [(2,)], swift=True)
    tensor.grad = torch.ones(2)
    fused.step()
    resumed, _ = made(torch.optim.Adam, [(2,)], swift=False)
    resumed.load_state_dict(fused.state_dict())
    fast_kernels.as_made(resumed)
    assert resumed.param_groups[0]["fused"] is None


@pytest.mark.parametrize(("convolution", "axes"), [(nn.Conv1d, 1), (nn.Conv2d, 2)])
def test_weights_of_convolutions_are_laid_out_anew_and_keep_their_names_shapes_and_values(
    convolution, axes
):
    net = nn.Sequential(convolution(3, 8, 5), nn.Flatten(), nn.Linear(8, 2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fast_kernels.channels_last(net)
    assert net[0].weight.movedim(1, -1).is_contiguous()
    sample = torch.rand(4, 3, *[5] * axes)
    assert net[0](sample).stride(1) == 1, "the output follows"
    assert net(sample).shape == (4, 2)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "name",
    [
        "titanic-dnn/script",
        "covid-lstm/single-start",
        "imdb-cnn/keep-last",
        "cifar2-cnn/function",
        "mnist-cnn/class",
    ],
)
def test_a_swift_run_computes_the_gradients_of_the_plain_one(name):
    example, _, variant = name.partition("/")
    variant = registry.load(only=[example]).example(example).variant(variant)
    problem = pose(variant)
    plain, swift = (
        next(steps_of(variant, problem)),
        next(steps_of(variant, problem.but(swift=True))),
    )
    assert torch.allclose(plain.loss, swift.loss, rtol=1e-5)
    for parameter, value in plain.parameters.items():
        gradient, other = value.grad, swift.parameters[parameter].grad
        assert (gradient - other).norm() <= 1e-4 * gradient.norm()


def test_only_the_cpu_as_it_is_trains_swiftly():
    scratch, told = like("scratch"), []

    def steps(problem):
        told.append(problem.swift)
        yield from written_steps(scratch, problem)

    watched = like("scratch", steps=steps)
    problem = pose(watched, seed=0)
    train(watched, problem)
    train(watched, problem.but(execution=Execution("w", "wrapped", wrap=lambda module: module)))
    next(steps_of(watched, problem))
    assert told == [True, False, False]
