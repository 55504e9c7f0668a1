"""The suite: its checks, the bugs that they must catch, golden files and the manifest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refimpl.checking import options as declared
from refimpl.cli.commands.arguments import (
    make_folder,
    registry_of,
    require_device,
    require_results_or_nothing,
    require_writable,
)
from refimpl.cli.commands.options import (
    data_option,
    debug_option,
    device_option,
    output_option,
    plugin_option,
    suite_option,
)
from refimpl.cli.commands.recording import BECAUSE
from refimpl.cli.messages import say
from refimpl.errors import RefimplError
from refimpl.names import unknown

if TYPE_CHECKING:
    from refimpl.contract import Example
    from refimpl.data import Tier

INPUT = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
EXISTING = click.Path(exists=True, readable=True, path_type=Path)
OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command()
@click.argument("names", nargs=-1)
@click.option("-n", "workers", default="auto", show_default=True, metavar="N",
              help="Number of worker processes, or auto; 0 runs in this process.")  # fmt: skip
@data_option
@device_option
@suite_option(declared.EXECUTION, "executions")
@suite_option(declared.RESEED, type=click.IntRange(min=0))
@suite_option(declared.RESULTS, type=OUTPUT, callback=require_writable)
@click.option("--resume", is_flag=True,
              help="Go on with a run that was ended, from --results FILE.part.")  # fmt: skip
@click.option("--changed", is_flag=True,
              help="Keep the answers in --results FILE that nothing can have changed, and run the "
              "others.")  # fmt: skip
@suite_option(declared.EXPECTED_FAILURES, type=INPUT)
@suite_option(declared.AGAINST, type=EXISTING)
@suite_option(declared.VARIANT, "variants")
@suite_option(declared.CHECK, "checks")
@suite_option(declared.FAILED, type=INPUT)
@click.option("--first", is_flag=True, help="Stop at the first failure.")
@click.option("-v", "--verbose", is_flag=True, help="Show pytest's own output.")
@plugin_option
@debug_option
def check(
    names: tuple[str, ...],
    workers: str,
    tier: Tier,
    device: str,
    executions: tuple[str, ...],
    reseed: int,
    results: Path | None,
    resume: bool,
    changed: bool,
    expected_failures: tuple[Path, ...],
    against: tuple[Path, ...],
    variants: tuple[str, ...],
    checks: tuple[str, ...],
    failed: Path | None,
    first: bool,
    verbose: bool,
    plugins: tuple[str, ...],
) -> int:
    """Run every check on the named examples (default: all).

    Ends with the verdict in a sentence; before it, what was found and what to do about it.
    """
    if workers != "auto" and not workers.isdigit():
        raise click.BadParameter(f"{workers!r} is neither a number nor 'auto'", param_hint="-n")
    from refimpl.baselines.committed import BaselineError, require_unused_seeds

    require_results_or_nothing(results)
    if resume and results is None:
        raise click.UsageError("--resume needs --results FILE: the run's FILE.part is resumed")
    if changed and (results is None or not results.is_file()):
        raise click.UsageError("--changed needs --results FILE, with the answers of an earlier run")
    if changed and resume:
        raise click.UsageError("--changed and --resume cannot be given together")
    _require_examples(names, expected_failures, plugins)
    try:
        require_unused_seeds(reseed)
    except BaselineError as error:
        raise click.BadParameter(str(error), param_hint="--reseed") from error
    require_device(device)
    if failed is not None:
        names = names or _examples_failed_in(failed)
        if not names:
            return _nothing_failed_in(failed)
    if executions or tier == "real":
        _require_what_plugins_give(names, executions, device, tier, plugins)

    from refimpl.cli.suite_process import SETTINGS, run_suite

    arguments = ["--pyargs", "refimpl.conformance", "-q", "--no-header", "-n", workers]
    arguments += ["-c", str(SETTINGS), "--rootdir", os.getcwd(), "--noconftest"]
    arguments += ["-p", "no:cacheprovider", "--data", tier, "--device", device]
    arguments += ["--reseed", str(reseed)]
    for option, values in (
        ("--example", names), ("--plugin", plugins), ("--execution", executions),
        ("--variant", variants), ("--check", checks), ("--against", against),
        ("--expected-failures", expected_failures), ("--failed", (failed,)),
    ):  # fmt: skip
        arguments += [part for value in values if value for part in (option, str(value))]
    arguments += ["--resume"] if resume else []
    arguments += ["--changed"] if changed else []
    arguments += ["-x"] if first else []
    return run_suite(arguments, results, verbose)


def _examples_failed_in(path: Path) -> tuple[str, ...]:
    """The examples of which something failed in a results file."""
    from refimpl.checking.results import read

    failed = (r.example for r in read(path).checks if r.outcome == "failed")
    return tuple(dict.fromkeys(name for name in failed if "#" not in name))


def _nothing_failed_in(path: Path) -> int:
    from refimpl.checking.results import read

    found = read(path)
    if found.complete:
        say(f"nothing failed in {path}")
        return 0
    count = len(found.checks)
    raise RefimplError(
        f"nothing failed in the {count} checks of {path}, which ends early; run the rest: "
        "refimpl check --results FILE"
    )


def _require_examples(
    names: Sequence[str], expected_failures: Sequence[Path], plugins: Sequence[str]
) -> None:
    """Refuse an unknown example, on the command line or in a file of expected failures.

    The names in the file are only checked if every example is known and no example is named.
    """
    from refimpl.loading.catalogue import entries

    found = entries(plugins)
    known = {entry.name for entry in found if entry.name}
    all_known = all(entry.complete for entry in found)
    for name in names:
        if name not in known and all_known:
            raise unknown(f"there is no example {name!r}", name, known)
        if name not in known:
            _require_given(name, plugins)
    if not expected_failures:
        return
    from refimpl.checking.expectations import read

    for entry in (entry for file in expected_failures for entry in read(file)):
        if entry.example is not None and entry.example not in known and all_known and not names:
            what = f"{entry.file} names an unknown example {entry.example!r}"
            raise unknown(what, entry.example, known)


def _require_given(name: str, plugins: Sequence[str]) -> None:
    """Refuse a name that no plugin has; the suite reports examples that were refused."""
    loaded = registry_of(name, plugins)
    if not any(name in problem.examples for problem in loaded.problems):
        loaded.example(name)


def _require_what_plugins_give(
    names: Sequence[str],
    executions: Sequence[str],
    device: str,
    tier: Tier,
    plugins: Sequence[str],
) -> None:
    """Refuse an unknown execution, and real data if no example has any.

    The suite reports examples whose plugin was refused.
    """
    from refimpl.loading import registry
    from refimpl.requirements import require_some_real_data

    loaded = registry.load(plugins, only=names or None)
    for execution in executions:
        lacking = None if execution == "all" else loaded.execution(execution, device).missing()
        if lacking:
            raise RefimplError(f"execution {execution!r} cannot run here: {lacking}")
    if tier == "real":
        found = loaded.examples
        require_some_real_data(found[name].value for name in names or found if name in found)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--mutant", "mutants", multiple=True, metavar="NAME",
              help="Plant only this bug (repeatable).")  # fmt: skip
@click.option("--variant", "variants", multiple=True, metavar="NAME",
              help="Plant it only in this variant (repeatable).")  # fmt: skip
@click.option("--every-variant", is_flag=True,
              help="Plant it in every variant, not only in the first "
              "where it has an effect.")  # fmt: skip
@click.option("--without", multiple=True, metavar="CHECK",
              help="Leave out this check, to see what the others catch (repeatable).")  # fmt: skip
@click.option("--only", multiple=True, metavar="CHECK",
              help="Run only this check, to see what it catches (repeatable).")  # fmt: skip
@click.option("--equivalent", "equivalents", multiple=True, metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path),
              help="File of mutants that are not bugs, in addition to the suite's own list "
              "(repeatable).")  # fmt: skip
@data_option
@output_option("--results", help="Keep the findings in this file and continue where it ends; "
               "missing folders are created.")  # fmt: skip
@output_option("--table", help="Write the page of the mutants to this file; "
               "missing folders are created.")  # fmt: skip
@click.option("--list", "only_list", is_flag=True, help="List the mutants and exit.")
@plugin_option
@debug_option
def mutants(
    names: tuple[str, ...],
    mutants: tuple[str, ...],
    variants: tuple[str, ...],
    every_variant: bool,
    without: tuple[str, ...],
    only: tuple[str, ...],
    equivalents: tuple[Path, ...],
    tier: Tier,
    results: Path | None,
    table: Path | None,
    only_list: bool,
    plugins: tuple[str, ...],
) -> int:
    """Plant known training bugs; a check must catch each one.

    They are planted in the named examples (default: all).
    """
    from importlib import import_module

    from refimpl.writing import AloneError, alone

    command = import_module("refimpl.conformance.mutants.command")
    if only_list:
        say(command.catalogue())
        return 0
    make_folder(results)
    make_folder(table)
    with ExitStack() as held:
        if results is not None:
            try:
                held.enter_context(alone(results))
            except AloneError as error:
                raise RefimplError(f"--results {results}: {error}; choose another file") from error
        found: int = command.hunt(
            names, plugins, tier, mutants=mutants, variants=variants, every_variant=every_variant,
            without=command.left_out(without, only), equivalents=equivalents, results=results,
            table=table,
        )  # fmt: skip
    return found


@click.command()
@click.argument("names", nargs=-1)
@click.option("--update", is_flag=True, help="Write the golden files again, with this torch.")
@BECAUSE
@plugin_option
@debug_option
def golden(names: tuple[str, ...], update: bool, because: str, plugins: tuple[str, ...]) -> int:
    """Compare first steps with those committed from another torch.

    Covers every variant of the named examples (default: all).
    """
    from refimpl.loading import registry
    from refimpl.parity import golden as goldens

    loaded = registry.load(plugins, only=names or None)
    examples = loaded.chosen(names)
    if update:
        _update_goldens(examples, because)
        return 0
    agree: list[bool] = []
    for example in examples:
        if not example.variants:
            say(f"{example.name}: trains nothing, so it has no golden trajectory")
        for variant in example.variants:
            if lacking := goldens.not_comparable(example, variant):
                say(f"{example.name}: {variant.name} is not compared: {lacking}")
                continue
            comparison = goldens.compare_with_golden(example, variant)
            agree.append(comparison.agrees)
            say(f"{example.name}: {comparison}")
    if not agree:
        raise RefimplError(
            "nothing was compared: no variant of the named examples has a golden trajectory that "
            "can be compared here"
        )
    return 0 if all(agree) else 1


def _update_goldens(examples: Iterable[Example], because: str) -> None:
    from refimpl.parity.golden import update

    written = False
    for path in update(examples, because):
        written = True
        say(f"wrote {path.name} ({path.stat().st_size / 1024:.0f} KiB)")
    if not written:
        raise RefimplError("nothing was written: no variant of the named examples trains")


@click.command()
@click.option("--update", is_flag=True, help="Write today's checks to the manifest.")
@debug_option
def manifest(update: bool) -> int:
    """Show which checks of the manifest are missing or new."""
    from importlib import import_module

    from refimpl.checking import manifest as manifests
    from refimpl.checking.plan import in_tree_cells
    from refimpl.cli.rendering import print_manifest
    from refimpl.loading import registry

    checks = import_module("refimpl.conformance.checks").ALL
    today = manifests.made_of(in_tree_cells(registry.load(), checks))
    if update:
        manifests.write(today, manifests.path())
    committed = manifests.read(manifests.path())
    return print_manifest(committed, today)
