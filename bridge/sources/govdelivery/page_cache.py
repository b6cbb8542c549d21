"""Pages of recipients that look as they did when they were last committed: nothing on them can be news."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

PAGES_KEPT = 50_000
"""Two and a half million recipients, at some 200 bytes a page."""


@dataclass(slots=True)
class PageScan:
    """One reading of a message's recipients: what it knew before, and what it has seen."""

    started: float
    full_at: float
    """When all pages were last read in earnest."""
    known: dict[str, tuple[int, int]] = field(default_factory=dict)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def digest(self, target: str) -> int | None:
        """Return the digest that a page had in the reading before, None where it is not known."""
        known = self.known.get(target)
        return None if known is None else known[0]

    def recipients(self, target: str) -> int:
        """Return how many recipients a known page has."""
        return self.known[target][1]

    def note(self, target: str, digest: int, recipients: int) -> None:
        """Note what a page looks like, of which nothing was left out or put off."""
        self.seen[target] = (digest, recipients)


class PageCache:
    """Remembers what each page looked like in the last complete reading of its message.

    Most of what is read again and again has not changed. Telling that from the bytes costs a tenth of reading them, and
    spares the ledger the question. What was committed, only the cursor knows: a message's `swept` names a reading's
    start once all of its pages are committed, and in no other case is what that reading saw believed. Every so often a
    message is read in earnest all the same, for somebody else may have written of it.
    """

    def __init__(self, *, kept: int = PAGES_KEPT) -> None:
        self._kept = kept
        self._pages = 0
        self._readings: OrderedDict[str, PageScan] = OrderedDict()

    def begin(self, message: str, started: float, swept: float | None, now: float, earnest_every: float) -> PageScan:
        """Return a reading that began at `started`; the one before counts if the cursor says that it began at `swept`.

        A reading that is begun once more, from where it stood, forgets what it saw: it may not have been committed.
        """
        before = self._readings.pop(message, None)
        self._pages -= len(before.seen) if before else 0
        if before is None or before.started != swept or now - before.full_at >= earnest_every:
            return PageScan(started, now)
        return PageScan(started, before.full_at, known=before.seen)

    def end(self, message: str, reading: PageScan) -> None:
        """Keep what a reading saw; the messages read longest ago are given up for it."""
        self._readings[message] = reading
        reading.known = {}
        self._pages += len(reading.seen)
        while self._pages > self._kept:
            _, oldest = self._readings.popitem(last=False)
            self._pages -= len(oldest.seen)
