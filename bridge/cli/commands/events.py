"""`bridgectl events`: the catalogue, and the JSON Schemas of the data."""

from __future__ import annotations

from typing import Any

import click

from bridge.cli.support.known_topics import installed_events
from bridge.cli.support.names import complete_events
from bridge.cli.support.notes import print_note
from bridge.cli.support.options import Group, json_option
from bridge.cli.support.output import print_json, print_table
from bridge.cli.support.schemas import event_schema, event_topics
from bridge.cli.support.suggestions import no_such
from bridge.domain.event import Event


@click.group(
    cls=Group,
    examples="""
    bridgectl events list                       every event: class, topic, provider, meaning
    bridgectl events schema RecipientFailed     the JSON Schema of its data
    """,
)
def events() -> None:
    """List the events, and print the JSON Schemas of their data."""


@events.command(
    name="list",
    examples="""
    bridgectl events list
    bridgectl events list --json | jq -r '.[].topics[]'
    """,
)
@json_option
def list_(*, as_json: bool) -> None:
    """List every event: class, topic, provider, meaning; with those that installed sources bring along."""
    classes = catalogue()
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
@click.argument("name", default="all", shell_complete=complete_events)
def schema(name: str) -> None:
    """Print the JSON Schema of an event's data; `$id` is what its `dataschema` says."""
    classes = catalogue()
    if name == "all":
        print_json({cls.schema_name(): event_schema(cls) for cls in classes})
        return
    known = {key: cls for cls in classes for key in (cls.__name__, cls.schema_name())}
    if name not in known:
        raise no_such("event", name, known, "in the catalogue")
    print_json(event_schema(known[name]))


def catalogue() -> list[type[Event]]:
    """Return the bridge's own events and those of all installed sources; says on stderr which could not be asked."""
    classes, left_out = installed_events()
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
