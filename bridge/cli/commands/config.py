"""`bridgectl config`: the schema for editors, the effective configuration, and a file to start from."""

from __future__ import annotations

from pathlib import Path

import click
import yaml

from bridge.cli.support.config_template import starter
from bridge.cli.support.names import complete_plugins
from bridge.cli.support.notes import print_note
from bridge.cli.support.options import Group, config_option, json_option
from bridge.cli.support.output import print_json, print_text
from bridge.cli.support.schemas import config_schema
from bridge.cli.support.suggestions import no_such
from bridge.config import registry
from bridge.config.loading import load


@click.group(
    cls=Group,
    examples="""
    bridgectl config new --source govdelivery --sink webhook > bridge.yaml
    bridgectl config show -c bridge.yaml
    bridgectl config schema > bridge.schema.json
    """,
)
def config() -> None:
    """Write, show and describe configurations."""


@config.command(
    examples="""
    bridgectl config schema > bridge.schema.json
    sed -i '1i # yaml-language-server: $schema=bridge.schema.json' bridge.yaml
    """
)
def schema() -> None:
    """Print the JSON Schema of the file, with the settings of all installed plugins."""
    document, left_out = config_schema()
    for reason in left_out:
        print_note(f"left out: {reason}")
    print_json(document)


@config.command(
    examples="""
    bridgectl config show -c bridge.yaml
    bridgectl config show -c bridge.yaml --json | jq .sinks
    """
)
@config_option
@json_option
def show(config_file: Path, *, as_json: bool) -> None:
    """Print the effective configuration: variables filled in, all defaults, secrets masked."""
    shown = load(config_file).show()
    if as_json:
        print_json(shown)
    else:
        print_text(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120))


@config.command(
    examples="""
    bridgectl config new > bridge.yaml                               with everything that is installed
    bridgectl config new --source spacivox --sink slack > bridge.yaml
    """
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_plugins,
    help="An installed source; may be repeated.",
)
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_plugins,
    help="An installed sink; may be repeated.",
)
def new(sources: tuple[str, ...], sinks: tuple[str, ...]) -> None:
    """Write a commented file to start from; it is valid as soon as the variables it names are set.

    Without --source and --sink it has everything that is installed, and says on stderr what cannot be used.
    """
    for name in sources:
        _known("source", name)
    for name in sinks:
        _known("sink", name)
    if not sinks and not sources:
        sinks = _usable("sink")
    sources = sources or _usable("source")
    print_text(starter(list(dict.fromkeys(sources)), list(dict.fromkeys(sinks))))


def _known(kind: registry.Kind, name: str) -> None:
    known = registry.installed(kind)
    if name not in known:
        raise no_such(kind, name, known, "installed")


def _usable(kind: registry.Kind) -> tuple[str, ...]:
    """Return the installed plugins that a configuration may name; says on stderr which it may not."""
    lines = []
    for name in registry.installed(kind):
        try:
            registry.load(kind, name)
        except registry.PluginError as error:
            print_note(f"left out: {error}")
        else:
            lines.append(name)
    return tuple(lines)
