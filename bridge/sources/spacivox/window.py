"""The trailing window of Spacivox: its slices, which of them are due, and how far they are done; all of it pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bridge.domain.errors import BridgeError, Permanent
from bridge.http import parsing
from bridge.http.errors import ProviderError, RequestRejected, TooLarge

SMALLEST = timedelta(minutes=1)
"""A request for no more than this is not halved again."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AGE_PER_PERIOD = 60.0
_HALF = 2
_EIGHTH = 8
_BORNE = 4
_BAD_REQUEST = 400
_TOO_MUCH = frozenset({_BAD_REQUEST, 408, 413, 504, 524})


def moment(when: datetime) -> str:
    """Return a time in UTC as the vendor writes it, to the millisecond: `2015-01-06T10:21:14.243Z`."""
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the window."""

    grid: datetime
    """Where it starts on the grid: its name from poll to poll."""
    start: datetime
    """From where on it is still of interest."""
    end: datetime


def slices(floor: datetime, until: datetime, size: timedelta) -> Iterator[Slice]:
    """Cut the time from `floor` to `until` on a grid of `size` that stays put from poll to poll."""
    grid = _grid(floor, size)
    while grid < until:
        yield Slice(grid, max(grid, floor), min(grid + size, until))
        grid += size


def _grid(when: datetime, size: timedelta) -> datetime:
    return _EPOCH + (when - _EPOCH) // size * size


def period(age: float, interval: float, reread_every: float) -> float:
    """Return how often, in seconds, a slice is read that ended `age` seconds ago.

    What is new changes soon, what is old seldom: a slice that ended an hour ago is read each minute, one that ended
    five hours ago each five minutes; never more often than `interval`, never more seldom than `reread_every`.
    """
    return max(interval, min(reread_every, age / _AGE_PER_PERIOD))


def due(part: Slice, read: datetime | None, now: datetime, interval: float, reread_every: float) -> bool:
    """Say whether a slice that was last read at `read` is to be read now."""
    wait = period((now - part.end).total_seconds(), interval, reread_every)
    if read is None or wait <= interval:
        return True
    # Polls come a little early or late: half an interval of grace keeps every second one from being missed.
    return (now - read).total_seconds() >= wait - interval / 2


@dataclass(slots=True)
class Progress:
    """How far one listing was read: all before `floor` is done; `read` says when each slice was last read whole.

    A slice that could not be read holds the floor, and so does a bridge that was down: no record leaves the window
    without having been looked at when it was `lookback` old.
    """

    floor: datetime
    read: dict[datetime, datetime] = field(default_factory=dict)

    def before(self, part: Slice, size: timedelta) -> datetime | None:
        """Return a time at which all of the slice's records had been looked at, or did not exist."""
        own = self.read.get(part.grid)
        if own is not None:
            return own
        neighbour = self.read.get(part.grid - size)
        return neighbour if neighbour is not None and neighbour <= part.grid else None

    def cut(self, floor: datetime, size: timedelta) -> list[datetime]:
        """Give up what is before `floor`; return the slices left behind."""
        self.floor = floor
        left = [grid for grid in self.read if grid + size <= floor]
        for grid in left:
            del self.read[grid]
        return left

    def advance(self, size: timedelta, lookback: timedelta) -> list[datetime]:
        """Move the floor over what was looked at when it was `lookback` old; return the slices left behind."""
        left: list[datetime] = []
        while (read := self.read.get(grid := _grid(self.floor, size))) is not None:
            self.floor = max(self.floor, min(read - lookback, grid + size))
            if self.floor < grid + size:
                break
            del self.read[grid]
            left.append(grid)
        return left


@dataclass(frozen=True, slots=True)
class Entries:
    """The names of one listing's entries in the cursor."""

    listing: str
    size: timedelta

    @property
    def floor(self) -> str:
        """Return the name of the entry that holds the floor."""
        return f"{self.listing}.floor"

    @property
    def begun(self) -> str:
        """Return the name of the entry that says when the listing was polled first, until its window has left that."""
        return f"{self.listing}.begun"

    def read(self, grid: datetime) -> str:
        """Return the name of the entry that says when a slice was last read; a new size has new slices."""
        return f"{self.listing}.read.{grid:%Y-%m-%dT%H:%M:%SZ}+{self.size.total_seconds():g}s"

    def load(self, cursor: Mapping[str, str], now: datetime, lookback: timedelta) -> tuple[Progress, list[str]]:
        """Return the progress that a cursor tells of, and the names of entries that mean nothing (any more).

        The floor is never younger than `lookback`: a clock that once ran ahead must not hide what follows.
        """
        fresh = now - lookback
        progress = Progress(min(parsing.time(cursor.get(self.floor)) or fresh, fresh))
        stale: list[str] = []
        for name, value in cursor.items():
            stem, _, rest = name.rpartition(".read.")
            if stem != self.listing:
                continue
            grid = parsing.time(rest.partition("+")[0])
            when = parsing.time(value)
            if grid is None or when is None or when > now or self.read(grid) != name:
                stale.append(name)
            else:
                progress.read[grid] = when
        return progress, stale


@dataclass(slots=True)
class Reach:
    """For how much time to ask at once: what the provider bears, found by trying.

    What was too much is not tried again at once, but one bad moment of the provider must not leave us asking for
    minutes: after a few answers in a row, ever more as it is refused again, twice as much is tried.
    """

    most: timedelta
    span: timedelta = field(init=False)
    _refused: timedelta = field(init=False)
    _borne: int = 0
    _patience: int = _BORNE

    def __post_init__(self) -> None:
        self.span, self._refused = self.most, self.most * _HALF

    def begin(self) -> None:
        """Be a little bolder at a poll's beginning, unless the last thing that was heard is a refusal."""
        if self._borne:
            self._refused, self._borne, self._patience = self._refused * _HALF, 0, _BORNE

    def refuse(self, tried: timedelta, less: timedelta | None) -> None:
        """Note that so much was too much, and what to ask for instead; None is no matter of how much."""
        self._borne, self._patience = 0, self._patience * _HALF
        if less is None:
            self.span = self.most
        else:
            self._refused, self.span = tried, less

    def bear(self) -> None:
        """Note that the provider has answered."""
        self._borne += 1
        if self._borne % self._patience == 0:
            self._refused *= _HALF
        self._refused = min(self._refused, self.most * _HALF)
        if self.span * _HALF < self._refused:
            self.span = min(self.span * _HALF, self.most)


def narrower(error: BridgeError, span: timedelta) -> timedelta | None:
    """Return for how much time to ask instead of `span` after `error`; None where asking for less is no help.

    Silence costs its whole time-out, so it is met with an eighth at once.
    """
    if isinstance(error, ProviderError) and error.timed_out:
        parts = _EIGHTH
    elif isinstance(error, TooLarge) or (
        isinstance(error, ProviderError | RequestRejected) and error.status in _TOO_MUCH
    ):
        parts = _HALF
    else:
        return None
    return max(span / parts, SMALLEST) if span > SMALLEST else None


def final(error: BridgeError) -> BridgeError:
    """Return what to raise for a request that cannot be made smaller."""
    if isinstance(error, RequestRejected) and error.status == _BAD_REQUEST:
        return Permanent(f"{error}, even for {SMALLEST.seconds} s of records: check url and team")
    return error
