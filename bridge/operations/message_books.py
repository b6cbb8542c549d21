"""The books of one message: what the provider counts, what was seen, published, and settled at each sink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bridge.domain import topics
from bridge.domain.errors import BridgeError
from bridge.domain.event_view import EventView
from bridge.domain.lifecycle import StatusHistory
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.protocols.journal import journal_batches
from bridge.protocols.source import GroupCounts, Reconcilable

if TYPE_CHECKING:
    from bridge.protocols.ledger import Ledger
    from bridge.protocols.store import Store
    from bridge.runtime.assembly import Assembly

_MAX_COUNTED = 1000
"""Events of a message whose deliveries are counted one by one; of more, the newest are."""


@dataclass(slots=True)
class MessageBooks:
    """What each side says of the resources of one message."""

    message: str
    source: str
    provider: Mapping[str, int] | None = None
    """By status, as the last poll that read all of it learnt; None where the provider does not say, or no poll has."""
    asked: datetime | None = None
    seen: Mapping[str, int] | None = None
    """By status in the ledger; None where the source keeps no books by message."""
    last_events: Mapping[str, int] = field(default_factory=dict)
    """By the status in each resource's last event."""
    events: int = 0
    confirmed: int = 0
    counted: int = 0
    """Of how many events the deliveries are counted."""
    sinks: dict[str, dict[str, int]] = field(default_factory=dict)

    def differences(self) -> list[str]:
        """Return where two sides differ, a sentence each."""
        said = []
        if self.provider is not None and self.seen is not None:
            said += _differ(self.provider, self.seen, "the provider counts", "were seen")
        if self.seen is not None:
            said += _differ(self.seen, self.last_events, "the ledger has", "are in the last events")
        if self.events > self.confirmed:
            said.append(f"{self.events - self.confirmed} events are not published yet")
        for sink, book in self.sinks.items():
            said += [f"{book[state]} {state} at {sink}" for state in ("waiting", "dead", "on the way") if book[state]]
        return said

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "message": self.message,
            "source": self.source,
            "provider": self.provider,
            "provider_asked": None if self.asked is None else rfc3339(truncate_to_millis(self.asked)),
            "seen": self.seen,
            "last_events": self.last_events,
            "events": self.events,
            "confirmed": self.confirmed,
            "counted": self.counted,
            "sinks": self.sinks,
            "differences": self.differences(),
        }


def _differ(first: Mapping[str, int], second: Mapping[str, int], says: str, other: str) -> list[str]:
    return [
        f"{says} {first.get(status, 0)} {status}, and {second.get(status, 0)} {other}"
        for status in dict.fromkeys((*first, *second))
        if first.get(status, 0) != second.get(status, 0)
    ]


async def message_books(parts: Assembly, store: Store, view: EventView) -> MessageBooks:
    """Return the books of the message that an event is of, without asking the provider."""
    name, message = view.position.source, message_of(view)
    books = MessageBooks(message, name)
    counted = await _counted(parts, store, name, message)
    own: set[str] = set()
    if counted is not None:
        own = {counted.subject(observation.key) for observation in counted.shown} | {message}
        books.provider, books.asked = counted.counts, counted.by
        books.seen = await _seen(store, name, counted, own)
    views = await _events(store, name, message)
    books.events = len(views)
    confirmed = (await store.journal(name)).confirmed
    books.confirmed = sum(event.position.seq <= confirmed for event in views)
    last = {event.subject: event.status for event in views if event.subject not in (own or {message})}
    books.last_events = dict(Counter(last.values()))
    books.counted = len(views[-_MAX_COUNTED:])
    for sink, settings in parts.config.sinks.items():
        books.sinks[sink] = await _sink(store, sink, settings.topics, views[-_MAX_COUNTED:], confirmed)
    return books


def message_of(view: EventView) -> str:
    """Return the path of the message of an event's resource: the resource itself where it belongs to none."""
    return str(view.data.get("message") or view.subject)


async def _counted(parts: Assembly, store: Store, name: str, message: str) -> GroupCounts | None:
    source = parts.complete_sources().get(name) if name in parts.config.sources else None
    if source is None:
        return None
    try:
        if isinstance(source, Reconcilable):
            with suppress(BridgeError):
                return await source.count(message, await store.cursor(name), ask=False)
        return None
    finally:
        await source.close()


async def _seen(ledger: Ledger, name: str, counted: GroupCounts, own: set[str]) -> dict[str, int] | None:
    if counted.scope is None:
        return None
    statuses: Counter[str] = Counter()
    for key, history in (await ledger.scope(name, counted.scope)).items():
        last = StatusHistory.parse(history).last
        if last is not None and counted.subject(key) not in own:
            statuses[counted.kind.lifecycle.status(last)] += 1
    return dict(statuses)


async def _events(ledger: Ledger, name: str, message: str) -> list[EventView]:
    needle, views = message.encode(), list[EventView]()
    async for entries in journal_batches(ledger, name):
        matches = (EventView.of(entry) for entry in entries if needle in entry.event.body)
        views += [view for view in matches if message in (view.subject, message_of(view))]
    return views


async def _sink(
    store: Store, sink: str, wanted: Sequence[str], views: Sequence[EventView], confirmed: int
) -> dict[str, int]:
    book = {"wanted": 0, "filtered": 0, "expired": 0, "settled": 0, "waiting": 0, "dead": 0, "on the way": 0}
    for view in views:
        if not topics.matches(wanted, view.event.topic) or view.position.seq > confirmed:
            continue
        book["wanted"] += 1
        delivery = await store.delivery(sink, view.position)
        if delivery is not None:
            book[delivery.state] += 1
        elif await store.filtered(sink, view.position):
            book["filtered"] += 1
        elif await store.unsent(sink, view.position) is not None:
            book["expired"] += 1  # what an operator had muted is counted as filtered
        elif await store.settled(sink, view.position):
            book["settled"] += 1
        else:
            book["on the way"] += 1
    return book
