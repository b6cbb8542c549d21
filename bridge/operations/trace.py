"""One resource's life, from the poll that saw a change to each sink's answer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge.domain import topics
from bridge.domain.event_view import EventView
from bridge.domain.own_news import is_about
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.operations.disabled_sinks import disabled
from bridge.operations.journal import event_views, find
from bridge.operations.known_statuses import Recorded, recorded
from bridge.protocols.deliveries import RELAY_SINK, Attempt, Delivery, DeliveryCounts, KeptAnswer
from bridge.protocols.sink import SinkSettings
from bridge.protocols.store import Store
from bridge.protocols.unsent import Unsent
from bridge.runtime.assembly import Assembly


@dataclass(frozen=True, slots=True)
class SinkOutcome:
    """What became of one event at one sink."""

    sink: str
    state: str
    said: str
    attempts: tuple[Attempt, ...] = ()
    answer: KeptAnswer | None = None

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        attempts = [
            {"at": _time(attempt.at), "kind": attempt.kind, "error": attempt.error} for attempt in self.attempts
        ]
        answer = None if self.answer is None else {"status": self.answer.status, "body": self.answer.body}
        return {"sink": self.sink, "state": self.state, "said": self.said, "attempts": attempts, "answer": answer}


async def trace_resource(parts: Assembly, store: Store, resource: str) -> tuple[list[dict[str, Any]], list[Recorded]]:
    """Return the changes of a resource, named by path, id or the id of an event; without any, what the ledger knows."""
    views = await resource_views(parts, store, resource)
    if not views:
        return [], await recorded(parts, store, resource)
    return [await timeline(parts, store, view) for view in views], []


async def resource_views(parts: Assembly, store: Store, resource: str) -> list[EventView]:
    """Return the events of a resource, named by path, id or the id of an event, in the order of their commits."""
    views: list[EventView] = []
    for subject in await _subjects(parts, store, resource):
        views += [view async for view in event_views(store, subject.encode()) if view.subject == subject]
    return sorted(views, key=lambda view: (view.recorded or datetime.min.replace(tzinfo=UTC), view.position))


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


async def timeline(parts: Assembly, store: Store, line: EventView, shown: EventView | None = None) -> dict[str, Any]:
    """Return one change for JSON: when it was seen, whether the broker has it, and what each sink did.

    `shown` is the event as it may be shown. What the sinks say is of the event as it is, and may name what is personal.
    """
    journal = await store.journal(line.position.source)
    shown = shown or line
    data = shown.data
    set_aside = await store.delivery(RELAY_SINK, line.position)
    confirmed = line.position.seq <= journal.confirmed and set_aside is None
    outcomes = [await _outcome(parts, store, sink, line, confirmed=confirmed) for sink in parts.config.sinks]
    return {
        "time": shown.body.get("time"),
        "topic": line.event.topic,
        "subject": shown.subject,
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
        "recorded": shown.body.get("recordedtime"),
        "confirmed": confirmed,
        "set_aside": None if set_aside is None else _set_aside(set_aside).plain(),
        "sinks": [outcome.plain() for outcome in outcomes],
    }


def _set_aside(delivery: Delivery) -> SinkOutcome:
    reason = delivery.attempts[-1].error if delivery.attempts else delivery.reason or "it is published again"
    return SinkOutcome(RELAY_SINK, delivery.state, reason, delivery.attempts)


async def _outcome(parts: Assembly, store: Store, sink: str, line: EventView, *, confirmed: bool) -> SinkOutcome:
    delivery = await store.delivery(sink, line.position)
    if delivery is None:
        return await _undelivered(parts, store, sink, line, confirmed=confirmed)
    tries = len(delivery.attempts)
    count = f"after {tries} {'try' if tries == 1 else 'tries'}"
    if delivery.state == "dead":
        return SinkOutcome(
            sink, "dead", f"dead letter, {delivery.reason}, {count}", delivery.attempts, delivery.answer
        )  # fmt: skip
    gone = (await disabled(store)).get(sink)
    due = f"due {_time(delivery.due)}{_quiet(parts, sink, delivery.due)}" if gone is None else str(gone)
    return SinkOutcome(sink, "waiting", f"waits {count}; {due}", delivery.attempts)


def _quiet(parts: Assembly, sink: str, due: float) -> str:
    """Say that a delivery waits for the end of a quiet time."""
    settings = parts.config.sinks.get(sink)
    quiet = None if settings is None or settings.quiet is None else settings.quiet.at(parts.clock.now())
    return "" if quiet is None or due < quiet.end.timestamp() else f", quiet until {quiet.said_end}"


async def _undelivered(parts: Assembly, store: Store, sink: str, line: EventView, *, confirmed: bool) -> SinkOutcome:
    settings = parts.config.sinks[sink]
    if (unsent := await store.unsent(sink, line.position)) is not None:
        return await _unsent(store, sink, unsent)
    if await store.filtered(sink, line.position):
        return SinkOutcome(sink, "filtered", _filtered(sink, settings, line))
    if await store.settled(sink, line.position):
        # The books say of one event only that it is settled; that it was sent is sure where nothing was discarded.
        book = (await store.counts(sink)).get(line.position.source, DeliveryCounts())
        if book.discarded:
            return SinkOutcome(sink, "settled", "delivered, or discarded by an operator")
        return SinkOutcome(sink, "taken", "taken")
    if not topics.matches(settings.topics, line.event.topic):
        return SinkOutcome(sink, "filtered", f"not sent: its topics are {', '.join(settings.topics)}")
    return await _unoffered(store, sink, line, confirmed=confirmed)


async def _unsent(store: Store, sink: str, unsent: Unsent) -> SinkOutcome:
    """Say why an event ended without being sent, and when."""
    if unsent.kind == "expired":
        return SinkOutcome(sink, "expired", f"not sent: it was older than max_age at {_time(unsent.at)}")
    mute = (await store.orders()).mutes.get(unsent.mute)
    by = f"muted by the mute {unsent.mute}, which has ended" if mute is None else str(mute)
    return SinkOutcome(sink, "filtered", f"not sent at {_time(unsent.at)}: {by}; `bridgectl replay` sends it")


def _filtered(sink: str, settings: SinkSettings, line: EventView) -> str:
    """Say which condition of the sink's filter the event did not meet."""
    if is_about(line.event, sink):
        return "not sent: it is about this very sink"
    unmet = None if settings.where is None else settings.where.unmet(line.body)
    if unmet is None:
        return "not sent: its filter of that time did not select it; `bridgectl replay` sends it"
    return f"not sent: its filter asks for {unmet}"


async def _unoffered(store: Store, sink: str, line: EventView, *, confirmed: bool) -> SinkOutcome:
    if await store.delivery(RELAY_SINK, line.position) is not None:
        see = f"`bridgectl deliveries show {RELAY_SINK} {line.position}`"
        return SinkOutcome(sink, "set_aside", f"not sent: the broker did not accept it; see {see}")
    if await store.settled(RELAY_SINK, line.position):
        return SinkOutcome(sink, "queued", "not yet offered: the relay published it late, or an operator discarded it")
    if line.position.seq <= await store.low_watermark(sink, line.position.source):
        return SinkOutcome(sink, "before", "not sent: the sink was new later than that; `bridgectl replay` sends it")
    if not confirmed:
        return SinkOutcome(sink, "unpublished", "not yet: the broker has not confirmed it")
    return SinkOutcome(sink, "queued", "not yet offered: it is in the sink's queue, or the service is not running")


def _time(seconds: float) -> str:
    return rfc3339(truncate_to_millis(datetime.fromtimestamp(seconds, UTC)))
