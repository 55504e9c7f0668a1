"""A wrong kernel becomes one script, small, that needs torch and NumPy alone."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fakes.sound import EXAMPLE, MODULE
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from refimpl import Execution
from refimpl.parity import reproducer
from refimpl.parity.kernel_judge import KernelJudge
from refimpl.parity.reproducer import ReproducerError

aten = torch.ops.aten

FAULT = """
import torch
aten = torch.ops.aten
library = torch.library.Library("aten", "IMPL")
original = torch.library.get_kernel(aten.convolution_backward.default, "CPU")

def wrong(keys, gradient, x, weight, *rest):
    made = list(original.call_boxed(keys, gradient, x, weight, *rest))
    if weight.dtype == torch.float32 and weight.shape[-1] == 5 and x.shape[1] >= 4:
        made[1] = made[1] * (1 + 3e-3)
    return tuple(made)

library.impl("convolution_backward", wrong, "CPU", with_keyset=True)
"""
"""A weight gradient off by 3e-3, for kernels of 5 × 5 alone, as the first GPU run had it."""

needs_get_kernel = pytest.mark.skipif(
    not hasattr(torch.library, "get_kernel"), reason="this torch cannot give a kernel (before 2.9)"
)


class Instead(TorchDispatchMode):
    def __init__(self, func, change, when=lambda args: True):
        super().__init__()
        self.func, self.change, self.when = func, change, when

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func is self.func and self.when(args):
            return self.change(made)
        return made


def weight_gradient(made):
    first, weight, bias = made
    return first, weight if weight.dtype == torch.float64 else weight * 1.003, bias


def of_5_by_5(args):
    return args[2].shape[-1] == 5 and args[1].shape[1] >= 4


def captured(compute, around):
    judge = KernelJudge("step 1")
    with around(), judge:
        compute()
    return next(iter(judge.captured.values()))


def convolved():
    torch.manual_seed(0)
    x = torch.randn(12, 8, 15, 15, requires_grad=True)
    F.conv2d(x, torch.randn(16, 8, 5, 5, requires_grad=True)).square().sum().backward()


def within(func, change, when=lambda args: True):
    @contextmanager
    def around():
        with Instead(func, change, when):
            yield

    return Execution("faulty", "a fault", around=around)


def ran(script: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """The script, by a Python that imports nothing of refimpl."""
    program = (
        f"{before}\nimport runpy, sys\nsys.modules['refimpl'] = None\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@needs_get_kernel
def test_the_script_exits_with_1_where_the_fault_is_and_with_0_where_it_is_not(tmp_path):
    faulty = within(aten.convolution_backward.default, weight_gradient, of_5_by_5)
    seen = captured(convolved, faulty.around)
    script = tmp_path / "reproduce.py"
    said, files = reproducer.write(seen, faulty, script)
    assert files == [script]
    text = script.read_text()
    assert text.count("\n") < 40
    assert "import refimpl" not in text
    assert said.startswith("aten::convolution_backward, gradient of the weight")
    sound, wrong = ran(script), ran(script, FAULT)
    assert (sound.returncode, wrong.returncode) == (0, 1), (sound.stderr, wrong.stderr)
    assert "is off by" in wrong.stdout
    assert "e-03 of its largest value" in wrong.stdout


def test_sizes_are_made_smaller_while_the_fault_stays():
    faulty = within(aten.convolution_backward.default, weight_gradient, of_5_by_5)
    seen = captured(convolved, faulty.around)
    inputs, trial = reproducer.smallest(seen, faulty.around, "cpu")
    gradient, x, weight = (own.shape for own in inputs.tensors)
    assert trial.shows
    assert inputs.stored is None
    assert weight[2:] == (5, 5)
    assert x[0] * x[1] * x[2] * x[3] < 12 * 8 * 15 * 15 / 50
    assert (x[1], gradient[0]) == (4, x[0])


def test_inputs_that_cannot_be_drawn_are_stored_beside_the_script(tmp_path):
    def special(args):
        return bool((args[0] == 7.25).any())

    def compute():
        torch.mm(torch.full((4, 6), 7.25), torch.ones(6, 3))

    faulty = within(aten.mm.default, lambda made: made * 1.01, special)
    seen = captured(compute, faulty.around)
    script = tmp_path / "own.py"
    _, files = reproducer.write(seen, faulty, script)
    assert files == [script, tmp_path / "own.npz"]
    assert ran(script).returncode == 0
    assert 'np.load(Path(__file__).with_suffix(".npz"))' in script.read_text()


@pytest.mark.parametrize(
    ("compute", "func"),
    [
        (lambda: F.embedding(torch.arange(6) % 4, torch.ones(4, 3)), aten.embedding.default),
        (lambda: torch.randn(5, 7).bfloat16() @ torch.ones(7, 2).bfloat16(), aten.mm.default),
        (lambda: torch.ones(4, 3).add_(torch.ones(3), alpha=0.5), aten.add_.Tensor),
        (lambda: torch.arange(3.0).softmax(0), aten._softmax.default),
        (lambda: F.binary_cross_entropy(torch.full((4,), 0.3), torch.ones(4)),
         aten.binary_cross_entropy.default),
        (lambda: torch._foreach_mul([torch.ones(2), torch.ones(3)], 2.5),
         aten._foreach_mul.Scalar),
        (lambda: torch.ones(3, dtype=torch.float32).to(torch.bfloat16), aten._to_copy.default),
    ],
    ids=lambda value: str(value) if not callable(value) else "",
)  # fmt: skip
def test_calls_of_every_kind_can_be_written(tmp_path, compute, func):
    def changed(made):
        if isinstance(made, (list, tuple)):
            return type(made)(each * 1.5 for each in made)
        return made.mul_(1.5) if func._schema.name.endswith("_") else made * 1.5

    real = lambda args: True  # noqa: E731
    faulty = within(func, changed, real)
    seen = captured(compute, faulty.around)
    script = tmp_path / "call.py"
    reproducer.write(seen, faulty, script)
    found = ran(script)
    assert found.returncode == 0, found.stderr
    assert "is off by 0.0" in found.stdout or "where rounding explains" in found.stdout


def test_a_fault_that_does_not_come_again_is_not_written():
    times = iter([True] + [False] * 1000)
    faulty = within(aten.mm.default, lambda made: made * 1.01, lambda args: next(times))
    seen = captured(lambda: torch.ones(3, 3) @ torch.ones(3, 3), faulty.around)
    with pytest.raises(ReproducerError, match="is right when the call is made again"):
        reproducer.smallest(seen, faulty.around, "cpu")


def test_where_every_kernel_is_right_there_is_nothing_to_write(tmp_path):
    variant = EXAMPLE.variant(MODULE.name)
    sound = Execution("sound", "no fault")
    with pytest.raises(ReproducerError, match="every kernel is right in module on sound"):
        reproducer.reproduce(variant, sound, "stand-in", tmp_path / "none.py")
    assert not (tmp_path / "none.py").exists()
