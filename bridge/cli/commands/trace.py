"""`bridgectl trace`: one resource's life, from the poll that saw a change to each sink's answer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from bridge.cli.commands.tail import mask_phones
from bridge.cli.support.answers import shown_answer
from bridge.cli.support.disabled_sinks import disabled
from bridge.cli.support.journal import event_views, find
from bridge.cli.support.known_statuses import Recorded, baselines, recorded
from bridge.cli.support.options import Command, config_option, json_option
from bridge.cli.support.output import Coloured, print_json, print_line
from bridge.cli.support.program import in_typed_name
from bridge.cli.support.running import load_assembly, run
from bridge.domain import topics
from bridge.domain.event_view import EventView
from bridge.domain.own_news import is_about
from bridge.domain.settings import format_duration
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.protocols.deliveries import RELAY_SINK, Attempt, Delivery, DeliveryCounts, KeptAnswer
from bridge.protocols.sink import SinkSettings
from bridge.protocols.store import Store
from bridge.runtime.assembly import Assembly

_COLOURS = {"dead": "red", "set_aside": "red", "waiting": "yellow", "taken": "green"}


@click.command(
    cls=Command,
    examples="""
    bridgectl trace /messages/voice/10507/recipients/364898 -c bridge.yaml
    bridgectl trace 10507 -c bridge.yaml                                by an id: all resources that have it
    bridgectl trace 5f0c6d1be2a94d2c8f6a3f0e9d8c7b6a -c bridge.yaml     all of the resource of one event
    """,
)
@click.argument("resource", metavar="RESOURCE|EVENT-ID")
@config_option
@json_option
def trace(resource: str, config_file: Path, *, as_json: bool) -> None:
    """Tell one resource's life: each change, when it was seen, whether the broker has it, and what each sink did.

    RESOURCE is a path as in an event's `subject`, or its last part; EVENT-ID is an event's id. Of a resource without
    any event, the last known status is told where the bridge has one.
    """
    parts = load_assembly(config_file, with_secrets=False)
    traced, known = run(_trace(parts, resource))
    if not traced and not known:
        raise click.ClickException(_nothing(parts, resource))
    if as_json:
        print_json(traced or [status.plain() for status in known])
        return
    for status in known:
        print_line(f"{status.subject}: {status}")
    for change in traced:
        _print(change)


def _nothing(parts: Assembly, resource: str) -> str:
    kept = format_duration(parts.config.journal.keep)
    silent = baselines(parts)
    first = f", or was there at the first start of {' or '.join(silent)} (first_sight: baseline)" if silent else ""
    return (
        f"the journal has nothing of {resource!r}: it was not seen, did not change, or changed longer than {kept} "
        f"ago (journal.keep){first}"
    )


def _print(change: dict[str, Any]) -> None:
    before = f" (was {change['previous']})" if change["previous"] else ""
    print_line(f"{change['time']}  {change['topic']}{before}  {change['transition']}")
    print_line(f"    subject    {change['subject']}")
    print_line(f"    event      {change['id']}  at {change['position']}")
    after, by = (change["observed"] or {}).get("after"), (change["observed"] or {}).get("by")
    if by:
        print_line(f"    observed   {f'between {after} and {by}' if after else f'by {by}'}")
    if change["due"]:
        print_line(f"    due        a final status was expected by {change['due']}")
    if change["resolves"]:
        print_line(f"    resolves   the overdue event {change['resolves']}")
    print_line(f"    committed  {change['recorded']}")
    print_line(f"    broker     {_broker(change)}")
    for key in ("error", "reason"):
        if change[key]:
            print_line(f"    {key:<10} {mask_phones(change[key])}")
    for sink in change["sinks"]:
        print_line(f"    -> {sink['sink']}: ", Coloured(in_typed_name(sink["said"]), _COLOURS.get(sink["state"])))
        for attempt in sink["attempts"]:
            print_line(f"         {attempt['at']}  {attempt['kind']}: {attempt['error']}")
        if sink["answer"] is not None:
            print_line(f"         answered {shown_answer(sink['answer'])}")


def _broker(change: dict[str, Any]) -> str:
    if change["set_aside"] is not None:
        return f"does not have it, a dead letter of the relay: {change['set_aside']['said']}"
    return "has confirmed it" if change["confirmed"] else "has not confirmed it yet"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one event at one sink."""

    sink: str
    state: str
    said: str
    attempts: tuple[Attempt, ...] = ()
    answer: KeptAnswer | None = None

    def plain(self) -> dict[str, Any]:
        attempts = [
            {"at": _time(attempt.at), "kind": attempt.kind, "error": attempt.error} for attempt in self.attempts
        ]
        answer = None if self.answer is None else {"status": self.answer.status, "body": self.answer.body}
        return {"sink": self.sink, "state": self.state, "said": self.said, "attempts": attempts, "answer": answer}


async def _trace(parts: Assembly, resource: str) -> tuple[list[dict[str, Any]], list[Recorded]]:
    async with parts.opened_store(read_only=True) as store:
        rows: list[EventView] = []
        for subject in await _subjects(parts, store, resource):
            needle = subject.encode()
            rows += [line async for line in event_views(store, needle) if line.subject == subject]
        rows.sort(key=lambda line: (line.recorded or datetime.min.replace(tzinfo=UTC), line.position))
        if not rows:
            return [], await recorded(parts, store, resource)
        return [await _timeline(parts, store, line) for line in rows], []


async def _subjects(parts: Assembly, store: Store, resource: str) -> list[str]:
    names = dict.fromkeys([resource])
    for source in parts.complete_sources().values():
        with suppress(ValueError):
            names[source.resource(resource)] = None
        await source.close()
    if "/" not in resource:
        # A source may not know which of several resources an id means; the journal knows those that there were.
        named = [
            line.subject async for line in event_views(store, resource.encode()) if _is_called(line.subject, resource)
        ]
        names |= dict.fromkeys(named)
        event = await find(store, resource)
        if event is not None:
            names[event.subject] = None
    return list(names)


def _is_called(subject: str, name: str) -> bool:
    return subject.rpartition("/")[2] == name


async def _timeline(parts: Assembly, store: Store, line: EventView) -> dict[str, Any]:
    journal = await store.journal(line.position.source)
    data = line.data
    set_aside = await store.delivery(RELAY_SINK, line.position)
    confirmed = line.position.seq <= journal.confirmed and set_aside is None
    outcomes = [await _outcome(parts, store, sink, line, confirmed=confirmed) for sink in parts.config.sinks]
    return {
        "time": line.body.get("time"),
        "topic": line.event.topic,
        "subject": line.subject,
        "source": line.position.source,
        "position": str(line.position),
        "id": line.event.id,
        "previous": data.get("previous"),
        "transition": data.get("transition"),
        "due": data.get("due"),
        "resolves": data.get("resolves"),
        "observed": data.get("observed"),
        "error": data.get("error"),
        "reason": data.get("reason"),
        "recorded": line.body.get("recordedtime"),
        "confirmed": confirmed,
        "set_aside": None if set_aside is None else _set_aside(set_aside).plain(),
        "sinks": [outcome.plain() for outcome in outcomes],
    }


def _set_aside(delivery: Delivery) -> _Outcome:
    reason = delivery.attempts[-1].error if delivery.attempts else delivery.reason or "it is published again"
    return _Outcome(RELAY_SINK, delivery.state, reason, delivery.attempts)


async def _outcome(parts: Assembly, store: Store, sink: str, line: EventView, *, confirmed: bool) -> _Outcome:
    delivery = await store.delivery(sink, line.position)
    if delivery is None:
        return await _undelivered(parts, store, sink, line, confirmed=confirmed)
    tries = len(delivery.attempts)
    count = f"after {tries} {'try' if tries == 1 else 'tries'}"
    if delivery.state == "dead":
        return _Outcome(
            sink, "dead", f"dead letter, {delivery.reason}, {count}", delivery.attempts, delivery.answer
        )  # fmt: skip
    gone = (await disabled(store)).get(sink)
    due = f"due {_time(delivery.due)}" if gone is None else str(gone)
    return _Outcome(sink, "waiting", f"waits {count}; {due}", delivery.attempts)


async def _undelivered(parts: Assembly, store: Store, sink: str, line: EventView, *, confirmed: bool) -> _Outcome:
    settings = parts.config.sinks[sink]
    if await store.filtered(sink, line.position):
        return _Outcome(sink, "filtered", _filtered(sink, settings, line))
    if await store.settled(sink, line.position):
        # The books say of one event only that it is settled; that it was sent is sure where nothing was discarded.
        book = (await store.counts(sink)).get(line.position.source, DeliveryCounts())
        if book.discarded:
            return _Outcome(sink, "settled", "delivered, or discarded by an operator")
        return _Outcome(sink, "taken", "taken")
    if not topics.matches(settings.topics, line.event.topic):
        return _Outcome(sink, "filtered", f"not sent: its topics are {', '.join(settings.topics)}")
    return await _unoffered(store, sink, line, confirmed=confirmed)


def _filtered(sink: str, settings: SinkSettings, line: EventView) -> str:
    """Say which condition of the sink's filter the event did not meet."""
    if is_about(line.event, sink):
        return "not sent: it is about this very sink"
    unmet = None if settings.where is None else settings.where.unmet(line.body)
    if unmet is None:
        return "not sent: its filter of that time did not select it; `bridgectl replay` sends it"
    return f"not sent: its filter asks for {mask_phones(unmet)}"


async def _unoffered(store: Store, sink: str, line: EventView, *, confirmed: bool) -> _Outcome:
    if await store.delivery(RELAY_SINK, line.position) is not None:
        see = f"`bridgectl deliveries show {RELAY_SINK} {line.position}`"
        return _Outcome(sink, "set_aside", f"not sent: the broker did not accept it; see {see}")
    if await store.settled(RELAY_SINK, line.position):
        return _Outcome(sink, "queued", "not yet offered: the relay published it late, or an operator discarded it")
    if line.position.seq <= await store.low_watermark(sink, line.position.source):
        return _Outcome(sink, "before", "not sent: the sink was new later than that; `bridgectl replay` sends it")
    if not confirmed:
        return _Outcome(sink, "unpublished", "not yet: the broker has not confirmed it")
    return _Outcome(sink, "queued", "not yet offered: it is in the sink's queue, or the service is not running")


def _time(seconds: float) -> str:
    return rfc3339(truncate_to_millis(datetime.fromtimestamp(seconds, UTC)))
