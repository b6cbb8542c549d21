"""`bridge events`: the catalogue, and the JSON Schemas of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bridge.cli.support.options import Group, json_option, optional_config_option
from bridge.cli.support.output import print_json, print_table
from bridge.cli.support.schemas import event_schema, event_topics
from bridge.config import registry
from bridge.config.loading import load
from bridge.domain.catalogue import INTERNAL_EVENTS
from bridge.domain.errors import ConfigError
from bridge.domain.event import Event


@click.group(
    cls=Group,
    examples="""
    bridge events list                       every event: class, topic, provider, meaning
    bridge events schema RecipientFailed     the JSON Schema of its data
    """,
)
def events() -> None:
    """List the events, and print the JSON Schemas of their data."""


@events.command(
    name="list",
    examples="""
    bridge events list
    bridge events list -c bridge.yaml        with those of the definitions that the file uses
    bridge events list --json | jq -r '.[].topics[]'
    """,
)
@optional_config_option
@json_option
def list_(config_file: Path | None, *, as_json: bool) -> None:
    """List every event: class, topic, provider, meaning; with those that installed sources bring along."""
    classes = catalogue(config_file)
    if as_json:
        print_json([_plain(cls) for cls in classes])
    else:
        rows = [(cls.__name__, _topic(cls), cls.provider or "any", _meaning(cls)) for cls in classes]
        print_table(["class", "topic", "provider", "meaning"], rows)


@events.command(
    examples="""
    bridge events schema RecipientFailed     by class
    bridge events schema recipient-failed    by the name in `dataschema`
    bridge events schema all                 an object with all of them
    """
)
@optional_config_option
@click.argument("name", default="all")
def schema(config_file: Path | None, name: str) -> None:
    """Print the JSON Schema of an event's data; `$id` is what its `dataschema` says."""
    classes = catalogue(config_file)
    if name == "all":
        print_json({cls.schema_name(): event_schema(cls) for cls in classes})
        return
    known = {key: cls for cls in classes for key in (cls.__name__, cls.schema_name())}
    if name not in known:
        raise click.UsageError(f"there is no event {name!r}; `bridge events list` names them all")
    print_json(event_schema(known[name]))


def catalogue(config_file: Path | None = None) -> list[type[Event]]:
    """Return the bridge's own events and those of all installed sources; says on stderr which could not be asked.

    With a configuration, those of its definitions are among them; raises `ConfigError`.
    """
    classes: dict[type[Event], None] = {}
    for name in registry.installed("source"):
        try:
            classes |= dict.fromkeys(registry.load_source(name).events)
        except ConfigError as error:
            click.echo(f"left out: {error}", err=True)
    if config_file is not None:
        for source in load(config_file).sources.values():
            classes |= dict.fromkeys(type(source).own_events)
    return list(classes | dict.fromkeys(INTERNAL_EVENTS))


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
