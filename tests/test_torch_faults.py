"""Builds of torch that compute something else fail, by a check that names what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from refimpl.checking.results import read
from refimpl.report.findings import findings

FAULTS = Path(__file__).parent / "fakes" / "torch_faults.py"


@dataclass(frozen=True)
class Seen:
    """A fault, the check of an example that fails on it, and words of its message.

    What is rarely wrong is found by ``alone=False``, a run of all checks.
    """

    fault: str
    example: str
    check: str
    said: tuple[str, ...]
    variant: str = ""
    execution: str = "cpu"
    alone: bool = True


SEEN = (
    Seen("addmm", "titanic-dnn", "each-kernel-is-right", ("aten::addmm", "float32 on cpu")),
    Seen("linear", "titanic-dnn", "each-layer-is-right", ("Linear linear1", "float32 on cpu")),
    Seen("conv2d", "mnist-cnn", "each-kernel-is-right", ("aten::convolution",), "function"),
    Seen("mean_in_bfloat16", "linear-regression-2d", "each-kernel-is-right", ("aten::mean",)),
    Seen(
        "wrong_in_evaluation", "titanic-dnn", "predicts-as-its-oracle",
        ("predictions at the start of the run", "no_grad"),
    ),
    Seen(
        "wrong_without_gradients", "titanic-dnn", "each-kernel-is-right",
        ("aten::addmm", "in evaluation"),
    ),
    Seen(
        "dropout_draws_again", "mnist-cnn", "dropout-keeps-its-mask",
        ("its backward uses another mask",), "function",
    ),
    Seen("wide_start", "titanic-dnn", "starts-as-torch-does", ("draws weight of Linear",)),
    Seen("race", "imdb-cnn", "each-kernel-is-right", ("aten::",), "keep-first", alone=False),
    Seen(
        "bce_of_zero", "imdb-cnn", "right-at-the-ends", ("binary_cross_entropy", "inf"),
        "keep-last",
    ),
    Seen("bce_clamped", "titanic-dnn", "right-at-the-ends", ("binary_cross_entropy", "[10, 10")),
    Seen(
        "softmax_without_maximum", "mnist-cnn", "right-at-the-ends", ("cross_entropy",), "function",
    ),
    Seen("relu_at_zero", "titanic-dnn", "right-at-the-ends", ("gradient of F.relu",)),
    Seen("save_narrows", "titanic-dnn", "right-at-the-ends", ("torch.save changes",)),
    Seen("state_without_buffers", "titanic-dnn", "right-at-the-ends", ("running_mean",)),
    Seen("rand_skips_a_number", "titanic-dnn", "draws-as-torch-does", ("torch.rand(3) of seed",)),
    Seen(
        "last_batch_wrong", "mnist-logistic", "each-kernel-is-right",
        ("aten::_log_softmax_backward_data", "in the short last batch of an epoch"), "fit",
    ),
    Seen(
        "dropout_too_often", "mnist-cnn", "dropout-at-its-rate",
        ("leaves out of 200,000 units is 0.110",), "class",
    ),
    Seen(
        "uniform_twice", "titanic-dnn", "starts-as-torch-does", ("draws the same numbers of",),
    ),
    Seen(
        "padding_drawn", "imdb-cnn", "starts-as-torch-does", ("the padding row of Embedding",),
        "keep-last",
    ),
    Seen(
        "sampler_repeats", "titanic-dnn", "draws-as-torch-does",
        ("rows that SubsetRandomSampler gives other than once",),
    ),
    Seen(
        "bfloat16_truncated", "titanic-dnn", "each-kernel-is-right", ("rounded towards zero",),
        execution="bf16",
    ),
    Seen("split_in_order", "titanic-dnn", "draws-as-torch-does", ("random_split(range(6)",)),
    Seen(
        "adam_late", "titanic-dnn", "updates-stay-right",
        ("Adam, updated parameter", "of the run"),
    ),
    Seen(
        "adam_decays_late", "titanic-dnn", "updates-stay-right",
        ("Adam, updated parameter", "of the run"),
    ),
    Seen(
        "gradients_pile_up", "titanic-dnn", "updates-stay-right",
        ("uses other gradients than backward made",),
    ),
    Seen("index_repeats", "titanic-dnn", "reads-its-batches", ("another row's inputs",)),
    Seen(
        "lstm_of_long_sequences", "covid-lstm", "each-layer-is-right",
        ("LSTM lstm, output, (1, 38, 3)",), "single-start",
    ),
    Seen("products_late", "titanic-dnn", "updates-stay-right", ("aten::mm", "of the run")),
    Seen("sums_late", "titanic-dnn", "updates-stay-right", ("aten::sum", "of the run")),
    Seen(
        "lstm_late", "covid-lstm", "updates-stay-right", ("LSTM, output", "of the run"),
        "several-starts",
    ),
    Seen(
        "adam_skips_a_bias", "titanic-dnn", "updates-stay-right",
        ("Adam, updated parameter, (1,)",),
    ),
    Seen(
        "adam_forgets_its_count", "titanic-dnn", "updates-stay-right", ("Adam, updated step",),
    ),
    Seen(
        "adagrad_halves_its_sums", "covid-lstm", "updates-stay-right",
        ("Adagrad, updated sum", "in update 41 of the run"), "single-start",
    ),
    Seen(
        "sgd_rests", "autograd", "values-compute-rightly",
        ("SGD, updated parameter", "in update 100 of 'minimum of f"), execution="",
    ),
    Seen("gru_too_large", "layers", "values-compute-rightly", ("GRU, output",), execution=""),
    Seen(
        "lstm_memory", "layers", "values-compute-rightly", ("LSTM, last state of the cells",),
        execution="",
    ),
    Seen(
        "without_bias", "layers", "values-compute-rightly", ("ConvTranspose2d, output",),
        execution="",
    ),
    Seen(
        "bias_of_the_weight", "titanic-dnn", "starts-as-torch-does",
        ("that repeat another's numbers is ['bias']",),
    ),
    Seen("start_in_order", "titanic-dnn", "starts-as-torch-does", ("by the one before it",)),
    Seen("start_in_pairs", "titanic-dnn", "starts-as-torch-does", ("or their negatives",)),
    Seen(
        "subset_before", "data-pipelines", "draws-as-torch-does",
        ("rows of a DataLoader of a Subset is [3, 3, 1, 4, 1]",), execution="",
    ),
    Seen(
        "sigmoid_saturates", "titanic-dnn", "right-at-the-ends",
        ("gradient of torch.sigmoid", "at 4.25, expected"),
    ),
    Seen(
        "bce_saturates", "titanic-dnn", "right-at-the-ends", ("gradient of binary cross entropy",),
    ),
    Seen(
        "bfloat16_last_row", "titanic-dnn", "each-kernel-is-right", ("aten::addmm", "bfloat16"),
        execution="bf16",
    ),
    Seen(
        "products_in_every_precision", "titanic-dnn", "each-kernel-is-right",
        ("aten::addmm, against NumPy", "float64 on cpu"),
    ),
    Seen(
        "sigmoid_in_float64", "titanic-dnn", "each-kernel-is-right",
        ("aten::sigmoid, against NumPy", "float64 on cpu"),
    ),
    Seen(
        "products_away_from_zero", "titanic-dnn", "each-kernel-is-right",
        ("aten::addmm", "rounded away from zero"), execution="bf16",
    ),
    Seen(
        "bfloat16_is_float16", "titanic-dnn", "each-kernel-is-right",
        ("computes in float16, not in bfloat16",), execution="bf16",
    ),
    Seen(
        "inference_records", "autograd", "autograd-and-copies-work",
        ("whether inference_mode records for gradients is True, expected False",), execution="",
    ),
    Seen(
        "modes_stay", "titanic-dnn", "autograd-and-copies-work",
        ("whether gradients are recorded after these modes is False",),
    ),
    Seen(
        "backward_keeps_its_graph", "titanic-dnn", "autograd-and-copies-work",
        ("what a second backward pass of one graph gives is None, expected RuntimeError",),
    ),
    Seen(
        "grad_fills", "titanic-dnn", "autograd-and-copies-work",
        ("what autograd.grad leaves in .grad is 6.0",),
    ),
    Seen(
        "autocast_keeps_its_casts", "titanic-dnn", "autograd-and-copies-work",
        ("what autocast multiplies by, as the weight is 1 and then 2, is [1.0, 1.0]",),
    ),
    Seen(
        "adam_of_python_late", "titanic-dnn", "updates-stay-right",
        ("Adam, updated parameter, (8,)", "of 8 numbers alone"),
    ),
    Seen(
        "momentum_is_the_gradient", "titanic-dnn", "autograd-and-copies-work",
        ("its gradient overwritten, is -3.0, expected -3.5",),
    ),
    Seen(
        "rate_is_not_loaded", "titanic-dnn", "autograd-and-copies-work",
        ("what load_state_dict gives another SGD is lr = 1.0",),
    ),
    Seen(
        "relu_of_nan", "titanic-dnn", "right-at-the-ends", ("where F.relu of NaN and 1 is NaN",),
    ),
    Seen(
        "mse_gradient_clipped", "titanic-dnn", "right-at-the-ends",
        ("gradient of mse_loss of ±1e15",),
    ),
    Seen("abs_at_zero", "titanic-dnn", "right-at-the-ends", ("gradient of abs at -1, 0 and 2",)),
    Seen(
        "sigmoid_of_what_is_left", "titanic-dnn", "right-at-the-ends", ("torch.sigmoid",),
    ),
    Seen("log_of_small", "titanic-dnn", "right-at-the-ends", ("log of 1 to 2⁻¹²⁵",)),
    Seen(
        "unexpected_is_loaded", "titanic-dnn", "autograd-and-copies-work",
        ("what load_state_dict gives of a state with another parameter is None",),
    ),
    Seen("adam_counts_to_256", "titanic-dnn", "updates-stay-right", ("Adam, updated step",)),
    Seen(
        "hooks_give_nothing", "autograd", "autograd-and-copies-work",
        ("a gradient that a hook doubles is 6.0, expected 12.0",), execution="",
    ),
    Seen(
        "lists_of_six_digits", "titanic-dnn", "autograd-and-copies-work", ("1/3 by tolist()",),
    ),
    Seen(
        "relu_overwrites", "titanic-dnn", "right-at-the-ends", ("relu changes what it is given",),
    ),
    Seen("deep_copies_share", "titanic-dnn", "autograd-and-copies-work", ("a deep copy",)),
    Seen(
        "loaded_in_evaluation", "titanic-dnn", "autograd-and-copies-work",
        ("layers of a saved and loaded net, in training, that train",),
    ),
    Seen("last_unit_stays", "mnist-cnn", "dropout-at-its-rate", ("one unit",), "function"),
    Seen(
        "subsets_in_order", "titanic-dnn", "draws-as-torch-does", ("SubsetRandomSampler",),
    ),
    Seen(
        "inverse_off", "tensors", "values-compute-rightly",
        ("aten::linalg_inv_ex, against NumPy",), execution="",
    ),
    Seen(
        "view_copies", "tensors", "values-compute-rightly",
        ("aten::view gives a copy where it declares a view",), execution="",
    ),
    Seen(
        "cumsum_in_float", "tensors", "values-compute-rightly",
        ("aten::cumsum gives float32 where it declares int64",), execution="",
    ),
    Seen(
        "sigmoid_writes", "titanic-dnn", "each-kernel-is-right",
        ("aten::sigmoid changes what it is given", "in step 1"),
    ),
    Seen(
        "conversion_truncates", "titanic-dnn", "each-kernel-is-right", ("aten::_to_copy",),
        execution="bf16",
    ),
    Seen(
        "autocast_stale", "titanic-dnn", "same-on-every-execution", ("diverges at step 2",),
        execution="cpu+bf16",
    ),
)  # fmt: skip


def checked(fault: str, folder: Path, *request: str) -> subprocess.CompletedProcess[str]:
    """A run of checks on a build of torch that has this fault, with its results in ``folder``."""
    command = [
        sys.executable, "-m", "refimpl", "check", *request, "--plugin", str(FAULTS), "-n", "0",
        "--results", str(folder / "results.jsonl"),
    ]  # fmt: skip
    environment = {**os.environ, "TORCH_FAULT": fault}
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen.fault)
def test_a_wrong_build_is_named(seen: Seen, tmp_path: Path) -> None:
    run = checked(
        seen.fault, tmp_path, seen.example,
        *(["--execution", seen.execution] if seen.execution else []),
        *(["--check", seen.check] if seen.alone else []),
        *(["--variant", seen.variant] if seen.variant else []),
    )  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    records = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    failed = [r for r in records if r.get("outcome") == "failed"]
    assert seen.check in {record["check"] for record in failed}
    messages = "\n".join(m["message"] for r in failed for m in r["measurements"])
    for words in seen.said:
        assert words in messages


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("bceloss_scaled", "BCELoss is 1e-4 too large"),
        ("adam_eps", "Adam makes another update"),
        ("linear_off_in_evaluation", "Linear is 1.0% too large in evaluation"),
    ],
)
def test_a_wrong_build_is_one_finding_that_names_what_is_wrong(
    fault: str, says: str, tmp_path: Path
) -> None:
    run = checked(
        fault, tmp_path, "titanic-dnn", "ring-dnn", "linear-regression-2d",
        *("--check", "golden-trajectory"), *("--check", "right-at-the-ends"),
        *("--check", "each-layer-is-right"), *("--check", "ladder-agrees-in-float64"),
    )  # fmt: skip
    (finding,) = findings(read(tmp_path / "results.jsonl").checks)
    assert finding.sentence == says
    named = " ".join(run.stdout.split()).partition("does not do what the documents say")[2]
    assert "1 finding in " in named
    assert f" 1. {says} (" in named


def test_a_kernel_that_is_wrong_in_float64_is_not_reproduced_against_float64(
    tmp_path: Path,
) -> None:
    command = [
        sys.executable, "-m", "refimpl", "reproduce", "titanic-dnn", "script",
        "--execution", "cpu", "--plugin", str(FAULTS),
    ]  # fmt: skip
    environment = {**os.environ, "TORCH_FAULT": "products_in_every_precision"}
    run = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert run.returncode != 0
    assert "no script is made" in run.stderr
    assert "aten::addmm, against NumPy" in run.stderr
    assert not list(tmp_path.iterdir())
