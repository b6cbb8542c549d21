"""Events that this process committed a moment ago, at hand for the relay that would read them back from the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bridge.domain.event import JournalEntry, Position, WireEvent

KEPT = 8000
"""Events of one source; beyond them the oldest are read from the journal, as any that are not here."""


class RecentEntries:
    """The last run of a source's journal, as far as this process has written it without a gap.

    A shortcut and never a truth: whatever is in here is committed, and whatever is not in here is in the journal. It
    spares the store the reading and this process the parsing of each event that goes straight on to the broker.
    """

    def __init__(self, source: str, *, kept: int = KEPT) -> None:
        self._source = source
        self._kept = kept
        self._first = 1
        self._events: deque[WireEvent] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, last: int, events: Sequence[WireEvent]) -> None:
        """Note what a commit has written: its events, the last of which has the number `last`."""
        first = last - len(events) + 1
        if first != self._first + len(self._events):
            # Somebody else wrote in between: what is behind a gap can no longer be told from here.
            self._events.clear()
            self._first = first
        self._events.extend(events)
        self._drop(len(self._events) - self._kept)

    def take(self, after: int, limit: int) -> list[JournalEntry]:
        """Return up to `limit` entries that follow number `after`, and forget those before; empty if unknown here."""
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
