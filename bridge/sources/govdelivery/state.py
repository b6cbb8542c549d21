"""What the cursor remembers of each message and of the lists, and what follows from that for the next look."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from bridge.http import parsing
from bridge.sources.govdelivery.change_rate import ChangeRate, changes, value, worth_after
from bridge.sources.govdelivery.scheduling import ABANDON_AFTER_SECONDS, Candidate, next_sweep_at, price

_CLOCKS = 5.0
"""Seconds by which two processes' clocks may differ."""
_EARLIEST_SECONDS = 946_684_800.0
"""Seconds since 1970: the year 2000. By `0001-01-01`, a running message would count as quiet for 2,000 years."""
_RECIPIENTS_PER_PAGE_COUNT = 50
_PAGES_BEFORE_COUNTS = 2
_STORED_NAMES = {"discovered": "found", "last_read": "looked"}
"""Fields of `MessageState` that have another name in the cursor."""
_FIELD_NAMES = {stored: name for name, stored in _STORED_NAMES.items()}


@dataclass(frozen=True, slots=True)
class SweepTimes:
    """A reading of a message's recipients that is under way; kept in the cursor where a poll ends in the middle."""

    todo: tuple[tuple[str, str], ...]
    """What is still to be read: pairs of a detail (or nothing) and a link, the present page first."""
    started: float
    since: float | None = None
    """The provider's own clock at the start."""
    counts: Mapping[str, int] | None = None
    details: Mapping[str, int] | None = None
    settled: tuple[str, ...] = ()
    """Details whose collections were read, did not move, or were given up, since the start."""
    listed: int = 0
    pages: int = 0
    held: int = 0
    """Recipients that changed during the sweep and are left to the next one."""


@dataclass(frozen=True, slots=True)
class MessageState:
    """What the cursor remembers of one message; times are seconds since 1970.

    The cursor keeps the fields by their names, but for those of `_STORED_NAMES`: stores exist that have them so.
    """

    due: float
    discovered: float
    status: str | None = None
    created: float | None = None
    completed: float | None = None
    changed: float | None = None
    last_read: float | None = None
    """When the last look at the message began."""
    swept: float | None = None
    """When the last complete reading of its recipients began."""
    took: float = 0.0
    counts: Mapping[str, int] | None = None
    """As of the last complete reading; None where that has to be repeated."""
    details: Mapping[str, int] | None = None
    seen: Mapping[str, int] | None = None
    """As of the last look, where that differs from `counts`."""
    pages: int = 0
    """How many pages the last complete reading had."""
    hint: str = ""
    """What the list of messages said of it last."""
    hinted: bool = False
    """Whether the list told news since the last look."""
    failures: int = 0
    missing: int = 0
    """How often in a row it was not there."""
    over: float | None = None
    """No longer followed; when it was last seen in a list, or ended."""
    sweep: SweepTimes | None = None
    backlog: bool = False
    """Whether a first start found it, and its recipients were not read whole since."""

    def dump(self) -> str:
        """Return the cursor's entry: what differs from the defaults, as short JSON."""
        values = {
            _STORED_NAMES.get(field.name, field.name): value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default or field.default is MISSING
        }
        if self.sweep is not None:
            values["sweep"] = asdict(self.sweep)
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> MessageState:
        """Read what `dump` wrote; an entry that cannot be read is one that is due and knows nothing."""
        try:
            values = json.loads(text)
            if sweep := values.get("sweep"):
                todo = tuple((str(detail), str(link)) for detail, link in sweep.pop("todo"))
                values["sweep"] = SweepTimes(todo=todo, settled=tuple(sweep.pop("settled")), **sweep)
            return cls(**{_FIELD_NAMES.get(name, name): value for name, value in values.items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls(due=0.0, discovered=0.0)

    def later(self, due: float, **changes: Any) -> MessageState:
        """Return this entry, due at another time, to the millisecond."""
        return replace(self, due=to_millis(due), **changes)

    @property
    def latest(self) -> Mapping[str, int] | None:
        """The counts as of the last look."""
        return self.counts if self.seen is None else self.seen

    @property
    def begun(self) -> float:
        """Return when it was last looked at, or was found."""
        return self.discovered if self.last_read is None else self.last_read

    @property
    def put_off(self) -> float:
        """Return for how many seconds the last look put off the next one; infinite where nobody ever looked."""
        return math.inf if self.last_read is None else self.due - self.last_read

    def age(self, now: float) -> float:
        """Return for how many seconds the message has existed."""
        return now - (self.discovered if self.created is None else self.created)

    def expected(self, now: float, change_rate: ChangeRate) -> float:
        """Return how many changes a second are to be expected."""
        moved = max(self.discovered if self.created is None else self.created, self.changed or 0.0)
        quiet = 0.0 if self.last_read is None else self.last_read - moved
        return change_rate.expected(self.latest, self.age(now), quiet, running=self.completed is None)

    def ended(self, now: float, follow_for: float) -> bool:
        """Whether nothing more is expected of the message: it completed long ago, or has not moved for long."""
        if self.completed is not None:
            return now >= self.completed + follow_for
        return now - max(self.discovered, self.changed or 0.0) >= ABANDON_AFTER_SECONDS

    def length(self) -> int:
        """Return how many pages of recipients are to be expected."""
        counted = math.ceil((self.latest or {}).get("total", 0) / _RECIPIENTS_PER_PAGE_COUNT)
        return max(self.pages, counted, _PAGES_BEFORE_COUNTS if self.latest is None else 1)

    def candidate(self, path: str, now: float, change_rate: ChangeRate) -> Candidate:
        """Return what a look is worth now.

        What is known to have changed, by its counts, by the list or by a reading that did not come to its end, is there
        to be found.
        """
        created = self.discovered if self.created is None else self.created
        pages = self.length()
        if self.last_read is None:
            return Candidate(path, self.due, math.inf, 1.0 + pages, created)
        pages_to_read = int(self.sweep is not None or self.counts is None)
        if self.counts is not None and self.seen is not None:
            pages_to_read = max(pages_to_read, changes(self.counts, self.seen))
        since = self.last_read if not pages_to_read else created if self.swept is None else self.swept
        waited = max(1.0, now - since)
        rate = max(self.expected(now, change_rate), max(pages_to_read, self.hinted) / waited)
        if self.sweep is not None:
            pages = max(1, pages - self.sweep.pages)
        cost = 1.0 + pages * -math.expm1(-rate * waited)
        return Candidate(path, self.due, value(rate, waited, pages), cost, created)

    def next(
        self, now: float, interval: float, follow_for: float, change_rate: ChangeRate, before: float
    ) -> float | None:
        """Return when the message is due after a look at `now`; None is never again.

        `before` is what `put_off` said before this look.
        """
        then = next_sweep_at(
            datetime.fromtimestamp(now, UTC),
            to_datetime(self.created),
            to_datetime(self.completed),
            to_datetime(self.changed),
            interval,
            follow_for,
            worth_after(self.expected(now, change_rate), self.length(), price(interval)),
            before,
        )
        return None if then is None else then.timestamp()


def is_in_future(written: float | None, now: float) -> bool:
    """Whether a time in the cursor is by a clock that was set ahead: how long ago that was, nobody knows."""
    return written is not None and written > now + _CLOCKS


def to_millis(seconds: float) -> float:
    """Cut a time to milliseconds, never beyond itself."""
    return math.floor(seconds * 1000) / 1000


def to_datetime(seconds: float | None) -> datetime | None:
    """Return seconds since 1970 as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def epoch(value: Any) -> float | None:
    """Read a provider's time as seconds since 1970; one before the year 2000 is a placeholder and means no time."""
    moment = parsing.time(value)
    seconds = None if moment is None else moment.timestamp()
    return None if seconds is None or seconds < _EARLIEST_SECONDS else seconds


def past(value: Any, now: float) -> float | None:
    """Read a time as `epoch` does; one that is yet to come, of what is said to have happened, is None."""
    seconds = epoch(value)
    return None if seconds is None or seconds > now else seconds


@dataclass(frozen=True, slots=True)
class ListState:
    """What the cursor remembers of the list of one channel's messages."""

    until: float | None = None
    """When the last complete walk through the list began; None before the first."""
    deep: float = 0.0
    """When the last walk began that went as far back as anything is followed."""

    def dump(self) -> str:
        """Return the cursor's entry."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def load(cls, text: str | None) -> ListState:
        """Read what `dump` wrote; None and what cannot be read is a list never walked."""
        try:
            return cls(**json.loads(text or "{}"))
        except (ValueError, TypeError):
            return cls()
