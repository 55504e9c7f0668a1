"""A small net computes with one thread, unless the caller has said otherwise."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from refimpl import threads
from refimpl.checking.checks import cells, run_check
from refimpl.cli import suite_process
from refimpl.composition import CPU
from refimpl.conformance.checks import ALL
from refimpl.loading import registry
from refimpl.training.loop import train
from refimpl.training.problem import pose


@pytest.fixture
def two_threads(monkeypatch):
    """A process in which torch would use two threads, and the caller has said nothing."""
    monkeypatch.setattr(threads, "_limits", [])
    for variable in threads.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_are_set_for_every_library_that_reads_them(monkeypatch):
    monkeypatch.setattr(threads, "_limits", [])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    environment = {}
    threads.limit(3, environment)
    assert environment == dict.fromkeys(threads.VARIABLES, "3")


def test_a_torch_that_is_imported_already_is_set(monkeypatch):
    monkeypatch.setattr(threads, "_limits", [])
    seen = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=seen.append))
    threads.limit(3, {})
    assert seen == [3]


def test_what_the_caller_says_about_threads_stands(monkeypatch):
    monkeypatch.setattr(threads, "_limits", [])
    seen = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=seen.append))
    environment = {"OMP_NUM_THREADS": "7"}
    threads.limit(3, environment)
    assert environment == dict.fromkeys(threads.VARIABLES, "7")
    assert seen == []


@pytest.mark.parametrize(("numbers", "used"), [(120, 1), (threads.LARGE, 2)])
def test_a_small_batch_is_computed_with_one_thread(two_threads, numbers, used):
    with threads.suited_to(lambda: numbers):
        assert torch.get_num_threads() == used
    assert torch.get_num_threads() == 2


def test_a_small_batch_is_computed_with_one_thread_in_a_worker_that_may_use_more(
    two_threads, monkeypatch
):
    for variable in threads.VARIABLES:
        monkeypatch.setenv(variable, "")  # so that it is put back
        monkeypatch.delenv(variable)
    threads.limit(2)
    with threads.suited_to(lambda: 120):
        assert torch.get_num_threads() == 1
    with threads.suited_to(lambda: threads.LARGE):
        assert torch.get_num_threads() == 2


def test_a_small_batch_is_computed_with_the_threads_that_the_caller_says(two_threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with threads.suited_to(lambda: 120):
        assert torch.get_num_threads() == 2


def test_a_run_and_a_check_of_a_small_net_use_one_thread(two_threads):
    example = registry.load(only=["titanic-dnn"]).example("titanic-dnn")
    seen = []

    def watched(problem):
        for step in example.variant("script").steps(problem):
            seen.append(torch.get_num_threads())
            yield step

    variant = replace(example.variant("script"), steps=watched)
    train(variant, pose(variant, "stand-in"))
    assert set(seen) == {1}
    seen.clear()
    learns = [check for check in ALL if check.name == "every-parameter-learns"]
    (cell,) = cells(replace(example, variants=(variant,)), learns, CPU, "stand-in")
    result = run_check(cell)
    assert result.outcome == "passed", result.reason
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


def test_threads_of_the_suite_do_not_spin_unless_the_caller_says_so(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert suite_process._environment("utf-8")["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert suite_process._environment("utf-8")["OMP_WAIT_POLICY"] == "active"
