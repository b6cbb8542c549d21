"""Answers that are, byte for byte, what was committed already: nothing in them can be news."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bridge.domain.times import truncate_to_millis
from bridge.http.response import Response
from bridge.http.status import OK_STATUS

_FULL_EVERY = timedelta(hours=1)
"""How often a slice is read whole all the same: somebody else may have written of its records."""
_MAX_ANSWERS = 5000
"""Answers of one slice that are kept; a slice of more of them is read whole."""


@dataclass(slots=True)
class SliceReading:
    """One reading of a slice: the answers that are known to be committed, and those that it has seen."""

    full_at: datetime
    """When the slice was last read without leaving anything out."""
    known: Mapping[int, int] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)

    def count(self, answer: Response) -> int | None:
        """Return how many items an answer has that was committed as it is; None if it has to be read."""
        return self.known.get(hash(answer.body)) if answer.status == OK_STATUS else None

    def note(self, answer: Response, items: int) -> None:
        """Note an answer that was read without a fault."""
        if answer.status == OK_STATUS:
            self.seen[hash(answer.body)] = items


@dataclass(frozen=True, slots=True)
class _Kept:
    started: datetime
    reading: SliceReading


class AnswerMemory:
    """Remembers the answers of the last reading of each slice.

    Most of a window has not changed since it was read last. Telling that from the bytes costs a tenth of reading them,
    and spares the ledger the question. What was committed, only the cursor knows: it names when a slice was last read
    whole, and only that reading is believed.
    """

    def __init__(self) -> None:
        self._kept: dict[datetime, _Kept] = {}

    def keep(self, slices: Collection[datetime]) -> None:
        """Forget all other slices."""
        for grid in [grid for grid in self._kept if grid not in slices]:
            del self._kept[grid]

    def begin(self, grid: datetime, committed: datetime | None, now: datetime) -> SliceReading:
        """Return a new reading of a slice, whose last committed one began at `committed`.

        The reading before is forgotten, whatever comes of this one: parts of it may be committed, and the rest not.
        """
        kept = self._kept.pop(grid, None)
        if kept is None or kept.started != committed or now - kept.reading.full_at >= _FULL_EVERY:
            return SliceReading(now)
        return SliceReading(kept.reading.full_at, kept.reading.seen)

    def end(self, grid: datetime, started: datetime, reading: SliceReading) -> None:
        """Keep a reading that came to its end."""
        if len(reading.seen) <= _MAX_ANSWERS:
            self._kept[grid] = _Kept(truncate_to_millis(started), SliceReading(reading.full_at, seen=reading.seen))
