"""What others have written of a source since we began to ask: theirs stands where our answer may be the older one."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from datetime import datetime, timedelta

from pydantic_core import from_json

from bridge.domain.event import INTERNAL_CHANNEL, JournalEntry
from bridge.protocols.ledger import Ledger

_BATCH_ENTRIES = 1000
_LATE = timedelta(seconds=30)
"""So much later than the provider made it an answer may arrive; so much may two clocks differ."""


class ConcurrentWrites:
    """Follows a source's journal from now on, and tells of which resources somebody else has told.

    A poll and a backfill may read the same resource at the same time. The one that writes second may have the older
    answer, and the ledger alone cannot tell that from a status that truly went back; the journal can.
    """

    def __init__(self, ledger: Ledger, source: str, after: int) -> None:
        self._ledger = ledger
        self._source = source
        self.after = after
        """The number of the last event that is not told of: it was there before, or is ours."""
        self._own: deque[range] = deque()
        """The numbers of our own events behind `after`, in order: a poll may write a million of them."""
        self._read_at: dict[str, datetime] = {}

    @classmethod
    async def from_now(cls, ledger: Ledger, source: str) -> ConcurrentWrites:
        """Begin behind everything that is in the journal by now, before anything is asked."""
        return cls(ledger, source, (await ledger.journal(source)).committed)

    def record_own(self, count: int, last: int) -> None:
        """Note as many events of our own, the last of which has the number `last`."""
        if not count:
            return
        first = last - count + 1
        if first == self.after + 1:
            self.after = last  # nobody else's stand between
        elif self._own and first == self._own[-1].stop:
            self._own[-1] = range(self._own[-1].start, last + 1)
        else:
            self._own.append(range(first, last + 1))

    async def newer_than(self, subjects: Collection[str], by: datetime) -> set[str]:
        """Return those of `subjects` of which somebody else had an answer that may be newer than ours, of `by`.

        Ask after the last statuses were read: what is committed later is a conflict anyway.
        """
        await self._catch_up()
        return {subject for subject in subjects if subject in self._read_at and self._read_at[subject] > by - _LATE}

    async def _catch_up(self) -> None:
        if (await self._ledger.journal(self._source)).committed == self.after:
            return
        while entries := await self._ledger.read(self._source, self.after, _BATCH_ENTRIES):
            for entry in entries:
                if not self._is_own(entry.position.seq):
                    self._note(entry)
            self.after = entries[-1].position.seq
            if self._is_own(self.after + 1):
                self.after = self._own.popleft()[-1]

    def _is_own(self, seq: int) -> bool:
        """Say whether a number is one of ours; they are asked for in order."""
        while self._own and self._own[0].stop <= seq:
            self._own.popleft()
        return bool(self._own) and seq in self._own[0]

    def _note(self, entry: JournalEntry) -> None:
        body = from_json(entry.event.body)
        if body["data"]["channel"] == INTERNAL_CHANNEL:  # it tells of the bridge, and of no resource's status
            return
        seen = (body["data"].get("observed") or {}).get("by") or body["recordedtime"]
        when, subject = datetime.fromisoformat(seen), body["subject"]
        self._read_at[subject] = max(when, self._read_at.get(subject, when))
