"""For authors of plugins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from refimpl.cli.commands.arguments import example_of, located_errors, registry_of
from refimpl.cli.commands.options import data_option, debug_option, output_option, plugin_option
from refimpl.cli.messages import say
from refimpl.errors import RefimplError

if TYPE_CHECKING:
    from refimpl.data import Tier


@click.command()
@click.argument("name")
@click.option("--distribution", "folder", type=click.Path(file_okay=False, path_type=Path),
              metavar="DIR", help="Make an installable distribution in this folder.")  # fmt: skip
@click.option("--full", is_flag=True,
              help="Show more: a loop, a ladder, a layer table, exact values.")  # fmt: skip
@debug_option
def new(name: str, folder: Path | None, full: bool) -> None:
    """Make a new plugin, which passes every check.

    It is one file in the current folder, or a distribution. Replace it piece by piece with your own
    example.
    """
    from refimpl.authoring import scaffold

    if folder is None:
        made = scaffold.new_file(name, Path(), full)
        outside = f" --plugin {made[0]}" if not scaffold.is_in_tree(made[0]) else ""
    else:
        made, outside = scaffold.new_distribution(name, folder, full), ""
    for path in made:
        say(f"made {path}")
    if folder is not None:
        say(f"then: python -m pip install --editable {folder}")
    say(f"then: refimpl check {name}{outside}")


@click.command()
@click.argument("name")
@click.option("--variant", help="Only this variant.")
@data_option
@click.option("--facts", "every_fact", is_flag=True,
              help="Print every fact that each variant could state.")  # fmt: skip
@plugin_option
@debug_option
def lint(
    name: str, variant: str | None, tier: Tier, every_fact: bool, plugins: tuple[str, ...]
) -> int:
    """Compare an example's facts with its live models.

    Also looks for mistakes in its variants. Prints the corrected facts, ready to paste. Every error
    would also fail in the suite, which checks more: it trains to the end. Warnings are for you to
    judge.
    """
    loaded = registry_of(name, plugins)
    unstated = loaded.unstated.get(name)
    example = unstated.value if unstated else loaded.example(name)
    registered = unstated or loaded.examples[name]

    from refimpl.authoring import linting
    from refimpl.cli.rendering import linted_text

    linted = linting.lint(example, tier, variant, registered.source.path, every_fact)
    say(linted_text(example, linted, every_fact))
    return 0 if linted.sound else 1


@click.command()
@click.argument("name")
@click.option("--variant", help="Variant to write (default: the example's first).")
@click.option("--script", "form", flag_value="script", help="As a Python script.")
@click.option("--notebook", "form", flag_value="notebook", help="As a notebook.")
@data_option
@output_option("--output", folder=True, default=Path(), help="Folder to write to "
               "(default: the current one); missing folders are created.")  # fmt: skip
@plugin_option
@debug_option
def export(
    name: str,
    variant: str | None,
    form: Literal["script", "notebook"] | None,
    tier: Tier,
    output: Path,
    plugins: tuple[str, ...],
) -> None:
    """Write an example as a program without refimpl.

    It needs torch and NumPy, and what the plugin itself imports. A file beside it has the rows and
    the start values. It makes the run of refimpl run on the CPU, and prints the same figures.

    Not written are streams, rows that are collated or are tuples or dicts, and loops that use more
    of the problem than its batches, rates, draws and start.
    """
    if form is None:
        raise RefimplError("say what to write: --script or --notebook")
    example, _ = example_of(name, plugins)

    from refimpl.authoring import export as exporting

    with located_errors(example):
        for path in exporting.export(example, example.variant(variant), form, output, tier):
            say(f"wrote {path}")


@click.command()
@click.argument("names", nargs=-1)
@output_option("--output", folder=True, default=Path("docs/examples"), show_default=True,
               help="Folder to write to; missing folders are created.")  # fmt: skip
@click.option(
    "--no-curves", is_flag=True, help="Keep existing pictures and agreements; nothing is trained."
)
@plugin_option
@debug_option
def docs(names: tuple[str, ...], output: Path, no_curves: bool, plugins: tuple[str, ...]) -> None:
    """Write a learner's page of the named examples (default: all).

    Each page shows the learning curves of its example.
    """
    from refimpl.authoring import pages
    from refimpl.loading import registry

    loaded = registry.load(plugins, only=names or None)
    wanted = names or sorted(loaded.examples)
    for name in wanted:
        loaded.example(name)
    registered = [loaded.examples[name] for name in wanted]
    for path in pages.write(registered, output, curves=not no_curves, index=not names):
        say(f"wrote {path}")
