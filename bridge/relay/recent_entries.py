"""Entries that this process committed a moment ago, for the relay that would read them back from the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bridge.domain.event import JournalEntry, Position, WireEvent

MAX_ENTRIES = 8000
"""Entries of one source that are kept; the relay reads older ones from the journal."""


class RecentEntries:
    """The last entries of a source's journal, as far as this process has written them without a gap.

    A cache: what is in it is committed, and what is not in it is in the journal. It spares the store a read and this
    process the parsing of each event that goes straight on to the broker.
    """

    def __init__(self, source: str, *, max_entries: int = MAX_ENTRIES) -> None:
        self._source = source
        self._max_entries = max_entries
        self._first = 1
        self._events: deque[WireEvent] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, last: int, events: Sequence[WireEvent]) -> None:
        """Add the events of a commit; the last of them has the number `last`."""
        first = last - len(events) + 1
        if first != self._first + len(self._events):
            # Another process wrote in between, and its entries are not here: start anew behind the gap.
            self._events.clear()
            self._first = first
        self._events.extend(events)
        self._drop(len(self._events) - self._max_entries)

    def take(self, after: int, limit: int) -> list[JournalEntry]:
        """Return up to `limit` entries after number `after`, and forget those before; empty if the next is not here."""
        if after + 1 < self._first:
            return []
        self._drop(after + 1 - self._first)
        if after + 1 != self._first:
            return []
        number = min(limit, len(self._events))
        events = [self._events.popleft() for _ in range(number)]
        self._first += number
        return [JournalEntry(Position(self._source, after + index), event) for index, event in enumerate(events, 1)]

    def _drop(self, number: int) -> None:
        for _ in range(min(number, len(self._events))):
            self._events.popleft()
            self._first += 1
