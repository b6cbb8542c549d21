"""`bridgectl sinks preview` and `form`: what a sink would send, and the forms that ship."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from bridge.cli.support.event_examples import event_example
from bridge.cli.support.names import complete_sinks
from bridge.cli.support.notes import print_note
from bridge.cli.support.options import Command, Exit, config_option, json_option
from bridge.cli.support.output import print_json, print_line, print_table, print_text
from bridge.cli.support.running import load_assembly, run
from bridge.cli.support.suggestions import no_such
from bridge.delivery import masking
from bridge.domain import topics
from bridge.domain.errors import BridgeError, Permanent
from bridge.domain.event import WireEvent
from bridge.forms import loading
from bridge.operations.journal import event_views, find
from bridge.protocols.sink import HasPreview, Outgoing
from bridge.runtime.assembly import Assembly

_SAMPLE_EVENTS = 3
"""Events that are shown unless told otherwise."""
_TOKEN_KEY = b"preview"
"""The key of the tokens in a preview: the store's own key is not read for it."""


@click.command(
    cls=Command,
    examples="""
    bridgectl sinks preview ops -c bridge.yaml                 sample events of the topics that the sink selects
    bridgectl sinks preview ops --topic sms.recipient.failed -c bridge.yaml
    bridgectl sinks preview ops --event city:1042 -c bridge.yaml
    """,
)
@click.argument("sink", shell_complete=complete_sinks)
@config_option
@click.option("--event", "event", metavar="EVENT", help="A real event, by its id or its position in the journal.")
@click.option("--topic", "topic", metavar="TOPIC", help="Sample events of this topic or pattern alone.")
@click.option("--limit", type=click.IntRange(1, 100), default=_SAMPLE_EVENTS, show_default=True, help="Sample events.")
@json_option
def preview(sink: str, config_file: Path, event: str | None, topic: str | None, limit: int, *, as_json: bool) -> Exit:
    """Show what a sink would send, without sending anything: for sample events, or for an event of the journal.

    Secrets are masked, and personal data is as the sink's `privacy` says. With `privacy: token`, the tokens differ from
    those that are sent.
    """
    parts = load_assembly(config_file)
    if sink not in parts.config.sinks:
        raise no_such("sink", sink, parts.config.sinks)
    built = parts.sink(sink)
    if not isinstance(built, HasPreview):
        kind = parts.config.sinks[sink].type
        raise click.ClickException(
            f"the sink {sink} has no preview: sinks of the type {kind} do not say what they send"
        )
    shown = [_shown(parts, sink, built, wire) for wire in _events(parts, sink, event, topic, limit)]
    if as_json:
        print_json(shown)
        return Exit.DONE
    for item in shown:
        _print(item)
    return Exit.DONE


def _events(parts: Assembly, sink: str, event: str | None, topic: str | None, limit: int) -> list[WireEvent]:
    settings = parts.config.sinks[sink]
    if event is not None:
        return [run(_journalled(parts, event))]
    pattern = settings.topics if topic is None else [topic]
    samples = [wire for wire in _samples(parts) if topics.matches(pattern, wire.topic)]
    if not samples:
        raise click.ClickException("there is no sample event of these topics; name a real one with --event")
    selected = [wire for wire in samples if settings.filter_selects(wire)]
    if not selected:
        print_note("the sink's filter selects none of the sample events; they are shown as if it did")
    return (selected or samples)[:limit]


async def _journalled(parts: Assembly, event: str) -> WireEvent:
    async with parts.opened_store(read_only=True) as store:
        view = await find(store, event)
        if view is None and "/" in event:
            views = [item async for item in event_views(store, event.encode()) if item.subject == event]
            view = views[0] if views else None
    if view is None:
        raise click.ClickException(f"the journal has no event {event!r}")
    return view.event


def _samples(parts: Assembly) -> Iterator[WireEvent]:
    for cls in parts.catalogue().types:
        for channel in cls.channels:
            plain = event_example(cls, channel) if cls.entity else None
            if plain is not None:
                stem = str(plain["type"]).removeprefix("bridge.")
                detail = plain["data"].get("detail")
                body = json.dumps(plain, ensure_ascii=False).encode()
                yield WireEvent(plain["id"], f"{stem}.{detail}" if detail else stem, 0, body)


def _shown(parts: Assembly, sink: str, built: HasPreview, wire: WireEvent) -> dict[str, Any]:
    settings = parts.config.sinks[sink]
    head = {"topic": wire.topic, "id": wire.id}
    try:
        masked = masking.apply(settings.privacy, wire, _TOKEN_KEY)
        return {**head, "request": dict(built.preview(Outgoing(masked, 1, parts.catalogue().read)))}
    except Permanent as error:
        return {**head, "refused": str(error)}


def _print(item: Mapping[str, Any]) -> None:
    print_line(f"{item['topic']}  {item['id']}")
    if "refused" in item:
        print_line(f"    a dead letter: {item['refused']}")
        return
    request = item["request"]
    print_line(f"    {request['method']} {request['url']}")
    for name, value in request["headers"].items():
        print_line(f"    {name}: {value}")
    for line in _pretty(request["body"]).splitlines():
        print_line(f"      {line}")


def _pretty(body: str) -> str:
    try:
        return json.dumps(json.loads(body), ensure_ascii=False, indent=2)
    except ValueError:
        return body


@click.command(
    cls=Command,
    examples="""
    bridgectl sinks form                            the forms that ship
    bridgectl sinks form discord > our-form.yaml    one of them, to start from
    """,
)
@click.argument("name", required=False)
def form(name: str | None) -> Exit:
    """List the forms of the sink `http` that ship, or print the file of one of them."""
    if name is None:
        rows = [(preset, loading.load(loading.find(preset, Path())).title) for preset in loading.shipped()]
        print_table(["preset", "sends to"], rows)
        return Exit.DONE
    if name not in loading.shipped():
        raise no_such("form", name, loading.shipped(), "among those that ship")
    try:
        print_text(loading.find(name, Path()).read_text(encoding="utf-8").rstrip("\n"))
    except OSError as error:
        raise BridgeError(f"the form {name} cannot be read: {error.strerror}") from None
    return Exit.DONE
