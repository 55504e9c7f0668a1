"""What there is: examples, this machine, and what documents say that no longer holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from refimpl.cli.commands.arguments import complain, example_of
from refimpl.cli.commands.options import data_option, debug_option, plugin_option

if TYPE_CHECKING:
    from refimpl.data import Tier


@click.command("list")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@debug_option
def list_command(plugins: tuple[str, ...], as_json: bool) -> int:
    """Every example: its document, how many variants, its title.

    An example of a plugin says where it comes from, too. --json has the variants' names and every
    origin.
    """
    from refimpl.loading.listing import listed, problems

    examples, wrong = listed(plugins), problems(plugins)
    if as_json:
        click.echo(json.dumps([entry.as_dict() for entry in examples], indent=2))
    else:
        from refimpl.cli.rendering import print_list

        print_list(examples)
    for problem in wrong:
        complain(str(problem))
    return 1 if wrong else 0


@click.command()
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
    from refimpl.authoring.info import describe

    example, origin = example_of(name, plugins)
    description = describe(example, origin, tier, variant)
    if as_json:
        click.echo(json.dumps(description, indent=2, default=str))
        return
    from refimpl.cli.rendering import print_info

    print_info(description)


@click.command()
@debug_option
def env() -> None:
    """Python, torch, devices and extras: what is here.

    Of an extra that is not here, it says why.
    """
    from refimpl.cli.rendering import print_environment
    from refimpl.environment import environment, extras

    print_environment(environment(), extras())


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@plugin_option
@debug_option
def errata(names: tuple[str, ...], as_json: bool, plugins: tuple[str, ...]) -> int:
    """What the documents say that no longer holds, tried here."""
    from refimpl.checking.errata import tried
    from refimpl.cli.rendering import print_errata
    from refimpl.loading import registry

    loaded = registry.load(plugins, only=names or None)
    examples = loaded.chosen(names)
    found = [line for example in examples for line in tried(example)]
    if as_json:
        click.echo(json.dumps([line.as_dict() for line in found], indent=2))
    else:
        print_errata(found)
    return 0 if all(line.as_expected for line in found) else 1
