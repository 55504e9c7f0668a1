"""Show the examples, this machine, and what the documents say that no longer holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from refimpl.cli.commands.arguments import example_of
from refimpl.cli.commands.options import data_option, debug_option, plugin_option
from refimpl.cli.messages import complain

if TYPE_CHECKING:
    from refimpl.data import Tier


@click.command("list")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@debug_option
def list_command(plugins: tuple[str, ...], as_json: bool) -> int:
    """List the examples: document, number of variants, title.

    Examples of other plugins also show where they come from. --json adds the names of the variants
    and the origin of every example.
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@plugin_option
@debug_option
def info(
    name: str, variant: str | None, tier: Tier, as_json: bool, plugins: tuple[str, ...]
) -> None:
    """Show the facts, variants and layers of an example.

    They are measured on its live models.
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
    """Show Python, torch, devices and extras.

    If an extra is not available, it says why.
    """
    from refimpl.cli.rendering import print_environment
    from refimpl.environment import environment, extras

    print_environment(environment(), extras())


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@plugin_option
@debug_option
def errata(names: tuple[str, ...], as_json: bool, plugins: tuple[str, ...]) -> int:
    """Try each statement of the documents that no longer holds.

    Covers the named examples (default: all). Exits with 1 if one is not as expected here.
    """
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


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@plugin_option
@debug_option
def kernels(names: tuple[str, ...], as_json: bool, plugins: tuple[str, ...]) -> int:
    """List the calls of torch that the examples make.

    Each call of the first steps and of predictions on the CPU is repeated in float64 with its own
    inputs. The last column is the furthest error, as a share of what rounding explains.
    """
    from refimpl.loading import registry
    from refimpl.parity.kernel_table import reached

    found = reached(registry.load(plugins, only=names or None).chosen(names))
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in found], indent=2))
    else:
        width = max((len(row.kernel) for row in found), default=0)
        click.echo(f"{'kernel':<{width}}  examples  judged  not judged  error / bound")
        for row in found:
            click.echo(
                f"{row.kernel:<{width}}  {len(row.examples):>8}  {row.judged:>6}  "
                f"{row.unjudged:>10}  {row.worst:>13.3g}"
            )
        judged, left = sum(row.judged for row in found), sum(row.unjudged for row in found)
        click.echo(f"{len(found)} kernels, {judged} calls judged, {left} not judged by themselves")
    return 1 if any(not row.worst <= 1 for row in found) else 0
