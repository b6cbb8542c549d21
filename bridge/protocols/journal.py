"""Reading a source's journal in batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from bridge.domain.event import JournalEntry

BATCH_ENTRIES = 1000


class JournalReader(Protocol):
    """The part of a ledger that reads the journal."""

    async def read(self, source: str, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return up to `limit` kept entries with numbers above `after`, in order."""
        ...


async def journal_batches(
    ledger: JournalReader, source: str, *, after: int = 0, upto: int | None = None, limit: int = BATCH_ENTRIES
) -> AsyncIterator[Sequence[JournalEntry]]:
    """Yield the kept entries with numbers above `after`, up to and with `upto`, in batches of at most `limit`.

    Ends at the end of the journal as it is when the last batch is read. Every batch has at least one entry.
    """
    while entries := await ledger.read(source, after, limit):
        after = entries[-1].position.seq
        if upto is not None and after > upto:
            entries = [entry for entry in entries if entry.position.seq <= upto]
        if entries:
            yield entries
        if upto is not None and after >= upto:
            return
