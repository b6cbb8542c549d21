"""Reading the journals of all sources, for commands that look back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from bridge.domain.event import JournalEntry, Position, WireEvent

if TYPE_CHECKING:
    from bridge.protocols.ledger import Ledger

_BATCH = 1000


@dataclass(frozen=True)
class EventView:
    """One line of a journal, read when asked."""

    position: Position
    event: WireEvent

    @cached_property
    def body(self) -> dict[str, Any]:
        """The CloudEvent as plain values; empty for a body that is none."""
        try:
            found = from_json(self.event.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def data(self) -> dict[str, Any]:
        """The event's data."""
        found = self.body.get("data")
        return found if isinstance(found, dict) else {}

    @property
    def subject(self) -> str:
        """The resource's path."""
        return str(self.body.get("subject", ""))

    @property
    def partition(self) -> str:
        """The partition key."""
        return str(self.body.get("partitionkey") or self.event.id)

    @cached_property
    def recorded(self) -> datetime | None:
        """When the event was committed."""
        try:
            return datetime.fromisoformat(str(self.body.get("recordedtime")))
        except ValueError:
            return None

    def within(self, since: datetime | None, until: datetime | None) -> bool:
        """Say whether the event was recorded from `since` on and before `until`."""
        if self.recorded is None:
            return since is None and until is None
        return (since is None or self.recorded >= since) and (until is None or self.recorded < until)


async def event_views(ledger: Ledger, needle: bytes = b"") -> AsyncIterator[EventView]:
    """Yield what the journals of all sources keep whose bytes contain `needle`: source by source, in order."""
    for source in await ledger.sources():
        after = 0
        while entries := await ledger.read(source, after, _BATCH):
            for entry in entries:
                if needle in entry.event.body:
                    yield view_of(entry)
            after = entries[-1].position.seq


def view_of(entry: JournalEntry) -> EventView:
    """Return an entry as a line."""
    return EventView(entry.position, entry.event)


async def find(ledger: Ledger, text: str) -> EventView | None:
    """Return the event with that position (`SOURCE:NUMBER`) or that id."""
    try:
        position = Position.parse(text)
    except ValueError:
        async for line in event_views(ledger, text.encode()):
            if line.event.id == text:
                return line
        return None
    entry = (await ledger.entries([position]))[0]
    return None if entry is None else view_of(entry)
