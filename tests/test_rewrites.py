"""A program that is written in another way and computes the same raises no alarm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[1] / "plugins"

CHECKS = (
    "each-kernel-is-right", "each-layer-is-right", "predicts-as-its-oracle",
    "same-on-every-execution", "ladder-agrees-in-float32", "gradient-is-the-slope",
)  # fmt: skip

REWRITES = {
    "einsum for a product of matrices": (
        "mnist_logistic", "mnist-logistic", "module",
        "xb @ self.weights + self.bias",
        'torch.einsum("nd,dk->nk", xb, self.weights) + self.bias',
    ),
    "log-softmax and NLL for cross entropy": (
        "mnist_logistic", "mnist-logistic", "linear",
        "F.cross_entropy(output, yb)",
        "F.nll_loss(F.log_softmax(output, dim=1), yb)",
    ),
    "F.linear for nn.Linear": (
        "mnist_logistic", "mnist-logistic", "linear",
        "return self.lin(xb)",
        "return F.linear(xb, self.lin.weight, self.lin.bias)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("rewrite", REWRITES)
def test_the_same_written_otherwise_passes(rewrite: str, tmp_path: Path) -> None:
    module, name, variant, written, otherwise = REWRITES[rewrite]
    source = (PLUGINS / f"{module}.py").read_text(encoding="utf-8")
    assert written in source
    assert f'"{name}"' in source
    plugin = tmp_path / "rewritten.py"
    source = source.replace(written, otherwise).replace(f'"{name}"', f'"{name}-rewritten"')
    plugin.write_text(source, encoding="utf-8")
    chosen = [option for each in CHECKS for option in ("--check", each)]
    command = [
        sys.executable, "-m", "refimpl", "check", f"{name}-rewritten", "--plugin", str(plugin),
        "--variant", variant, "-n", "0", *chosen, "--execution", "cpu",
    ]  # fmt: skip
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
