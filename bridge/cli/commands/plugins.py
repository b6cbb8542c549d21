"""`bridgectl plugins`: what is installed, and the settings of each."""

from __future__ import annotations

import click

from bridge.cli.support.names import complete_plugins
from bridge.cli.support.options import Exit, Group, SuggestingChoice, json_option
from bridge.cli.support.output import print_json, print_table
from bridge.cli.support.schemas import settings_schema
from bridge.cli.support.suggestions import no_such
from bridge.config import registry


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples="""
    bridgectl plugins                        a table
    bridgectl plugins --json                 the same for a script
    bridgectl plugins schema govdelivery     the settings of one, as JSON Schema
    """,
)
@json_option
@click.pass_context
def plugins(ctx: click.Context, *, as_json: bool) -> None:
    """List the installed sources and sinks with distribution and version; none of them is imported."""
    if ctx.invoked_subcommand is not None:
        return
    listed = [plugin for kind in registry.KINDS for plugin in registry.installed(kind).values()]
    if as_json:
        print_json([
            {
                "kind": plugin.kind, "name": plugin.name,
                "distribution": plugin.distribution, "version": plugin.version, "object": plugin.value,
                "conflicts_with": list(plugin.conflicts),
            }
            for plugin in listed
        ])  # fmt: skip
        return
    rows = [
        (plugin.kind, plugin.name, plugin.distribution, plugin.version, plugin.value, ", ".join(plugin.conflicts))
        for plugin in listed
    ]
    if any(plugin.conflicts for plugin in listed):
        print_table(
            ["kind", "name", "distribution", "version", "object", "conflicts with"],
            rows,
            give_way=("object", "version"),
        )
    else:
        print_table(
            ["kind", "name", "distribution", "version", "object"],
            [row[:-1] for row in rows],
            give_way=("object", "version"),
        )


@plugins.command(
    examples="""
    bridgectl plugins schema webhook
    bridgectl plugins schema govdelivery --kind source
    """
)
@click.argument("name", shell_complete=complete_plugins)
@click.option(
    "--kind", type=SuggestingChoice(registry.KINDS), help="Needed only where a source and a sink share a name."
)
def schema(name: str, kind: registry.Kind | None) -> Exit:
    """Print the settings of one plugin as JSON Schema."""
    kinds = [known for known in registry.KINDS if kind in (None, known) and name in registry.installed(known)]
    if len(kinds) > 1:
        raise click.UsageError(f"there is a source and a sink named {name!r}; add --kind source or --kind sink")
    if not kinds:
        known = [plugin for sort in registry.KINDS if kind in (None, sort) for plugin in registry.installed(sort)]
        raise no_such(kind or "source or sink", name, known, "installed")
    print_json(settings_schema(registry.load(kinds[0], name).settings))
    return Exit.DONE
