"""The command line. Every command imports what it needs when it runs: help and lists are quick."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import click

from refimpl._version import __version__
from refimpl.errors import RefimplError
from refimpl.names import unknown

if TYPE_CHECKING:
    from refimpl.contract import Example, Variant
    from refimpl.data import Tier
    from refimpl.registry import Registry

Command = TypeVar("Command", bound=Callable[..., Any])

NO_ARGUMENTS: type[Exception] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What newer versions of click raise with the help as its text; older ones print it themselves."""

_SUITE_SETTINGS = Path(__file__).with_name("suite.ini")

LINES_OF_PROGRESS = 20
"""How many epochs a run shows at the most where it does not write to a terminal."""


class Group(click.Group):
    """A group of commands that answers a mistyped one with the nearest there is."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of that name; raises :class:`UnknownNameError` for another."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            names = self.list_commands(ctx)
            raise unknown(f"there is no command {args[0]!r}", args[0], names)
        return super().resolve_command(ctx, args)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; an error is one line on standard error and a non-zero exit."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = cli.main(given, prog_name="refimpl", standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, NO_ARGUMENTS):
            click.echo(error.format_message(), err=True)
        else:
            _complain(error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        sys.exit(130)
    except RefimplError as error:
        if "--debug" in given:
            raise
        _complain(str(error))
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        if "--debug" in given:
            raise
        _complain(f"{type(error).__name__}: {error} (--debug shows where)")
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str) -> None:
    click.echo(f"refimpl: {' '.join(message.split())}", err=True)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="refimpl")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Does PyTorch still do what its documents say?"""


# --- options that several commands share ---------------------------------------------------------


def _require_plugins(
    context: click.Context, parameter: click.Parameter, plugins: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse a plugin that is not there at once, not after everything else was looked at."""
    if plugins:
        from refimpl.catalogue import not_found

        for why in not_found(plugins):
            raise RefimplError(why)
    return plugins


def plugin_option(command: Command) -> Command:
    """``--plugin``, as every command that looks at examples takes it."""
    return click.option(
        "--plugin", "plugins", multiple=True, metavar="FILE|MODULE", callback=_require_plugins,
        help="Look at the examples of this plugin too.",
    )(command)  # fmt: skip


def data_option(command: Command) -> Command:
    """``--data``, the tier to train on."""
    return click.option(
        "--data", "tier", type=click.Choice(["stand-in", "real"]), default="stand-in",
        show_default=True, help="Generated stand-ins, or the documents' own data (REFIMPL_DATA).",
    )(command)  # fmt: skip


def device_option(command: Command) -> Command:
    """``--device``, by torch's name for it."""
    return click.option(
        "--device", default="cpu", show_default=True, metavar="DEVICE",
        help="What to run on, by torch's name for it: cpu, cuda, cuda:1, mps …",
    )(command)  # fmt: skip


def _require_writable(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse what could not be written before the work, not after it; nothing is left there.

    Folders that are not there yet can be made where the nearest one that is can be written to.
    """
    if path is None or (os.path.exists(path) and not path.is_file() and not path.is_dir()):
        return path  # a pipe or a device is written to as it is
    begin = path.absolute() if os.path.isdir(path) else path.absolute().parent
    folder = next(each for each in (begin, *begin.parents) if os.path.exists(each))
    try:
        tempfile.NamedTemporaryFile(dir=folder, prefix=path.name, suffix=".part").close()
    except OSError as error:
        raise RefimplError(
            f"cannot write {path}: no file can be made in {folder} ({error.strerror}); "
            f"give {parameter.opts[0]} another place"
        ) from error
    return path


def output_option(*names: str, folder: bool = False, **more: Any) -> Callable[[Command], Command]:
    """An option that names a file, or a folder, to write to."""
    kind = click.Path(file_okay=not folder, dir_okay=folder, writable=True, path_type=Path)
    return click.option(
        *names, type=kind, metavar="FOLDER" if folder else "FILE", callback=_require_writable,
        **more,
    )  # fmt: skip


def _require_apart(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that would overwrite another one, or what is read."""
    taken = {path.absolute(): f"{path} is read" for path in inputs}
    for option, path in outputs.items():
        if path is None or (path.exists() and not path.is_file()):
            continue  # several things may go to a pipe or a device
        if path.absolute() in taken:
            raise RefimplError(f"{option} {path}: {taken[path.absolute()]}; give another file")
        taken[path.absolute()] = f"{option} goes there"


def _require_results_or_nothing(path: Path | None) -> None:
    """Refuse to write results over a file that has something else in it."""
    if path is not None and path.is_file() and path.stat().st_size:
        with path.open("rb") as stream:
            if not stream.read(20).startswith(b'{"$report_type"'):
                raise RefimplError(
                    f"--results {path}: it is there and is no results file; give another file"
                )


def _make_folder(path: Path | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)


def debug_option(command: Command) -> Command:
    """``--debug`` after the command's name too, where people type it."""
    return click.option("--debug", is_flag=True, expose_value=False, hidden=True)(command)


def _load(name: str, plugins: Sequence[str]) -> Registry:
    """The registry with the plugin of this example; the others are not imported."""
    from refimpl import registry

    return registry.load(plugins, only=[name])


def _example(name: str, plugins: Sequence[str]) -> tuple[Example, str]:
    """An example and its origin; an unknown name is answered from the sources alone, at once."""
    from refimpl.catalogue import entries

    found = entries(plugins)
    known = {entry.name for entry in found if entry.name}
    if name not in known and all(entry.complete for entry in found):
        raise unknown(f"there is no example {name!r}", name, known)
    loaded = _load(name, plugins)
    example = loaded.example(name)
    for problem in loaded.problems:
        click.echo(f"refimpl: left out: {problem}", err=True)
    return example, loaded.examples[name].origin


@contextmanager
def _saying_where(example: Example) -> Iterator[None]:
    """Add the line of the plugin to whatever its code raises."""
    from refimpl.whereabouts import where_in

    try:
        yield
    except (RefimplError, BrokenPipeError):
        raise
    except Exception as error:
        place = where_in(example, error)
        raise RefimplError(
            f"{type(error).__name__}: {error}{place} (--debug shows more)"
        ) from error


def _require_device(device: str) -> None:
    from refimpl.executions import on_device

    lacking = on_device(device).missing()
    if lacking:
        raise RefimplError(f"device {device!r} cannot be used here: {lacking}")


# --- list, info, env, errata ---------------------------------------------------------------------


@cli.command("list")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@debug_option
def list_command(plugins: tuple[str, ...], as_json: bool) -> int:
    """Every example: its document, how many variants, its title.

    An example of a plugin says where it comes from, too. --json has the variants' names and every
    origin.
    """
    from refimpl.listing import listed, problems

    examples, wrong = listed(plugins), problems(plugins)
    if as_json:
        click.echo(json.dumps([entry.as_dict() for entry in examples], indent=2))
    else:
        from refimpl.rendering import print_list

        print_list(examples)
    for problem in wrong:
        _complain(str(problem))
    return 1 if wrong else 0


@cli.command()
@click.argument("name")
@click.option("--variant", help="Only this variant.")
@data_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@plugin_option
@debug_option
def info(
    name: str, variant: str | None, tier: Tier, as_json: bool, plugins: tuple[str, ...]
) -> None:
    """Facts, variants and layers of an example.

    They are measured from its live models.
    """
    from refimpl.inspection import describe

    example, origin = _example(name, plugins)
    description = describe(example, origin, tier, variant)
    if as_json:
        click.echo(json.dumps(description, indent=2, default=str))
        return
    from refimpl.rendering import print_info

    print_info(description)


@cli.command()
@debug_option
def env() -> None:
    """Python, torch, devices and extras: what is here.

    Of an extra that is not here, it says why.
    """
    from refimpl.environment import environment, extras
    from refimpl.rendering import print_environment

    print_environment(environment(), extras())


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@plugin_option
@debug_option
def errata(names: tuple[str, ...], as_json: bool, plugins: tuple[str, ...]) -> int:
    """What the documents say that no longer holds, tried here."""
    from refimpl import registry
    from refimpl.errata import tried
    from refimpl.rendering import print_errata

    loaded = registry.load(plugins, only=names or None)
    examples = loaded.chosen(names)
    found = [line for example in examples for line in tried(example)]
    if as_json:
        click.echo(json.dumps([line.as_dict() for line in found], indent=2))
    else:
        print_errata(found)
    return 0 if all(line.as_expected for line in found) else 1


# --- run -----------------------------------------------------------------------------------------


@cli.command()
@click.argument("name")
@click.option("--variant", help="Which variant (default: the example's first).")
@data_option
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of the documented number.")
@click.option("--seed", type=click.IntRange(min=0),
              help="Of start and batch order (default: the start that the document prints, if "
              "it does, and else the variant's own seed).")  # fmt: skip
@device_option
@output_option("--plot", help="Draw the learning curves to this file; missing folders are made.")
@output_option("--save", help="Save parameters and optimizer state to this file; "
               "missing folders are made.")  # fmt: skip
@plugin_option
@debug_option
def run(
    name: str,
    variant: str | None,
    tier: Tier,
    epochs: int | None,
    seed: int | None,
    device: str,
    plot: Path | None,
    save: Path | None,
    plugins: tuple[str, ...],
) -> None:
    """Train an example by its document's protocol.

    Prints its epochs as they end, and its final figures.
    """
    from dataclasses import replace

    _require_apart({"--plot": plot, "--save": save})
    example, _ = _example(name, plugins)
    chosen = example.variant(variant)
    if plot is not None:
        from refimpl.plotting import require_format

        require_format(plot)
    _require_device(device)
    if epochs is not None and chosen.protocol is not None:
        protocol = replace(chosen.protocol, epochs=epochs, stand_in_epochs=None)
        chosen = replace(chosen, protocol=protocol)

    from refimpl.checking import Subject, obstacle
    from refimpl.executions import on_device
    from refimpl.problem import pose
    from refimpl.progress import RunProgress, final_line
    from refimpl.training import train

    execution = on_device(device)
    if chosen.data is not None and tier == "real":
        chosen.data.load(tier)  # what is wrong with the data is an error here, not a skip
    lacking = obstacle(Subject(example, chosen, execution, tier))
    if lacking:
        raise RefimplError(f"{name} {chosen.name} cannot run here: {lacking}")
    with (
        _saying_where(example),
        RunProgress(example, chosen, tier, LINES_OF_PROGRESS) as progress,
    ):
        problem = pose(chosen, tier, seed=seed, execution=execution)
        history = train(chosen, problem, on_epoch=progress.epoch)
    if save:
        from refimpl.checkpoint import save as save_checkpoint
        from refimpl.checkpoint import take

        assert history.last is not None
        save_checkpoint(take(history.last, history.steps), save)
        click.echo(f"saved {save}")
    if plot:
        from refimpl.plotting import plot_history

        _make_folder(plot)
        plot_history(history, f"{name} · {chosen.name} · {tier} data", plot)
        click.echo(f"plotted {plot}")
    click.echo(final_line(history.final))


# --- compare and check ---------------------------------------------------------------------------


@cli.command()
@click.argument("name")
@click.argument("variants", nargs=-1)
@click.option("--execution", metavar="NAME",
              help="Compare the variant carried out so, not two variants.")  # fmt: skip
@click.option("--against", type=click.Choice(["cpu"]), default="cpu", show_default=True,
              help="What an execution is held against: the oracle, which is the variant "
              "in float64 on the CPU.")  # fmt: skip
@data_option
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True,
              help="How many updates to compare.")  # fmt: skip
@device_option
@plugin_option
@debug_option
def compare(
    name: str,
    variants: tuple[str, ...],
    execution: str | None,
    against: str,
    tier: Tier,
    steps: int,
    device: str,
    plugins: tuple[str, ...],
) -> int:
    """Compare two variants, or a variant on two executions.

    They make the same updates in lock-step; where they first part is named.

    refimpl compare NAME A B: both take B's start and A's batches; A in float64 is the oracle.

    refimpl compare NAME [VARIANT] --execution cuda: the variant there against its oracle here.
    """
    example, _ = _example(name, plugins)
    if execution is not None:
        if len(variants) > 1:
            raise click.UsageError("with --execution, name one variant at the most")
        if device != "cpu":
            raise click.UsageError(
                f"--execution {execution} says where to run; leave --device {device} out"
            )
        chosen = example.variant(variants[0] if variants else None)
        with _saying_where(example):
            return _compare_execution(chosen, execution, tier, steps, plugins)
    if len(variants) != 2:
        raise click.UsageError("name two variants, A and B, or one --execution")
    _require_device(device)
    first, second = example.variant(variants[0]), example.variant(variants[1])
    _require_one_ladder(example, first, second)

    from refimpl.executions import on_device
    from refimpl.lockstep import compare_in_ladder

    on = on_device(device)
    agrees = True
    for precision in ("float64", "float32"):
        with _saying_where(example):
            comparison = compare_in_ladder(first, second, tier, steps, precision, on)
        agrees = agrees and comparison.agrees
        click.echo(str(comparison))
    return 0 if agrees else 1


def _compare_execution(
    variant: Variant, name: str, tier: Tier, steps: int, plugins: Sequence[str]
) -> int:
    from refimpl import registry
    from refimpl.parity import compare_execution

    execution = registry.load(plugins, only=[]).execution(name)
    lacking = execution.missing()
    if lacking:
        raise RefimplError(f"execution {name!r} cannot be carried out here: {lacking}")
    if not execution.suits(variant):
        raise RefimplError(f"variant {variant.name!r} cannot be carried out as {name!r}")
    comparison = compare_execution(variant, execution, tier, steps)
    click.echo(str(comparison))
    return 0 if comparison.agrees else 1


def _require_one_ladder(example: Example, first: Variant, second: Variant) -> None:
    if first.ladder is None or first.ladder != second.ladder:
        others = [
            v.name
            for v in example.variants
            if v.ladder and v.ladder == first.ladder and v.name != first.name
        ]
        raise RefimplError(
            f"{first.name} and {second.name} of {example.name} are not the same computation; "
            f"{first.name} can be compared with: {', '.join(others) or 'nothing'}"
        )


@cli.command()
@click.argument("names", nargs=-1)
@click.option("-n", "workers", default="auto", show_default=True, metavar="N",
              help="How many processes, or auto; 0 for none but this.")  # fmt: skip
@data_option
@device_option
@click.option("--execution", "executions", multiple=True, metavar="NAME",
              help="Hold this execution against the oracle "
              "(repeatable; 'all' for every one).")  # fmt: skip
@click.option("--reseed", type=click.IntRange(min=0), default=0, metavar="N",
              help="Add N to the seed of every run: the same checks of other draws. Baselines have "
              "the seeds from 1000 on, so take a multiple of 100 up to 800, "
              "or 2000 and more.")  # fmt: skip
@output_option("--results", help="Write the results to this file, as JSON Lines; "
               "missing folders are made.")  # fmt: skip
@click.option("--expected-failures", metavar="FILE",
              type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
              help="Failures to expect, beside those plugins bring.")  # fmt: skip
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
    expected_failures: Path | None,
    plugins: tuple[str, ...],
) -> int:
    """Ask every check of the examples named, or of all.

    Prints one table, and what to do about each failure.
    """
    if workers != "auto" and not workers.isdigit():
        raise click.BadParameter(f"{workers!r} is neither a number nor 'auto'", param_hint="-n")
    from refimpl.baselines import BaselineError, require_unused_seeds

    _require_results_or_nothing(results)
    _require_examples(names, expected_failures, plugins)
    try:
        require_unused_seeds(reseed)
    except BaselineError as error:
        raise click.BadParameter(str(error), param_hint="--reseed") from error
    _require_device(device)
    if executions or tier == "real":
        _require_what_plugins_give(names, executions, tier, plugins)

    import pytest

    arguments = ["--pyargs", "refimpl.conformance", "-q", "--no-header", "-n", workers]
    arguments += ["-c", str(_SUITE_SETTINGS), "--rootdir", os.getcwd(), "--noconftest"]
    arguments += ["-p", "no:cacheprovider", "--data", tier, "--device", device]
    arguments += ["--reseed", str(reseed)]
    arguments += [part for name in names for part in ("--example", name)]
    arguments += [part for plugin in plugins for part in ("--plugin", plugin)]
    arguments += [part for each in executions for part in ("--execution", each)]
    if results:
        arguments += ["--results", str(results)]
    if expected_failures:
        arguments += ["--expected-failures", str(expected_failures)]
    return int(pytest.main(arguments))


def _require_examples(
    names: Sequence[str], expected_failures: Path | None, plugins: Sequence[str]
) -> None:
    """Refuse a name that no example has, here or in a file of expected failures.

    Of the file, as of the suite itself, this is asked where every example is.
    """
    from refimpl.catalogue import entries

    found = entries(plugins)
    known = {entry.name for entry in found if entry.name}
    all_known = all(entry.complete for entry in found)
    for name in names:
        if name not in known and all_known:
            raise unknown(f"there is no example {name!r}", name, known)
        if name not in known:
            _require_given(name, plugins)
    if expected_failures is None:
        return
    from refimpl.expectations import read

    for entry in read(expected_failures):
        if entry.example not in known and all_known and not names:
            what = f"{expected_failures} expects failures of {entry.example!r}, which is no example"
            raise unknown(what, entry.example, known)


def _require_given(name: str, plugins: Sequence[str]) -> None:
    """Refuse a name that no plugin gives; an example that was refused is left to the suite."""
    loaded = _load(name, plugins)
    if not any(name in problem.examples for problem in loaded.problems):
        loaded.example(name)


def _require_what_plugins_give(
    names: Sequence[str], executions: Sequence[str], tier: Tier, plugins: Sequence[str]
) -> None:
    """Refuse an execution that there is not, and a tier of which there is no data at all.

    An example whose plugin was refused is left for the suite to report.
    """
    from refimpl import registry
    from refimpl.requirements import require_some_real_data

    loaded = registry.load(plugins, only=names or None)
    for execution in executions:
        if execution != "all":
            loaded.execution(execution)
    if tier == "real":
        found = loaded.examples
        require_some_real_data(found[name].value for name in names or found if name in found)


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--mutant", "mutants", multiple=True, metavar="NAME",
              help="Plant this one only (repeatable).")  # fmt: skip
@click.option("--variant", "variants", multiple=True, metavar="NAME",
              help="In this variant only (repeatable).")  # fmt: skip
@click.option("--every-variant", is_flag=True,
              help="In every variant, not only in the first where it takes effect.")  # fmt: skip
@click.option("--without", multiple=True, metavar="CHECK",
              help="Do without this check, to see what the others catch.")  # fmt: skip
@click.option("--equivalent", "equivalents", multiple=True, metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path),
              help="Mutants that are no bug, beside those that the suite lists.")  # fmt: skip
@data_option
@output_option("--results", help="Keep what is found in this file, and go on where it ends; "
               "missing folders are made.")  # fmt: skip
@output_option("--table", help="Write the page of the mutants to this file; "
               "missing folders are made.")  # fmt: skip
@click.option("--list", "only_list", is_flag=True, help="Say which mutants there are.")
@plugin_option
@debug_option
def mutants(
    names: tuple[str, ...],
    mutants: tuple[str, ...],
    variants: tuple[str, ...],
    every_variant: bool,
    without: tuple[str, ...],
    equivalents: tuple[Path, ...],
    tier: Tier,
    results: Path | None,
    table: Path | None,
    only_list: bool,
    plugins: tuple[str, ...],
) -> int:
    """Plant known training bugs: a check must kill each.

    They are planted in the examples named, or in all.
    """
    from importlib import import_module

    command = import_module("refimpl.conformance.mutants.command")
    if only_list:
        click.echo(command.catalogue())
        return 0
    _make_folder(results)
    _make_folder(table)
    found: int = command.hunt(
        names, plugins, tier, mutants=mutants, variants=variants, every_variant=every_variant,
        without=without, equivalents=equivalents, results=results, table=table,
    )  # fmt: skip
    return found


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--update", is_flag=True, help="Write the golden files anew from this torch.")
@plugin_option
@debug_option
def golden(names: tuple[str, ...], update: bool, plugins: tuple[str, ...]) -> int:
    """Hold first steps against those committed from another torch.

    Of every variant of the examples named, or of all.
    """
    from refimpl import golden as goldens
    from refimpl import registry

    loaded = registry.load(plugins, only=names or None)
    examples = loaded.chosen(names)
    if update:
        _update_goldens(examples)
        return 0
    agree: list[bool] = []
    for example in examples:
        if not example.variants:
            click.echo(f"{example.name}: trains nothing, so it has no golden trajectory")
        for variant in example.variants:
            if lacking := goldens.not_comparable(example.name, variant):
                click.echo(f"{example.name}: {variant.name} is not compared: {lacking}")
                continue
            comparison = goldens.compare_with_golden(example.name, variant)
            agree.append(comparison.agrees)
            click.echo(f"{example.name}: {comparison}")
    if not agree:
        raise RefimplError(
            "nothing was compared: no variant of what was named has a golden trajectory to be "
            "held against here"
        )
    return 0 if all(agree) else 1


def _update_goldens(examples: Iterable[Example]) -> None:
    from refimpl.golden import update

    written = False
    for path in update(examples):
        written = True
        click.echo(f"wrote {path.name} ({path.stat().st_size / 1024:.0f} KiB)")
    if not written:
        raise RefimplError("nothing was written: no variant of what was named trains anywhere")


@cli.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option("-o", "--output", help="Write the table to this file instead of printing it; "
               "missing folders are made.")  # fmt: skip
@plugin_option
@debug_option
def figures(results: tuple[Path, ...], output: Path | None, plugins: tuple[str, ...]) -> None:
    """The documents' figures beside those measured on real data.

    They are a table in Markdown.
    """
    from refimpl import registry
    from refimpl.figures import lines, markdown
    from refimpl.results import read

    examples = {name: r.value for name, r in registry.load(plugins).examples.items()}
    table = markdown(list(lines([read(path) for path in results], examples)))
    if output is None:
        click.echo(table, nl=False)
    else:
        head = (
            "# The documents' figures, measured on real data\n\n"
            "Made by `refimpl figures RESULTS -o FILE` from the results files of "
            "`refimpl check --data real`; not written by hand.\n\n"
        )
        _make_folder(output)
        output.write_text(head + table, encoding="utf-8")
        click.echo(f"wrote {output}")


@cli.command()
@click.option("--update", is_flag=True, help="Write down the checks that are asked today.")
@debug_option
def manifest(update: bool) -> int:
    """Say which checks of the manifest are gone, and which are new."""
    from importlib import import_module

    from refimpl import manifest as manifests
    from refimpl.rendering import print_manifest

    today = manifests.made_of(import_module("refimpl.conformance.asking").in_tree_cells())
    if update:
        manifests.write(today, manifests.path())
    committed = manifests.read(manifests.path())
    return print_manifest(committed, today)


# --- baselines -----------------------------------------------------------------------------------


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--seeds", default=50, show_default=True, type=click.IntRange(5),
              help="How many runs each baseline shall have in all.")  # fmt: skip
@click.option("--variant", "variants", multiple=True, metavar="NAME",
              help="Only variants of this name (repeatable).")  # fmt: skip
@data_option
@click.option("-n", "workers", type=click.IntRange(1), default=None, metavar="N",
              help="How many processes; one a core by default.")  # fmt: skip
@click.option("--engine", "kind", type=click.Choice(["processes", "ray"]), default="processes",
              show_default=True,
              help="Who trains: processes of this machine, or a Ray cluster.")  # fmt: skip
@click.option("--address", metavar="HOST:PORT",
              help="Where the Ray cluster is; without it, "
              "Ray starts one of this machine.")  # fmt: skip
@output_option("--fresh", folder=True,
               help="Put runs of seeds that no baseline has into this folder instead, for "
               "audit --fresh; missing folders are made.")  # fmt: skip
@plugin_option
@debug_option
def calibrate(
    names: tuple[str, ...],
    seeds: int,
    variants: tuple[str, ...],
    tier: Tier,
    workers: int | None,
    kind: Literal["processes", "ray"],
    address: str | None,
    fresh: Path | None,
    plugins: tuple[str, ...],
) -> None:
    """Train many seeds and keep how they end as baselines.

    Of the examples named, or of all. Each finished seed is on the disk before the next
    begins: if it is interrupted, only the seeds in flight are lost; run it again to go on.
    """
    from dataclasses import replace

    from refimpl import calibration, registry
    from refimpl.baselines import FIRST_SEED, FRESH_SEED
    from refimpl.progress import CalibrationProgress
    from refimpl.requirements import require_some_real_data
    from refimpl.seeds import Engine

    engine = Engine(workers or os.cpu_count() or 1, kind, address)
    loaded = registry.load(plugins, only=names or None)
    examples = loaded.chosen(names)
    _require_variants(names, examples, variants)
    if tier == "real":
        require_some_real_data(examples)
    first_seed = FIRST_SEED
    if fresh is not None:
        examples, first_seed = [replace(each, baselines=fresh) for each in examples], FRESH_SEED
    chosen = list(calibration.wanted(examples, variants, tier))
    if not chosen:
        raise RefimplError("nothing of what was named trains here, so there is no baseline to make")
    with CalibrationProgress() as progress:
        paths = calibration.calibrate(
            chosen, tier, seeds, engine, plugins, progress, first_seed, curves=fresh is None
        )
    click.echo(f"{len(paths)} baselines of {seeds} seeds in {paths[0].parent}")


def _require_variants(
    names: Sequence[str], examples: Iterable[Example], variants: Iterable[str]
) -> None:
    known = {variant.name for example in examples for variant in example.variants}
    for variant in variants:
        if variant not in known:
            whose = ", ".join(names) or "any example"
            raise unknown(f"there is no variant {variant!r} of {whose}", variant, known)


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="As JSON, with every figure.")
@click.option("--fresh", type=click.Path(exists=True, file_okay=False, path_type=Path),
              metavar="FOLDER",
              help="Judge the runs that calibrate --fresh has put there "
              "and count the alarms.")  # fmt: skip
@output_option("--table", help="Write the page of the audit to this file; "
               "missing folders are made.")  # fmt: skip
@plugin_option
@debug_option
def audit(
    names: tuple[str, ...],
    as_json: bool,
    fresh: Path | None,
    table: Path | None,
    plugins: tuple[str, ...],
) -> int:
    """Hold the baselines to the error rates that they declare.

    They declare how often a check of an unchanged program would fail.

    Exits with 1 where the sweep, or one figure of it, fails more often than declared, where a
    training variant has no baseline, where most runs miss a range that is stated, or where a
    documented figure lies outside its band.
    """
    from refimpl import audit_page, registry
    from refimpl.auditing import audited
    from refimpl.rendering import print_audit
    from refimpl.writing import write_lines

    loaded = registry.load(plugins, only=names or None)
    examples = loaded.chosen(names)
    found = audited(examples, fresh)
    if as_json:
        click.echo(json.dumps(found.record(), indent=2))
    else:
        print_audit(found)
    if table is not None:
        write_lines(table, audit_page.page(found).splitlines())
    return 0 if found.holds else 1


# --- report --------------------------------------------------------------------------------------


@cli.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option("-o", "--output", default="report.html", show_default=True,
               help="Where the page goes; its folder must be there.")  # fmt: skip
@click.option("--against", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Say what changed since these earlier results.")  # fmt: skip
@output_option("--markdown", help="Write a summary too, for the page of a CI job.")
@click.option("--expect", multiple=True, metavar="NAME",
              help="There should be a NAME.jsonl, or the cell is shown as not run; "
              "py3{10,11}-torch26 means two.")  # fmt: skip
@click.option("--exit-code", is_flag=True, help="Exit with 1 unless everything passed.")
@debug_option
def report(
    results: tuple[Path, ...],
    output: Path,
    against: tuple[Path, ...],
    markdown: Path | None,
    expect: tuple[str, ...],
    exit_code: bool,
) -> int:
    """Make one page out of results files, or of folders of them.

    The page holds everything it shows and fetches nothing.
    """
    from refimpl.report.columns import names_meant
    from refimpl.report.command import write_report

    _require_apart({"-o": output, "--markdown": markdown}, (*results, *against))
    made = write_report(results, output, against, markdown, names_meant(expect))
    click.echo(f"{made.verdict.headline}: {made.verdict.sentence}")
    click.echo(f"wrote {output}" + (f" and {markdown}" if markdown else ""))
    return int(exit_code and made.verdict.state != "passed")


# --- data ----------------------------------------------------------------------------------------


@cli.group(cls=Group)
def data() -> None:
    """The documents' own data: what is here and whether it is sound."""


@data.command("list")
@debug_option
def data_list() -> None:
    """Every real data set and whether it is here."""
    from refimpl import store
    from refimpl.rendering import print_data

    print_data(store.entries(), store.verify())


@data.command()
@click.argument("names", nargs=-1)
@debug_option
def fetch(names: tuple[str, ...]) -> None:
    """Download data sets, all of them where none is named.

    Goes on with what was cut short.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from refimpl import store

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        fetched = store.fetch(names or None, progress=progress)
    for file in fetched:
        click.echo(f"{file.action} {file.path}")


@data.command()
@click.argument("names", nargs=-1)
@debug_option
def verify(names: tuple[str, ...]) -> int:
    """Compare every file that is here with its digest.

    Fails where one is damaged, or where none is here.
    """
    from refimpl import store

    statuses = store.verify(names or None)
    for status in statuses:
        click.echo(str(status))
    if all(status.state == "missing" for status in statuses):
        raise RefimplError("no file is here to be compared; refimpl data fetch downloads them")
    return 1 if any(status.state in ("damaged", "unknown") for status in statuses) else 0


# --- for authors of plugins ----------------------------------------------------------------------


@cli.command()
@click.argument("name")
@click.option("--distribution", "folder", type=click.Path(file_okay=False, path_type=Path),
              metavar="DIR", help="Make a distribution of its own in this folder.")  # fmt: skip
@debug_option
def new(name: str, folder: Path | None) -> None:
    """Make a plugin that passes every check, to begin with.

    It is for you to replace piece by piece.
    """
    from refimpl import scaffold

    made = scaffold.new_distribution(name, folder) if folder else scaffold.new_in_tree(name)
    for path in made:
        click.echo(f"made {path}")
    if folder is not None:
        click.echo(f"then: python -m pip install --editable {folder}")
    click.echo(f"then: refimpl check {name}")


@cli.command()
@click.argument("name")
@click.option("--variant", help="Only this variant.")
@data_option
@click.option("--facts", "every_fact", is_flag=True,
              help="Print all that the facts of each variant could state.")  # fmt: skip
@plugin_option
@debug_option
def lint(
    name: str, variant: str | None, tier: Tier, every_fact: bool, plugins: tuple[str, ...]
) -> int:
    """Hold an example's facts against its live models.

    Its variants are looked over, too. Prints what wrong or missing facts should read, to be
    pasted. Fails on nothing that the suite would pass, but the suite asks more: it trains. What
    it only warns of is for you to judge.
    """
    loaded = _load(name, plugins)
    unstated = loaded.unstated.get(name)
    example = unstated.value if unstated else loaded.example(name)
    registered = unstated or loaded.examples[name]

    from refimpl import linting
    from refimpl.rendering import linted_text

    linted = linting.lint(example, tier, variant, registered.source.path, every_fact)
    click.echo(linted_text(example, linted, every_fact))
    return 0 if linted.sound else 1


@cli.command()
@click.argument("names", nargs=-1)
@output_option("--output", folder=True, default=Path("docs/examples"), show_default=True,
               help="Where they go; missing folders are made.")  # fmt: skip
@click.option("--no-curves", is_flag=True, help="Leave the pictures as they are; trains nothing.")
@plugin_option
@debug_option
def docs(names: tuple[str, ...], output: Path, no_curves: bool, plugins: tuple[str, ...]) -> None:
    """Write a learner's page of each example named, or of all.

    A page has the learning curves of its example.
    """
    from refimpl import pages, registry

    loaded = registry.load(plugins, only=names or None)
    wanted = names or sorted(loaded.examples)
    for name in wanted:
        loaded.example(name)
    registered = [loaded.examples[name] for name in wanted]
    for path in pages.write(registered, output, curves=not no_curves, index=not names):
        click.echo(f"wrote {path}")
