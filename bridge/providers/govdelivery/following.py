"""Which message is looked at when, and what the cursor remembers of each: pure decisions and plain records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.providers import reading

SELDOM = 3600.0
"""A followed message is looked at once an hour at least, unless the interval is longer."""
ABANDONED = 30 * 86400.0
"""A message that never completes is left alone after so many quiet seconds."""
_QUIET_SHARE = 0.05
_REREAD_SHARE = 0.25
_REREAD_COST = 10.0


def next_look(
    now: datetime,
    created_at: datetime | None,
    completed_at: datetime | None,
    last_change: datetime | None,
    interval: float,
    follow_for: float,
) -> datetime | None:
    """Decide when a message is looked at next; None is never again.

    A message in motion is looked at every `interval` seconds, a quiet one ever more seldom (a twentieth of the time for
    which it has been quiet), but once an hour; a completed one until `follow_for` seconds after its completion, with a
    last look at that very time.
    """
    moved = max((moment for moment in (created_at, completed_at, last_change) if moment is not None), default=now)
    quiet = max(0.0, (now - moved).total_seconds())
    then = now + timedelta(seconds=max(interval, min(quiet * _QUIET_SHARE, SELDOM)))
    if completed_at is None:
        return then if quiet < ABANDONED else None
    end = completed_at + timedelta(seconds=follow_for)
    return min(then, end) if now < end else None


def must_reread(now: float, swept: float, took: float, completed: float | None, reread_every: float) -> bool:
    """Decide whether the recipients are read though no count moved: two opposite changes leave the counts alone.

    A reading that took long, or a message completed long ago, is repeated less often.
    """
    age = 0.0 if completed is None else (now - completed) * _REREAD_SHARE
    return now - swept >= max(reread_every, took * _REREAD_COST, age)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A reading of a message's recipients that is under way; kept in the cursor where a poll ends in the middle."""

    todo: tuple[tuple[str, str], ...]
    """What is still to be read: pairs of a detail (or nothing) and a link, the present page first."""
    started: float
    since: float | None = None
    """The provider's own clock at the start."""
    counts: Mapping[str, int] | None = None
    details: Mapping[str, int] | None = None
    settled: tuple[str, ...] = ()
    """Details whose collections were read, or did not move, since the start."""
    listed: int = 0
    pages: int = 0
    held: int = 0
    """Recipients that changed during the sweep and are left to the next one."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What the cursor remembers of one message; times are seconds since 1970."""

    due: float
    found: float
    status: str | None = None
    created: float | None = None
    completed: float | None = None
    changed: float | None = None
    looked: float | None = None
    """When the last look at the message began."""
    swept: float | None = None
    """When the last complete reading of its recipients began."""
    took: float = 0.0
    counts: Mapping[str, int] | None = None
    """As of the last complete reading; None where that has to be repeated."""
    details: Mapping[str, int] | None = None
    hint: str = ""
    """What the list of messages said of it last."""
    failures: int = 0
    missing: int = 0
    """How often in a row it was not there."""
    over: float | None = None
    """No longer followed; when it was last seen in a list, or ended."""
    sweep: Sweep | None = None

    def dump(self) -> str:
        """Return the cursor's entry: what differs from the defaults, as short JSON."""
        values = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default or field.default is MISSING
        }
        if self.sweep is not None:
            values["sweep"] = asdict(self.sweep)
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> Followed:
        """Read what `dump` wrote; an entry that cannot be read is one that is due and knows nothing."""
        try:
            values = json.loads(text)
            if sweep := values.get("sweep"):
                todo = tuple((str(detail), str(link)) for detail, link in sweep.pop("todo"))
                values["sweep"] = Sweep(todo=todo, settled=tuple(sweep.pop("settled")), **sweep)
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls(due=0.0, found=0.0)

    def later(self, due: float, **changes: Any) -> Followed:
        """Return this entry, due at another time, to the millisecond."""
        return replace(self, due=stamp(due), **changes)

    def next(self, now: float, interval: float, follow_for: float) -> float | None:
        """Return when the message is due after a look at `now`; None is never again."""
        then = next_look(
            datetime.fromtimestamp(now, UTC),
            moment(self.created),
            moment(self.completed),
            moment(self.changed),
            interval,
            follow_for,
        )
        return None if then is None else then.timestamp()


def stamp(seconds: float) -> float:
    """Cut a time to milliseconds, never beyond itself."""
    return math.floor(seconds * 1000) / 1000


def moment(seconds: float | None) -> datetime | None:
    """Return seconds since 1970 as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def epoch(value: Any) -> float | None:
    """Read a provider's time as seconds since 1970."""
    found = reading.time(value)
    return None if found is None else found.timestamp()


@dataclass(frozen=True, slots=True)
class Listed:
    """What the cursor remembers of the list of one channel's messages."""

    until: float | None = None
    """When the last complete walk through the list began; None before the first."""
    deep: float = 0.0
    """When the last walk began that went as far back as anything is followed."""

    def dump(self) -> str:
        """Return the cursor's entry."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def load(cls, text: str | None) -> Listed:
        """Read what `dump` wrote; None and what cannot be read is a list never walked."""
        try:
            return cls(**json.loads(text or "{}"))
        except (ValueError, TypeError):
            return cls()
