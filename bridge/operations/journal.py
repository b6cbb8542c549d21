"""Reading the journals of all sources, for whatever looks back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from bridge.domain.event import Position
from bridge.domain.event_view import EventView
from bridge.protocols.journal import journal_batches

if TYPE_CHECKING:
    from bridge.protocols.ledger import Ledger


async def event_views(ledger: Ledger, needle: bytes = b"") -> AsyncIterator[EventView]:
    """Yield what the journals of all sources keep whose bytes contain `needle`: source by source, in order."""
    for source in await ledger.sources():
        async for entries in journal_batches(ledger, source):
            for entry in entries:
                if needle in entry.event.body:
                    yield EventView.of(entry)


async def find(ledger: Ledger, text: str) -> EventView | None:
    """Return the event with that position (`SOURCE:NUMBER`) or that id."""
    try:
        position = Position.parse(text)
    except ValueError:
        async for view in event_views(ledger, text.encode()):
            if view.event.id == text:
                return view
        return None
    entry = (await ledger.entries([position]))[0]
    return None if entry is None else EventView.of(entry)
