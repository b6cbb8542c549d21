"""Fills one queue of a subscriber again from the journal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from bridge.domain import topics as patterns
from bridge.domain.errors import BridgeError, OtherInstallation
from bridge.domain.event import JournalEntry
from bridge.domain.event_view import EventView
from bridge.protocols.broker import Unpublishable
from bridge.protocols.journal import journal_batches
from bridge.runtime.installation import KeptInstallation

if TYPE_CHECKING:
    from bridge.protocols.broker import OpenBroker
    from bridge.protocols.store import Store
    from bridge.runtime.assembly import Assembly


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are put into the queue."""

    since: datetime
    until: datetime | None
    topics: Sequence[str]
    """Patterns; without any, all events."""

    def has(self, entry: JournalEntry) -> bool:
        """Return whether an entry is among them."""
        wanted = not self.topics or patterns.matches(self.topics, entry.event.topic)
        return wanted and EventView.of(entry).within(self.since, self.until)


@dataclass(slots=True)
class QueueReplay:
    """What was put into the queue."""

    selected: int = 0
    replayed: int = 0
    refused: int = 0
    """Events that the broker never accepts, such as one over its largest message."""


async def fill_queue(parts: Assembly, queue: str, selection: Selection) -> QueueReplay:
    """Publish the selected events into one queue that exists, in the order of each source.

    Only what the relay has published already is selected: the rest comes by itself. Raises `BridgeError` if there is no
    such queue, and `Unavailable`; a repeated call then puts some events into the queue twice, with the same ids.
    """
    replay = QueueReplay()
    async with parts.opened_store(read_only=True) as store, parts.opened_broker() as broker:
        await _check(parts, store, broker, queue)
        async for entries in _published(store):
            selected = [entry for entry in entries if selection.has(entry)]
            refused = await _put(broker, queue, selected) if selected else 0
            replay.selected += len(selected)
            replay.refused += refused
            replay.replayed += len(selected) - refused
    return replay


async def _check(parts: Assembly, store: Store, broker: OpenBroker, queue: str) -> None:
    try:
        (await KeptInstallation.read(store)).check_broker(broker.place, await broker.mark())
    except OtherInstallation as error:
        raise parts.foreign(error) from error
    for sink in parts.config.sinks:
        if broker.sink_queue(sink) == queue:
            raise click.UsageError(
                f"{queue} is the queue of the sink {sink}, whose books know what it has: use `bridgectl replay {sink}`"
            )
    if not await broker.has_queue(queue):
        raise _no_queue(broker, queue)


async def _published(store: Store) -> AsyncIterator[Sequence[JournalEntry]]:
    """Yield what the relay has published, source by source."""
    for source in await store.sources():
        async for entries in journal_batches(store, source, upto=(await store.journal(source)).confirmed):
            yield entries


async def _put(broker: OpenBroker, queue: str, entries: Sequence[JournalEntry]) -> int:
    """Publish entries into the queue; return how many of them the broker never accepts."""
    try:
        unroutable = await broker.publish(entries, queue=queue)
    except Unpublishable as error:
        unroutable, refused = error.unroutable, len(error.reasons)
    else:
        refused = 0
    if unroutable:  # it was deleted while we put events into it
        raise _no_queue(broker, queue)
    return refused


def _no_queue(broker: OpenBroker, queue: str) -> BridgeError:
    return BridgeError(
        f"there is no queue {queue!r} on {broker.place}: its subscriber has to declare it, and bind it to the exchange"
    )
