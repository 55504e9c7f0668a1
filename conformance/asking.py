"""Every check of one example, with or without pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from refimpl.baselines.committed import BaselineError, require_unused_seeds
from refimpl.checking.checks import (
    EXPECTATIONS,
    IN_ORDER,
    Cell,
    Outcome,
    Result,
    ask,
    cells,
    true,
)
from refimpl.checking.expectations import ExpectationsError, gather, judged, unmatched
from refimpl.conformance.checks import ALL
from refimpl.contract import Example
from refimpl.data import TIERS, Tier
from refimpl.errors import UnknownNameError
from refimpl.executions.built_in import on_device
from refimpl.loading import registry, validation
from refimpl.loading.catalogue import entries
from refimpl.loading.discovery import Source
from refimpl.loading.refusal import Refusal
from refimpl.loading.registry import Registered, Registry
from refimpl.names import unknown
from refimpl.runner.pytest_plugin import DEFAULT_EXECUTIONS, Question, question_parameter

Asking = Callable[[], Result]


@dataclass(frozen=True)
class How:
    """How the checks of an example are asked: the suite's options of the same names."""

    tier: Tier = "stand-in"
    device: str = "cpu"
    executions: Sequence[str] | None = None
    reseed: int = 0
    plugins: Sequence[str] = ()
    expected_failures: Sequence[Path] = ()


def on_its_own(example: Example | str, how: How) -> Iterator[tuple[str, Asking]]:
    """The key of each result of an example, and what to call for it; other plugins are left alone.

    Raises :class:`UnknownNameError` if there is no such example, tier, execution or device,
    :class:`ExpectationsError` if a file of expected failures is invalid, and :class:`BaselineError`
    if its runs would have the seeds of baselines.
    """
    tier, device = how.tier, how.device
    if tier not in TIERS:
        raise unknown(f"there is no tier of data {tier!r}", tier, TIERS)
    loaded, name = _loaded(example, how.plugins)
    if name not in loaded.examples:
        reason = "; ".join(str(p) for p in loaded.problems if name in p.examples)
        yield _verdict(name, IN_ORDER, device, tier, reason)
        return
    registered = loaded.examples[name]
    yield _verdict(name, IN_ORDER, device, tier, "", f"registered from {registered.origin}")
    others = [loaded.execution(n) for n in _named(how.executions, loaded)]
    require_unused_seeds(how.reseed, [registered.value])
    asked = registered.value.reseeded(how.reseed)
    own = list(cells(asked, ALL, on_device(device), tier, others))
    expected = gather(loaded, how.expected_failures)
    wrong = [text for _, text in unmatched(expected.entries, own, loaded.executions)]
    if name in expected.problems:
        wrong.append(expected.problems[name])
    if expected.entries or wrong:
        yield _verdict(name, EXPECTATIONS, device, tier, "; ".join(wrong))
    for cell in own:
        yield cell.id, _asking(cell, expected.entries)


def in_tree_cells() -> list[Cell]:
    """Every check of the examples of this distribution, on both tiers, for the manifest.

    With every execution of this distribution, also those that a run has to be asked for by name.
    """
    loaded = registry.load()
    others = [own.value for own in loaded.executions.values() if _is_own(own)]
    return [
        cell
        for registered in loaded.examples.values()
        if _is_own(registered)
        for tier in get_args(Tier)
        for cell in cells(registered.value, ALL, on_device("cpu"), tier, others)
    ]


def _is_own(registered: Registered[Any]) -> bool:
    return registered.origin.startswith(("in-tree", "built-in"))


def questions(examples: Sequence[Example | str], config: pytest.Config) -> list[Any]:
    """The parameters of a test that runs every check of these examples, by pytest's options."""
    option = config.option
    how = How(
        option.data, option.device, option.execution, option.reseed, option.plugin,
        option.expected_failures,
    )  # fmt: skip
    try:
        return [
            question_parameter(Question(key, asking))
            for example in examples
            for key, asking in on_its_own(example, how)
        ]
    except (UnknownNameError, ExpectationsError, BaselineError) as error:
        raise pytest.Collector.CollectError(str(error)) from error


def _named(executions: Sequence[str] | None, loaded: Registry) -> Sequence[str]:
    if executions and "all" in executions:
        return list(loaded.executions)
    return executions or DEFAULT_EXECUTIONS


def _asking(cell: Cell, expected: Sequence[Any]) -> Asking:
    return lambda: judged(ask(cell), cell, expected)


def _verdict(
    name: str, check: str, device: str, tier: str, wrong: str, what: str = "in order"
) -> tuple[str, Asking]:
    """A result that is known already, with its key."""
    outcome: Outcome = "failed" if wrong else "passed"
    measured = (true(what, not wrong, wrong),)
    result = Result(name, "-", check, device, tier, outcome, wrong, measurements=measured)
    return result.id, lambda: result


# --- the plugin of one example -------------------------------------------------------------------


def _loaded(example: Example | str, plugins: Sequence[str]) -> tuple[Registry, str]:
    """The registry with this example's plugin and the executions, and the example's name."""
    name = example if isinstance(example, str) else example.name
    known = {entry.name for entry in entries(plugins)}
    if isinstance(example, str):
        loaded = registry.load(plugins, only=[name])
        if not any(name in problem.examples for problem in loaded.problems):
            loaded.example(name)
        return loaded, name
    loaded = registry.load(plugins, only=[name] if name in known else [])
    return _with(loaded, example), name


def _with(loaded: Registry, example: Example) -> Registry:
    """``loaded`` with this very object, which need not be the example registered by its name."""
    examples, name = dict(loaded.examples), example.name
    there = examples.pop(name, None)
    if there is not None and there.value is example:
        return loaded
    source = there.source if there else Source(name, "an object", "")
    problems = tuple(
        Refusal(source.origin, source.plugin, code, reason, hint, examples=(name,))
        for code, reason, hint in validation.check_example(example)
    )
    if not problems:
        examples[name] = Registered(example, source)
    return replace(loaded, examples=examples, problems=(*loaded.problems, *problems))
