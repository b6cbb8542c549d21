"""The trailing window of a listing: its slices, which of them are due, and how far they are done; all of it pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bridge.http import parsing

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AGE_PER_INTERVAL_RATIO = 60.0
"""How many times its reading interval old a slice is."""


def vendor_time(when: datetime) -> str:
    """Return a time in UTC to the millisecond: `2015-01-06T10:21:14.243Z`."""
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the window."""

    grid: datetime
    """Where it starts on the grid: its name from poll to poll."""
    start: datetime
    """The first moment in it that is still of interest."""
    end: datetime


def slices(start: datetime, until: datetime, size: timedelta) -> Iterator[Slice]:
    """Cut the time from `start` to `until` on a grid of `size` that is the same for all polls."""
    grid = _grid(start, size)
    while grid < until:
        yield Slice(grid, max(grid, start), min(grid + size, until))
        grid += size


def _grid(when: datetime, size: timedelta) -> datetime:
    return _EPOCH + (when - _EPOCH) // size * size


def period(age: float, interval: float, reread_every: float) -> float:
    """Return how often, in seconds, a slice is read that ended `age` seconds ago.

    New records change soon, old ones seldom: a slice that ended an hour ago is read each minute, one that ended five
    hours ago each five minutes. It is never read more often than `interval`, and never less often than `reread_every`.
    """
    return max(interval, min(reread_every, age / _AGE_PER_INTERVAL_RATIO))


def due(part: Slice, read: datetime | None, now: datetime, interval: float, reread_every: float) -> bool:
    """Say whether a slice that was last read at `read` must be read now."""
    wait = period((now - part.end).total_seconds(), interval, reread_every)
    if read is None or wait <= interval:
        return True
    # Polls come a little early or late. Without half an interval of grace, every second one would miss a slice.
    return (now - read).total_seconds() >= wait - interval / 2


@dataclass(slots=True)
class Progress:
    """How far one listing was read: all before `low_watermark` is done; `read` says when each slice was last read.

    A slice that could not be read holds the low watermark, and so does an outage of the bridge: no record leaves the
    window before it was read at the age of `lookback`.
    """

    low_watermark: datetime
    read: dict[datetime, datetime] = field(default_factory=dict)
    """By the start of each slice, when it was last read whole."""

    def before(self, part: Slice, size: timedelta) -> datetime | None:
        """Return a time at which all records of the slice had been read, or did not exist."""
        own = self.read.get(part.grid)
        if own is not None:
            return own
        neighbour = self.read.get(part.grid - size)
        return neighbour if neighbour is not None and neighbour <= part.grid else None

    def cut(self, low_watermark: datetime, size: timedelta) -> list[datetime]:
        """Give up what is before `low_watermark`; return the slices that this removes."""
        self.low_watermark = low_watermark
        removed = [grid for grid in self.read if grid + size <= low_watermark]
        for grid in removed:
            del self.read[grid]
        return removed

    def advance(self, size: timedelta, lookback: timedelta) -> list[datetime]:
        """Move the low watermark over records that were read at the age of `lookback`; return the removed slices."""
        removed: list[datetime] = []
        while (read := self.read.get(grid := _grid(self.low_watermark, size))) is not None:
            self.low_watermark = max(self.low_watermark, min(read - lookback, grid + size))
            if self.low_watermark < grid + size:
                break
            del self.read[grid]
            removed.append(grid)
        return removed


def due_slices(
    progress: Progress, until: datetime, size: timedelta, now: datetime, interval: float, reread_every: float
) -> list[tuple[Slice, datetime | None]]:
    """Return the slices to read now, each with a time at which its records had been read or did not exist."""
    return [
        (part, progress.before(part, size))
        for part in slices(progress.low_watermark, until, size)
        if due(part, progress.read.get(part.grid), now, interval, reread_every)
    ]


@dataclass(frozen=True, slots=True)
class CursorKeys:
    """The names of one listing's entries in the cursor."""

    listing: str
    size: timedelta

    @property
    def low_watermark(self) -> str:
        """Return the name of the entry that holds the low watermark."""
        return f"{self.listing}.floor"

    @property
    def first_polled(self) -> str:
        """Return the name of the entry with the time of the first poll; it goes when the window has passed that."""
        return f"{self.listing}.begun"

    def read(self, grid: datetime) -> str:
        """Return the name of the entry that says when a slice was last read; a new size has new slices."""
        return f"{self.listing}.read.{grid:%Y-%m-%dT%H:%M:%SZ}+{self.size.total_seconds():g}s"

    def load(self, cursor: Mapping[str, str], now: datetime, lookback: timedelta) -> tuple[Progress, list[str]]:
        """Return the progress that a cursor holds, and the names of its entries that have no meaning (any more).

        The low watermark is never younger than `lookback`: a clock that was once ahead must not hide what follows.
        """
        youngest = now - lookback
        progress = Progress(min(parsing.time(cursor.get(self.low_watermark)) or youngest, youngest))
        stale: list[str] = []
        for name, value in cursor.items():
            stem, _, rest = name.rpartition(".read.")
            if stem != self.listing:
                continue
            grid = parsing.time(rest.partition("+")[0])
            when = parsing.time(value)
            if grid is None or when is None or not _EPOCH < when <= now or self.read(grid) != name:
                stale.append(name)
            else:
                progress.read[grid] = when
        return progress, stale

    def first_poll(
        self, cursor: Mapping[str, str], progress: Progress, now: datetime
    ) -> tuple[datetime | None, dict[str, str | None]]:
        """Return when the listing was first polled, and what that changes in the cursor.

        None once everything older than the first poll has been read.
        """
        if self.low_watermark not in cursor:
            return now, {self.first_polled: vendor_time(now)}
        first_polled = parsing.time(cursor.get(self.first_polled))
        if self.first_polled in cursor and (first_polled is None or progress.low_watermark >= first_polled):
            return None, {self.first_polled: None}
        return first_polled, {}

    def moved(self, progress: Progress, part: Slice, lookback: timedelta) -> dict[str, str | None]:
        """Return what changes in the cursor once a slice was read whole; moves the low watermark of `progress`."""
        changes: dict[str, str | None] = {self.read(part.grid): vendor_time(progress.read[part.grid])}
        changes |= {self.read(grid): None for grid in progress.advance(self.size, lookback)}
        return changes | {self.low_watermark: vendor_time(progress.low_watermark)}
