"""`bridgectl events`: the catalogue, and the JSON Schemas of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from bridge.cli.support.asyncapi import Published
from bridge.cli.support.asyncapi import asyncapi as asyncapi_document
from bridge.cli.support.known_topics import installed_events, source_events
from bridge.cli.support.names import complete_events
from bridge.cli.support.notes import print_note
from bridge.cli.support.options import Group, json_option
from bridge.cli.support.output import print_json, print_table, print_text
from bridge.cli.support.schemas import event_schema, event_topics
from bridge.cli.support.suggestions import no_such
from bridge.config import registry
from bridge.config.loading import load
from bridge.config.model import Config
from bridge.config.types import EMBEDDED
from bridge.domain.catalogue import INTERNAL_EVENTS
from bridge.domain.event import Event
from bridge.domain.namespace import DEFAULT


@click.group(
    cls=Group,
    examples="""
    bridgectl events list                       every event: class, topic, provider, meaning
    bridgectl events schema RecipientFailed     the JSON Schema of its data
    bridgectl events asyncapi --yaml            all of it as one AsyncAPI document
    """,
)
def events() -> None:
    """List the events, and print the JSON Schemas of their data."""


_with_definitions = click.option(
    "-c", "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Also the events of the definitions that this configuration uses.",
)  # fmt: skip


@events.command(
    name="list",
    examples="""
    bridgectl events list
    bridgectl events list -c bridge.yaml        with those of the definitions that the file uses
    bridgectl events list --json | jq -r '.[].topics[]'
    """,
)
@_with_definitions
@json_option
def list_(config_file: Path | None, *, as_json: bool) -> None:
    """List every event: class, topic, provider, meaning; with those that installed sources bring along."""
    classes = catalogue(config_file)
    if as_json:
        print_json([_plain(cls) for cls in classes])
    else:
        rows = [(cls.__name__, _topic(cls), cls.provider or "any", _meaning(cls)) for cls in classes]
        print_table(["class", "topic", "provider", "meaning"], rows, give_way=("provider",), prose="meaning")


@events.command(
    examples="""
    bridgectl events schema RecipientFailed     by class
    bridgectl events schema recipient-failed    by the name in `dataschema`
    bridgectl events schema all                 an object with all of them
    """
)
@_with_definitions
@click.argument("name", default="all", shell_complete=complete_events)
def schema(config_file: Path | None, name: str) -> None:
    """Print the JSON Schema of an event's data; `$id` is what its `dataschema` says."""
    classes = catalogue(config_file)
    if name == "all":
        print_json({cls.schema_name(): event_schema(cls) for cls in classes})
        return
    known = {key: cls for cls in classes for key in (cls.__name__, cls.schema_name())}
    if name not in known:
        raise no_such("event", name, known, "in the catalogue")
    print_json(event_schema(known[name]))


@events.command(
    examples="""
    bridgectl events asyncapi                          the whole catalogue
    bridgectl events asyncapi -c bridge.yaml --yaml    what this configuration can publish
    """
)
@click.option(
    "-c", "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Only what this configuration can publish.",
)  # fmt: skip
@click.option("--yaml", "as_yaml", is_flag=True, help="Print YAML instead of JSON.")
def asyncapi(*, config_file: Path | None, as_yaml: bool) -> None:
    """Print an AsyncAPI 3 document: a channel for each topic, messages, bindings, and the whole envelope.

    Without a configuration, it has every event of the bridge and of the installed sources.
    """
    document = _whole_catalogue() if config_file is None else _configured(load(config_file))
    if as_yaml:
        print_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))
    else:
        print_json(document)


def _whole_catalogue() -> dict[str, Any]:
    return asyncapi_document([Published(cls, cls.channels) for cls in catalogue()], exchange=DEFAULT.exchange)


def _configured(config: Config) -> dict[str, Any]:
    """Return the document of what the sources of a configuration can publish, and of the bridge's own events."""
    channels: dict[type[Event], dict[str, None]] = {cls: dict.fromkeys(cls.channels) for cls in INTERNAL_EVENTS}
    for settings in config.sources.values():
        plugin = registry.load_source(settings.type)
        for cls in source_events(settings):
            own = cls.channels if plugin.channels is None else plugin.channels(settings)
            wanted = [channel for channel in cls.channels if channel in own]
            if wanted:
                channels.setdefault(cls, {}).update(dict.fromkeys(wanted))
    published = [Published(cls, tuple(names)) for cls, names in channels.items()]
    broker = "" if config.broker_url == EMBEDDED else config.broker_url
    return asyncapi_document(published, exchange=config.exchange, broker=broker)


def catalogue(config_file: Path | None = None) -> list[type[Event]]:
    """Return the bridge's own events and those of all installed sources; says on stderr which could not be asked.

    With a configuration, those of its definitions are among them; raises `ConfigError`.
    """
    config = None if config_file is None else load(config_file, with_secrets=False)
    classes, left_out = installed_events(config)
    for reason in left_out:
        print_note(f"left out: {reason}")
    return classes


def _plain(event: type[Event]) -> dict[str, Any]:
    return {
        "class": event.__name__, "topic": _topic(event), "topics": event_topics(event),
        "provider": event.provider or "any", "meaning": _meaning(event), "schema": event_schema(event)["$id"],
    }  # fmt: skip


def _topic(event: type[Event]) -> str:
    channels = event.channels if event.entity else ("<channel>",)
    channel = channels[0] if len(channels) == 1 else f"<{'|'.join(channels)}>"
    detail = "[.<detail>]" if event.details else ""
    return f"{channel}.{event.entity or '<entity>'}.{event.status}{detail}"


def _meaning(event: type[Event]) -> str:
    return " ".join((event.__doc__ or "").partition("\n\n")[0].split())
