"""Answers and records that are what was committed already: nothing in them can be news."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bridge.domain.times import truncate_to_millis
from bridge.http.response import Response
from bridge.http.status import OK_STATUS
from bridge.protocols.source import Observation

_FULL_EVERY = timedelta(hours=1)
"""How often a slice is read whole all the same: somebody else may have written of its records."""
_MAX_ANSWERS = 5000
"""Answers of one slice that are kept; a slice of more of them is read whole."""
_MAX_RECORDS = 200_000
"""Records of all slices whose statuses are kept, at some 65 bytes each; of any others, only the answers are."""


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """What an answer had."""

    count: int
    """How many items."""
    statuses: frozenset[int]
    """A digest of each record and its status."""


@dataclass(slots=True)
class SliceReading:
    """One reading of a slice: the answers that are known to be committed, and those that it has seen."""

    full_at: datetime
    """When the slice was last read without leaving anything out."""
    known: Mapping[int, KnownAnswer] = field(default_factory=dict)
    seen: dict[int, KnownAnswer] = field(default_factory=dict)
    statuses: set[int] = field(default_factory=set)
    """Of the known answers, all together."""
    is_consistent: bool = True
    """Whether no record had two statuses; if one had, the reading does not say which of them is in the ledger."""

    def count(self, answer: Response) -> int | None:
        """Return how many items an answer has that was committed as it is; None if it has to be read."""
        known = self.known.get(hash(answer.body)) if answer.status == OK_STATUS else None
        return None if known is None else known.count

    def keep(self, answer: Response) -> None:
        """Note that a known answer has come again."""
        self.seen[hash(answer.body)] = self.known[hash(answer.body)]

    def note(self, answer: Response, shown: Iterable[Observation], items: int) -> None:
        """Note an answer that was read without a fault, and what it showed."""
        if answer.status == OK_STATUS:
            self.seen[hash(answer.body)] = KnownAnswer(items, frozenset(map(_digest, shown)))

    def news(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Return the observations that are not known as they are."""
        if not self.statuses:
            self.statuses.update(*(known.statuses for known in self.known.values()))
        known = self.statuses
        return [seen for seen in observations if _digest(seen) not in known] if known else observations


def _digest(observation: Observation) -> int:
    return hash((observation.key, observation.status))


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
        self._records = 0

    def keep(self, slices: Collection[datetime]) -> None:
        """Forget all other slices."""
        for grid in [grid for grid in self._kept if grid not in slices]:
            self._forget(grid)

    def begin(self, grid: datetime, committed: datetime | None, now: datetime) -> SliceReading:
        """Return a new reading of a slice, whose last committed one began at `committed`.

        The reading before is forgotten, whatever comes of this one: parts of it may be committed, and the rest not.
        """
        kept = self._forget(grid)
        if kept is None or kept.started != committed or now - kept.reading.full_at >= _FULL_EVERY:
            return SliceReading(now)
        return SliceReading(kept.reading.full_at, kept.reading.seen)

    def end(self, grid: datetime, started: datetime, reading: SliceReading) -> None:
        """Keep a reading that came to its end."""
        if len(reading.seen) > _MAX_ANSWERS or not reading.is_consistent:
            return
        seen = reading.seen
        if self._records + _records(seen) > _MAX_RECORDS:
            seen = {body: KnownAnswer(answer.count, frozenset()) for body, answer in seen.items()}
        self._records += _records(seen)
        self._kept[grid] = _Kept(truncate_to_millis(started), SliceReading(reading.full_at, seen=seen))

    def _forget(self, grid: datetime) -> _Kept | None:
        kept = self._kept.pop(grid, None)
        self._records -= 0 if kept is None else _records(kept.reading.seen)
        return kept


def _records(seen: Mapping[int, KnownAnswer]) -> int:
    return sum(len(answer.statuses) for answer in seen.values())
